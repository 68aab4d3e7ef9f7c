"""Checkpoints in a bucket: each file in one request, with its SHA-256, and asked for again afterwards."""

import base64
import os
import shutil
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from ray_jobs.errors import PlatformError, StorageError
from ray_jobs.storage.files import sha256_of

_BLOCK = 1 << 20


@dataclass(frozen=True)
class S3Storage:
    """A bucket and a prefix in it. Picklable: connections are made where they are used."""

    bucket: str
    prefix: str

    def __getstate__(self) -> dict[str, str]:
        return {"bucket": self.bucket, "prefix": self.prefix}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__dict__.update(state)

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{PurePosixPath(self.bucket, self.prefix)}"

    @cached_property
    def _client(self) -> Any:
        return _s3_client(connect_timeout=5, read_timeout=60, attempts=5)

    def ray_location(self) -> tuple[str, Any]:
        """Bucket and prefix, and a file system with endpoint and scheme from the environment."""
        from pyarrow.fs import S3FileSystem

        endpoint = urlsplit(endpoint_url() or "")
        # Ray's own files are small; older S3 servers do not know the checksums that newer clients send unasked.
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        filesystem = S3FileSystem(
            endpoint_override=endpoint.netloc or None,
            scheme=endpoint.scheme or "https",
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
            allow_bucket_creation=False,
        )
        return str(PurePosixPath(self.bucket, self.prefix)), filesystem

    def probe(self) -> None:
        """Put, get, compare and delete a small object, within about ten seconds."""
        client = _s3_client(connect_timeout=2, read_timeout=2, attempts=1)
        key, body = self._key(f".probe-{uuid.uuid4().hex}"), os.urandom(16)
        try:
            client.put_object(Bucket=self.bucket, Key=key, Body=body)
            intact = client.get_object(Bucket=self.bucket, Key=key)["Body"].read() == body
            client.delete_object(Bucket=self.bucket, Key=key)
        except Exception as error:
            raise StorageError(self._explain(error)) from None
        if not intact:
            raise StorageError(f"storage.url: {self.url}: does not give back what was written")

    def put_folder(self, folder: Path, name: str) -> None:
        """Put each file in one request with its SHA-256, then ask the server what it holds."""
        for file in sorted(folder.iterdir()):
            self._put_verified(file, self._key(f"{name}/{file.name}"))

    def put_file(self, file: Path, name: str) -> None:
        """As ``put_folder``, for one file."""
        self._put_verified(file, self._key(name))

    def get_file(self, name: str, target: Path) -> bool:
        """Fetch an object and compare its SHA-256 with the one it was stored with."""
        from botocore.exceptions import ClientError

        try:
            answer = self._client.get_object(Bucket=self.bucket, Key=self._key(name))
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
                return False
            raise StorageError(self._explain(error)) from None
        partial = target.with_name(f".{target.name}.partial")
        with partial.open("wb") as writer:
            shutil.copyfileobj(answer["Body"], writer, _BLOCK)
        stored = answer["Metadata"].get("sha256")
        if stored and sha256_of(partial) != stored:
            partial.unlink()
            raise PlatformError(f"{self.url}/{name}: the object is damaged (its SHA-256 differs from the stored one)")
        partial.replace(target)
        return True

    def _put_verified(self, file: Path, key: str) -> None:
        digest, size = sha256_of(file), file.stat().st_size
        with file.open("rb") as body:
            self._client.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=body,
                ChecksumSHA256=base64.b64encode(bytes.fromhex(digest)).decode(),
                Metadata={"sha256": digest},
            )
        head = self._client.head_object(Bucket=self.bucket, Key=key)
        if head["ContentLength"] != size or head["Metadata"].get("sha256") != digest:
            raise PlatformError(f"s3://{self.bucket}/{key}: the server holds something else than was sent")

    def _key(self, name: str) -> str:
        return str(PurePosixPath(self.prefix, name))

    def _explain(self, error: Exception) -> str:
        code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
        where = endpoint_url() or "AWS"
        words = {
            "NoSuchBucket": f"the bucket {self.bucket!r} does not exist at {where}; create it or correct storage.url",
            "404": f"the bucket {self.bucket!r} does not exist at {where}; create it or correct storage.url",
            "InvalidAccessKeyId": f"{where} does not know this key; check AWS_ACCESS_KEY_ID",
            "SignatureDoesNotMatch": f"{where} refuses this key's signature; check AWS_SECRET_ACCESS_KEY",
            "AccessDenied": f"{where} denies access; check the rights of the key in AWS_ACCESS_KEY_ID on this bucket",
            "403": f"{where} denies access; check the rights of the key in AWS_ACCESS_KEY_ID on this bucket",
        }
        if code in words:
            return f"storage.url: {self.url}: {words[code]}"
        if type(error).__name__ == "NoCredentialsError":
            return f"storage.url: {self.url}: no keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return f"storage.url: {self.url}: {where} cannot be used: {error}; check AWS_ENDPOINT_URL and the network"


def endpoint_url() -> str | None:
    """The S3 endpoint from the environment; None is AWS itself."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _s3_client(connect_timeout: int, read_timeout: int, attempts: int) -> Any:
    from boto3.session import Session
    from botocore.config import Config

    return Session().client(  # a session of its own: boto3's shared one remembers keys that were changed since
        "s3",
        endpoint_url=endpoint_url(),
        region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        config=Config(
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            retries={"total_max_attempts": attempts, "mode": "standard"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
