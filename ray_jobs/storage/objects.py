"""Pictures in a bucket: which there are under a prefix, and their bytes. Checkpoints are in ``s3``."""

import functools
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from ray_jobs.errors import BadInput, DataError
from ray_jobs.storage.s3 import S3Storage, s3_client


def list_objects(url: str, suffixes: Collection[str]) -> list[str]:
    """The ``s3://bucket/key`` of every object at or under ``url`` whose lower-case ending is in ``suffixes``, sorted.

    Raises BadInput for an address without a bucket, or for a bucket that cannot be read.
    """
    bucket, prefix = _split(url)
    found = []
    try:
        for page in _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            found += [entry["Key"] for entry in page.get("Contents", [])]
    except Exception as error:  # botocore raises a class per kind of refusal, and its own for the network
        raise BadInput(S3Storage(bucket, prefix)._explain(error).removeprefix("storage.url: ")) from None
    folder = f"{prefix.rstrip('/')}/" if prefix else ""
    inside = [key for key in found if key == prefix or key.startswith(folder)]
    return [f"s3://{bucket}/{key}" for key in sorted(inside) if PurePosixPath(key).suffix.lower() in suffixes]


def read_object(url: str, most: int) -> bytes:
    """The bytes of an object. Raises DataError for one that is missing, larger than ``most`` bytes, or cut off."""
    bucket, key = _split(url)
    try:
        answer = _client().get_object(Bucket=bucket, Key=key)
        if answer["ContentLength"] > most:
            answer["Body"].close()
            raise DataError(f"{url}: {answer['ContentLength']:,} bytes are more than the {most:,} that are read")
        return bytes(answer["Body"].read())
    except DataError:
        raise
    except Exception as error:
        code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
        raise DataError(f"{url}: {'no such object' if code == 'NoSuchKey' else f'cannot be read: {error}'}") from None


def _split(url: str) -> tuple[str, str]:
    parts = urlsplit(url, allow_fragments=False)
    if parts.scheme != "s3" or not parts.netloc:
        raise BadInput(f"{url}: names no bucket; write s3://bucket/prefix")
    return parts.netloc, f"{parts.path}?{parts.query}".lstrip("/") if parts.query else parts.path.lstrip("/")


@functools.cache
def _client() -> Any:
    return s3_client(connect_timeout=5, read_timeout=60, attempts=5)
