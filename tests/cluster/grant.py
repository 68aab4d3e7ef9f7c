"""In place of MinIO's own tool: let the restricted user of the Ceph gateway work in one bucket, and nowhere else."""

import json
import os

import boto3

bucket = os.environ["S3_BUCKET"]
root = boto3.client(
    "s3",
    aws_access_key_id=os.environ["OBJECT_STORE_ROOT_USER"],
    aws_secret_access_key=os.environ["OBJECT_STORE_ROOT_PASSWORD"],
)
root.create_bucket(Bucket=bucket)
statement = {
    "Effect": "Allow",
    "Principal": {"AWS": ["arn:aws:iam:::user/xray"]},
    "Action": [
        "s3:ListBucket",
        "s3:GetBucketLocation",
        "s3:ListBucketMultipartUploads",
        "s3:GetObject",
        "s3:PutObject",
        "s3:DeleteObject",
        "s3:AbortMultipartUpload",
        "s3:ListMultipartUploadParts",
    ],
    "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
}
root.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
