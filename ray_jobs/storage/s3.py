"""Checkpoints in a bucket: each file in one request, with its SHA-256, and asked for again afterwards.

Everything but the probe waits for a store that is away (``patience``); what it waited for is in ``trouble``.
"""

import base64
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from ray_jobs.errors import DamagedObject, PlatformError, StorageError
from ray_jobs.storage.files import sha256_of
from ray_jobs.storage.patience import Patience, Trouble, Verdict

T = TypeVar("T")

_BLOCK = 1 << 20


@dataclass(frozen=True)
class S3Storage:
    """A bucket and a prefix in it. Picklable: connections are made where they are used."""

    bucket: str
    prefix: str
    patience: Patience = field(default=Patience(), compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"bucket": self.bucket, "prefix": self.prefix, "patience": self.patience}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{PurePosixPath(self.bucket, self.prefix)}"

    @cached_property
    def trouble(self) -> Trouble:
        """What this process had to wait for."""
        return Trouble()

    @cached_property
    def _client(self) -> Any:
        return s3_client(connect_timeout=5, read_timeout=20, attempts=1)

    def ray_location(self) -> tuple[str, Any]:
        """Bucket and prefix, and a file system that waits for a store that is away."""
        from ray_jobs.storage.ray_filesystem import bucket_filesystem

        return str(PurePosixPath(self.bucket, self.prefix)), bucket_filesystem(self)

    def probe(self) -> None:
        """Put, get, compare and delete a small object, within about ten seconds."""
        key, body = self._key(f".probe-{uuid.uuid4().hex}"), os.urandom(16)
        try:
            client = s3_client(connect_timeout=2, read_timeout=2, attempts=1)
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
        return self._patiently(lambda: self._get_file(name, target))

    def _get_file(self, name: str, target: Path) -> bool:
        from botocore.exceptions import ClientError

        try:
            answer = self._client.get_object(Bucket=self.bucket, Key=self._key(name))
        except ClientError as error:
            if _code(error) in ("NoSuchKey", "404"):
                return False
            raise
        partial = target.with_name(f".{target.name}.partial")
        with partial.open("wb") as writer:
            shutil.copyfileobj(answer["Body"], writer, _BLOCK)
        stored = answer["Metadata"].get("sha256")
        if stored and sha256_of(partial) != stored:
            partial.unlink()
            raise DamagedObject(f"{self.url}/{name}: the object is damaged (its SHA-256 differs from the stored one)")
        partial.replace(target)
        return True

    def read_object(self, key: str) -> bytes | None:
        """The bytes of a whole key; None where there is none."""
        from botocore.exceptions import ClientError

        def read() -> bytes | None:
            try:
                body: bytes = self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            except ClientError as error:
                if _code(error) in ("NoSuchKey", "404"):
                    return None
                raise
            return body

        return self._patiently(read)

    def write_object(self, key: str, body: bytes) -> None:
        """Store bytes under a whole key, verified."""
        digest = hashlib.sha256(body).hexdigest()
        self._patiently(lambda: self._put(key, body, len(body), digest))

    def object_size(self, key: str) -> int | None:
        """Bytes of a whole key; None where there is none."""
        from botocore.exceptions import ClientError

        def head() -> int | None:
            try:
                return int(self._client.head_object(Bucket=self.bucket, Key=key)["ContentLength"])
            except ClientError as error:
                if _code(error) in ("NoSuchKey", "404"):
                    return None
                raise

        return self._patiently(head)

    def keys_below(self, prefix: str, limit: int | None = None) -> list[str]:
        """All whole keys with a prefix, or the first ``limit`` of them."""

        def collect() -> list[str]:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, PaginationConfig={"MaxItems": limit} if limit else {}
            )
            return [item["Key"] for page in pages for item in page.get("Contents", ())]

        return self._patiently(collect)

    def delete_keys(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are gone already are no error."""
        for key in keys:
            self._patiently(lambda key=key: self._client.delete_object(Bucket=self.bucket, Key=key))  # type: ignore[misc]

    def folders_below(self, name: str) -> list[str]:
        """The names of the folders directly in ``name``."""
        prefix = f"{self._key(name)}/"
        inner = (key[len(prefix) :].split("/") for key in self.keys_below(prefix))
        return sorted({parts[0] for parts in inner if len(parts) > 1})

    def _put_verified(self, file: Path, key: str) -> None:
        digest, size = sha256_of(file), file.stat().st_size

        def put() -> None:
            with file.open("rb") as body:
                self._put(key, body, size, digest)

        self._patiently(put)

    def _put(self, key: str, body: IO[bytes] | bytes, size: int, digest: str) -> None:
        """Store an object with its SHA-256, then ask the server what it holds."""
        self._client.put_object(
            Bucket=self.bucket,
            Key=key,
            Body=body,
            ChecksumSHA256=base64.b64encode(bytes.fromhex(digest)).decode(),
            Metadata={"sha256": digest},
        )
        head = self._client.head_object(Bucket=self.bucket, Key=key)
        if head["ContentLength"] != size or head["Metadata"].get("sha256") != digest:
            raise _NotAsSent(f"s3://{self.bucket}/{key}: the server holds something else than was sent")

    def _patiently(self, call: Callable[[], T]) -> T:
        from botocore.exceptions import ClientError

        try:
            return self.patience.keep_trying(call, self._judge, self._explain, self.trouble)
        except ClientError as error:
            raise StorageError(self._explain(error)) from None

    def _judge(self, error: Exception) -> Verdict:
        verdict = judge(error)
        if verdict is Verdict.REFUSED:
            self.__dict__.pop("_client", None)  # a new one reads its keys again, from a credentials file for one
        return verdict

    def _key(self, name: str) -> str:
        return str(PurePosixPath(self.prefix, name))

    def _explain(self, error: Exception) -> str:
        code = _code(error)
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
        if isinstance(error, ValueError):
            return (
                f"AWS_ENDPOINT_URL: {where}: is no address; write it with http:// or https://, as in http://minio:9000"
            )
        return f"storage.url: {self.url}: {where} cannot be used: {error}; check AWS_ENDPOINT_URL and the network"


_REFUSED = {
    "403",
    "AccessDenied",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}
_BROKEN_ON_THE_WAY = {"BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentSHA256Mismatch"}
_TOO_MANY = {"SlowDown", "TooManyRequests", "429"}


def judge(error: Exception) -> Verdict:
    """Whether a failed call is worth another try."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    if isinstance(error, ClientError):
        code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _REFUSED or status in (401, 403):
            return Verdict.REFUSED
        return Verdict.OUTAGE if status >= 500 or code in _BROKEN_ON_THE_WAY | _TOO_MANY else Verdict.FINAL
    if isinstance(error, NoCredentialsError):
        return Verdict.REFUSED
    from urllib3.exceptions import HTTPError

    outage = isinstance(error, BotoCoreError | HTTPError | ConnectionError | TimeoutError | _NotAsSent)
    return Verdict.OUTAGE if outage else Verdict.FINAL


class _NotAsSent(PlatformError):
    """The server does not hold what was sent: it is sent again."""


def _code(error: Exception) -> str:
    response = getattr(error, "response", None)  # None, not a dictionary, where the network failed
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def endpoint_url() -> str | None:
    """The S3 endpoint from the environment; None is AWS itself."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def s3_client(connect_timeout: int, read_timeout: int, attempts: int) -> Any:
    """A boto3 client for the endpoint and the keys of the environment."""
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
