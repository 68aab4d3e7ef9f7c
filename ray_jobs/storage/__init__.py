"""One door to the places where checkpoints go: a folder, or a bucket that speaks S3.

Addresses and keys come from the environment alone (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ...). Every upload is
verified by size and SHA-256: an upload that was not verified did not happen. Objects of one run are put in one piece
each, so that nothing half-sent stays behind in the bucket.
"""

from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from ray_jobs.errors import StorageError
from ray_jobs.storage.files import room_for, scratch_folder, sha256_of
from ray_jobs.storage.folder import FolderStorage
from ray_jobs.storage.patience import Patience
from ray_jobs.storage.place import Storage
from ray_jobs.storage.s3 import S3Storage

__all__ = [
    "FolderStorage",
    "Patience",
    "S3Storage",
    "Storage",
    "in_a_hurry",
    "open_storage",
    "room_for",
    "scratch_folder",
    "sha256_of",
]


def open_storage(url: str | None, default: Path, patience: Patience | None = None) -> Storage:
    """The storage for a ``storage.url``: None is the folder ``default``. Raises ``StorageError`` for another scheme.

    ``patience`` is how long a bucket that fails in mid-run is waited for.
    """
    if url is None:
        return FolderStorage(default)
    parts = urlsplit(url)
    if parts.scheme == "s3":
        if not parts.netloc:
            raise StorageError(f"storage.url: {url}: names no bucket; write s3://bucket/prefix")
        return S3Storage(parts.netloc, parts.path.strip("/"), patience or Patience())
    if parts.scheme in ("", "file"):
        return FolderStorage(Path(parts.path or url).expanduser().resolve())  # workers run in folders of their own
    raise StorageError(f"storage.url: {url}: must be a folder or s3://bucket/prefix")


def in_a_hurry(storage: Storage, seconds: float) -> Storage:
    """The same place for a caller that waits ``seconds`` and no longer for a bucket that is away."""
    return replace(storage, patience=Patience(seconds, seconds)) if isinstance(storage, S3Storage) else storage
