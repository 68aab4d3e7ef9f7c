"""A data set in a bucket: what lies below a prefix, and each object of it as a file, resumed and verified.

In: ``s3://bucket/prefix`` and keys from the environment. Out: a listing, and files whose content was compared with what
the store says of it. Nothing is ever written to the bucket.
"""

import base64
import hashlib
import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ray_jobs.errors import DataError, PlatformError
from ray_jobs.storage.files import sha256_of
from ray_jobs.storage.s3 import endpoint_url, s3_client

CONNECTIONS = 10  # what botocore keeps open by itself
PATIENCE_S = 300.0  # how long a file waits for a store from which no byte comes
_BLOCK = 1 << 20
_LONGEST_PART = 255  # bytes in the name of a file or folder


@dataclass(frozen=True)
class RemoteFile:
    """An object: ``name`` is its key without the prefix, ``size`` is in bytes, ``etag`` as the store writes it."""

    name: str
    size: int
    etag: str


@dataclass(frozen=True)
class BucketFolder:
    """What lies below a prefix of a bucket. ``prefix`` has no slash at its ends; empty: the whole bucket."""

    bucket: str
    prefix: str

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @cached_property
    def _client(self) -> Any:
        return s3_client(connect_timeout=5, read_timeout=30, attempts=2)

    def listing(self) -> tuple[RemoteFile, ...]:
        """Every object, in the order of their names. Raises ``DataError`` for a place or names that cannot be used."""
        from botocore.exceptions import BotoCoreError, ClientError

        start = f"{self.prefix}/" if self.prefix else ""
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start)
            found = [
                RemoteFile(each["Key"][len(start) :], each["Size"], each["ETag"])
                for page in pages
                for each in page.get("Contents", ())
                if not (each["Key"].endswith("/") and each["Size"] == 0)  # how some tools draw a folder
            ]
        except (BotoCoreError, ClientError, ValueError) as error:  # ValueError: an endpoint that is no address
            raise DataError(f"data: {self.url}: {self._explain(error)}") from None
        if not found:
            raise DataError(f"data: {self.url}: holds no object; correct the bucket or the prefix")
        names = sorted(file.name for file in found)
        refused = refused_names(names)
        if refused:
            shown = ", ".join(map(repr, refused[:5])) + (f" and {len(refused) - 5} more" if refused[5:] else "")
            raise DataError(f"data: {self.url}: names that cannot be files of a folder: {shown}; rename the objects")
        return tuple(sorted(found, key=lambda file: file.name))

    def fetch(self, file: RemoteFile, target: Path, give_up: threading.Event | None = None) -> str:
        """Fetch an object into ``target``, going on where an earlier try ended; returns its SHA-256.

        A cut connection is taken up again for ``PATIENCE_S`` after the last byte, or until ``give_up`` is set. The
        content is compared with, in this order: the ``sha256`` that whoever stored it left in the metadata; the SHA-256
        checksum of the store; the ETag, where it is the MD5 of an object put in one piece; the ETag of an object put in
        parts, where the store tells their sizes. Any other checksum that the store has (CRC-32) is compared by boto3 on
        the way. An object that has none of these (encrypted with a key of its own, for example) is compared by size
        alone.
        Raises ``PlatformError`` for what changed, went away, or arrives damaged twice.
        """
        from botocore.exceptions import FlexibleChecksumError

        wrong: str | None = None
        for _ in range(2):
            try:
                answer = self._receive(file, target, give_up or threading.Event())
                digest = sha256_of(target)
                wrong = self._difference(file, target, digest, answer)
            except FlexibleChecksumError:
                wrong = "its checksum is not the one that the store has"
            if wrong is None:
                return digest
            target.unlink()
        raise PlatformError(f"{self.url}/{file.name}: arrives damaged: {wrong}; put the object there again")

    def _receive(self, file: RemoteFile, target: Path, give_up: threading.Event) -> dict[str, Any]:
        """Get the object, or what ``target`` lacks of it, however often the connection is cut."""
        from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError

        have, moved, pause = -1, time.monotonic(), 0.2
        while True:
            if (now := target.stat().st_size if target.exists() else 0) != have:
                have, moved, pause = now, time.monotonic(), 0.2
            if have >= file.size:  # whole, but its answer is lost: ask again
                target.unlink(missing_ok=True)
                have = 0
            try:
                return self._get(file, target, have)
            except ClientError as error:
                failure: Exception = error
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500) < 500:
                    raise PlatformError(f"{self.url}/{file.name}: {self._explain(error)}") from None
            except FlexibleChecksumError:
                raise
            except BotoCoreError as error:
                failure = error
            except OSError as error:
                raise PlatformError(f"{target}: cannot be written: {error.strerror or error}") from None
            if give_up.wait(pause) or time.monotonic() - moved > PATIENCE_S:
                raise PlatformError(f"{self.url}/{file.name}: {self._explain(failure)}")
            pause = min(2 * pause, 5.0)

    def _get(self, file: RemoteFile, target: Path, have: int) -> dict[str, Any]:
        which = {"Range": f"bytes={have}-"} if have else {"ChecksumMode": "ENABLED"}  # checksums are of the whole
        answer: dict[str, Any] = self._client.get_object(
            Bucket=self.bucket, Key=self._key(file), IfMatch=file.etag, **which
        )
        goes_on = answer["ResponseMetadata"]["HTTPStatusCode"] == 206
        with target.open("ab" if goes_on else "wb") as writer:
            shutil.copyfileobj(answer["Body"], writer, _BLOCK)
        return answer

    def _difference(self, file: RemoteFile, target: Path, digest: str, answer: dict[str, Any]) -> str | None:
        """In which way the file is not the object; None where it is."""
        if target.stat().st_size != file.size:
            return f"{target.stat().st_size} bytes instead of {file.size}"
        if stored := answer.get("Metadata", {}).get("sha256"):
            return None if stored == digest else "its SHA-256 is not the one that it was stored with"
        checksum = answer.get("ChecksumSHA256", "")
        if checksum and "-" not in checksum:
            same = base64.b64decode(checksum).hex() == digest
            return None if same else "its SHA-256 is not the one that the store has"
        if answer.get("ServerSideEncryption", "AES256") != "AES256" or answer.get("SSECustomerAlgorithm"):
            return None  # the ETag says nothing of the content
        expected, _, parts = file.etag.strip('"').partition("-")
        if len(expected) != 32:
            return None
        md5 = self._md5_of_parts(file, target, int(parts)) if parts.isdigit() else _md5(target)
        return None if md5 in (None, expected) else "its MD5 is not the one that the store has"

    def _md5_of_parts(self, file: RemoteFile, target: Path, parts: int) -> str | None:
        """The MD5 over the MD5s of the parts that the object was put in; None where the store does not tell them."""
        from botocore.exceptions import BotoCoreError, ClientError

        which = {"Bucket": self.bucket, "Key": self._key(file)}
        try:
            heads = (self._client.head_object(**which, PartNumber=number) for number in range(1, parts + 1))
            sizes = [head["ContentLength"] for head in heads]
        except (BotoCoreError, ClientError):
            return None
        if sum(sizes) != file.size:
            return None
        total = hashlib.md5(usedforsecurity=False)
        with target.open("rb") as reader:
            for size in sizes:
                total.update(hashlib.md5(reader.read(size), usedforsecurity=False).digest())
        return total.hexdigest()

    def _key(self, file: RemoteFile) -> str:
        return f"{self.prefix}/{file.name}" if self.prefix else file.name

    def _explain(self, error: Exception) -> str:
        code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
        where = endpoint_url() or "AWS"
        changed = "is not what it was when the data set was listed; start again"
        words = {
            "NoSuchBucket": f"the bucket {self.bucket!r} does not exist at {where}; correct data or AWS_ENDPOINT_URL",
            "404": f"{where} has no such bucket, or is no S3 store; correct data or AWS_ENDPOINT_URL",
            "NoSuchKey": changed,
            "412": changed,
            "PreconditionFailed": changed,
            "InvalidAccessKeyId": f"{where} does not know this key; check AWS_ACCESS_KEY_ID",
            "SignatureDoesNotMatch": f"{where} refuses this key's signature; check AWS_SECRET_ACCESS_KEY",
            "AccessDenied": f"{where} denies access; the key in AWS_ACCESS_KEY_ID must be allowed to list and to read",
            "403": f"{where} denies access; the key in AWS_ACCESS_KEY_ID must be allowed to list and to read",
        }
        if code in words:
            return words[code]
        if type(error).__name__ == "NoCredentialsError":
            return "no keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return f"{where} cannot be used: {error}; check AWS_ENDPOINT_URL and the network"


def open_bucket_folder(url: str) -> BucketFolder:
    """The folder of ``s3://bucket/prefix``. Raises ``DataError`` for an address without a bucket."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket:
        raise DataError(f"data: {url}: must be s3://bucket/prefix")
    if prefix.strip("/") and refused_names([prefix.strip("/")]):
        raise DataError(f"data: {url}: the prefix cannot be a folder; write s3://bucket/prefix")
    return BucketFolder(bucket, prefix.strip("/"))


def refused_names(names: Iterable[str]) -> list[str]:
    """Names that would not be a file below a folder (``../x``, ``/x``, ``a//b``, ``a\\b``, too long, control
    characters), or that are a file and a folder at once (``a`` beside ``a/b``)."""
    given = list(names)
    files, refused = set(given), []
    for name in given:
        parts = name.split("/")
        odd = any(part in ("", ".", "..") or len(part.encode()) > _LONGEST_PART for part in parts)
        hidden_sign = "\\" in name or any(ord(sign) < 32 or ord(sign) == 127 for sign in name)
        folders = ("/".join(parts[:end]) for end in range(1, len(parts)))
        if odd or hidden_sign or not files.isdisjoint(folders):
            refused.append(name)
    return refused


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
