"""Prepare the bucket: make it, let abandoned multipart uploads expire, prove that the restricted user can work in it.

Uses the S3 API alone and may run as often as you like. In: AWS_ENDPOINT_URL, S3_BUCKET, the root key
(OBJECT_STORE_ROOT_USER, OBJECT_STORE_ROOT_PASSWORD) and the key that Ray and MLflow get (S3_ACCESS_KEY, S3_SECRET_KEY).
Out: exit code 0, or 1 with one line that says what the store refused.
"""

import os
import sys
from typing import Any

ABANDONED_AFTER_DAYS = 1
PROBE = "probe/buckets"


def client(access_key: str, secret_key: str) -> Any:
    """An S3 client that addresses buckets by path, as stores without wildcard DNS need it."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(
            s3={"addressing_style": "path"},
            connect_timeout=5,
            read_timeout=30,
            retries={"max_attempts": 5},
            request_checksum_calculation="when_required",
        ),
    )


def make_bucket(root: Any, bucket: str) -> None:
    """Make the bucket unless it is there."""
    from botocore.exceptions import ClientError

    try:
        root.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise
        root.create_bucket(Bucket=bucket)


def expire_abandoned_uploads(root: Any, bucket: str) -> None:
    """Ask the store to drop multipart uploads that nobody finished. MinIO refuses the rule and sweeps by itself."""
    from botocore.exceptions import ClientError

    rule = {
        "ID": "abandoned-multipart-uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": ABANDONED_AFTER_DAYS},
    }
    try:
        root.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("MalformedXML", "InvalidRequest", "NotImplemented"):
            raise
        print(f"{bucket}: the store takes no rule for abandoned uploads; MINIO_API_STALE_UPLOADS_EXPIRY does it there")


def prove_rights(user: Any, bucket: str) -> None:
    """Write, read and delete one small object as the restricted user."""
    user.put_object(Bucket=bucket, Key=PROBE, Body=b"probe")
    user.get_object(Bucket=bucket, Key=PROBE)["Body"].read()
    user.delete_object(Bucket=bucket, Key=PROBE)


def main() -> int:
    """Prepare the bucket named by the environment."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket = os.environ["S3_BUCKET"]
    root = client(os.environ["OBJECT_STORE_ROOT_USER"], os.environ["OBJECT_STORE_ROOT_PASSWORD"])
    user = client(os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"])
    try:
        make_bucket(root, bucket)
        expire_abandoned_uploads(root, bucket)
        prove_rights(user, bucket)
    except (BotoCoreError, ClientError) as error:
        print(f"bucket {bucket} at {os.environ.get('AWS_ENDPOINT_URL')}: {error}", file=sys.stderr)
        return 1
    print(f"bucket {bucket} is ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
