#!/bin/sh
# MinIO: the user that Ray and MLflow work as, with rights on one bucket instead of the root key.
# Runs in MinIO's own image (mc is in it), as often as you like: a changed S3_SECRET_KEY is taken over.
set -eu
mc --quiet alias set store "${STORE_URL:-http://minio:9000}" "$OBJECT_STORE_ROOT_USER" "$OBJECT_STORE_ROOT_PASSWORD" >/dev/null
mc mb --ignore-existing "store/$S3_BUCKET"
cat >/tmp/policy.json <<POLICY
{"Version": "2012-10-17", "Statement": [
  {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"],
   "Resource": ["arn:aws:s3:::$S3_BUCKET"]},
  {"Effect": "Allow",
   "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
   "Resource": ["arn:aws:s3:::$S3_BUCKET/*"]}]}
POLICY
mc admin policy create store "$S3_BUCKET-only" /tmp/policy.json
mc admin user add store "$S3_ACCESS_KEY" "$S3_SECRET_KEY" >/dev/null
# Attaching what is attached already is an error to mc, so ask first.
mc admin user info store "$S3_ACCESS_KEY" | grep -q "$S3_BUCKET-only" \
  || mc admin policy attach store "$S3_BUCKET-only" --user "$S3_ACCESS_KEY"
echo "$S3_ACCESS_KEY may work in $S3_BUCKET, and nowhere else"
