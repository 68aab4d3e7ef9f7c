"""The bucket as Ray Train sees it: a pyarrow file system whose every operation waits for a store that is away.

Ray writes its own small files (the list of checkpoints) through it and deletes old checkpoints. pyarrow's own S3 file
system gives up after a few tries, which ends the run, and its upload of folders hides errors; both stay unused.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow
from pyarrow.fs import FileInfo, FileSelector, FileSystemHandler, FileType, PyFileSystem


class Bucket(Protocol):
    """What the file system asks of a bucket: whole keys, each call waiting for a store that is away."""

    def read_object(self, key: str) -> bytes | None:
        """The bytes; None where there are none."""

    def write_object(self, key: str, body: bytes) -> None:
        """Store bytes, verified."""

    def object_size(self, key: str) -> int | None:
        """How many bytes; None where there are none."""

    def keys_below(self, prefix: str, limit: int | None = None) -> list[str]:
        """All keys with a prefix, or the first ``limit`` of them."""

    def delete_keys(self, keys: Iterable[str]) -> None:
        """Delete objects."""


@dataclass(frozen=True)
class BucketHandler(FileSystemHandler):
    """``bucket/key`` paths in the bucket of ``storage``. Picklable, and equal to its copies."""

    storage: Bucket

    def get_type_name(self) -> str:
        """A name for messages."""
        return "bucket"

    def normalize_path(self, path: str) -> str:
        """The path as it is."""
        return path

    def get_file_info(self, paths: list[str]) -> list[FileInfo]:
        """What is there under each path."""
        return [self._info(path) for path in paths]

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        """Everything below a path, or directly in it."""
        base = self._key(selector.base_dir)
        prefix = f"{base}/" if base else ""
        found: dict[str, FileInfo] = {}
        for key in self.storage.keys_below(prefix):
            inner = key[len(prefix) :]
            name = inner if selector.recursive else inner.partition("/")[0]
            kind = FileType.File if name == inner else FileType.Directory
            found[name] = FileInfo(f"{selector.base_dir}/{name}", kind)
        if not found and not selector.allow_not_found:
            raise FileNotFoundError(selector.base_dir)
        return list(found.values())

    def create_dir(self, path: str, recursive: bool) -> None:
        """Nothing: a bucket has no folders."""

    def delete_dir(self, path: str) -> None:
        """Delete every object below a path."""
        self.storage.delete_keys(self.storage.keys_below(f"{self._key(path)}/"))

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:  # noqa: ARG002
        """As ``delete_dir``."""
        self.delete_dir(path)

    def delete_root_dir_contents(self) -> None:
        """Refused: other runs keep their checkpoints in the same bucket."""
        raise NotImplementedError("a whole bucket is never deleted: other runs keep their checkpoints in it")

    def delete_file(self, path: str) -> None:
        """Delete one object."""
        self.storage.delete_keys([self._key(path)])

    def move(self, src: str, dest: str) -> None:
        """Refused: Ray Train does not ask for it, and unverified objects would come of it."""
        raise NotImplementedError(f"move {src} {dest}: objects of a run are written once, verified")

    def copy_file(self, src: str, dest: str) -> None:
        """Refused: Ray Train does not ask for it, and unverified objects would come of it."""
        raise NotImplementedError(f"copy_file {src} {dest}: objects of a run are written once, verified")

    def open_input_stream(self, path: str) -> Any:
        """The object's bytes, fetched as a whole."""
        body = self.storage.read_object(self._key(path))
        if body is None:
            raise FileNotFoundError(path)
        return pyarrow.BufferReader(body)

    def open_input_file(self, path: str) -> Any:
        """As ``open_input_stream``."""
        return self.open_input_stream(path)

    def open_output_stream(self, path: str, metadata: Any) -> Any:  # noqa: ARG002 - pyarrow's signature
        """A stream whose bytes are stored, verified, when it is closed, and not at all when it is dropped."""
        return pyarrow.PythonFile(_Upload(self.storage, self._key(path)), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        """Refused: an object store cannot append."""
        raise NotImplementedError(f"append to {path}: an object store cannot append")

    def _key(self, path: str) -> str:
        return path.strip("/").partition("/")[2]

    def _info(self, path: str) -> FileInfo:
        key = self._key(path)
        size = self.storage.object_size(key)
        if size is not None:
            return FileInfo(path, FileType.File, size=size)
        below = next(iter(self.storage.keys_below(f"{key}/", limit=1)), None)
        return FileInfo(path, FileType.Directory if below else FileType.NotFound)


class _Upload:
    """Collects bytes. Not an ``io.IOBase``: those close themselves when they are collected, half written."""

    def __init__(self, storage: Bucket, key: str) -> None:
        self._storage, self._key, self._parts, self.closed = storage, key, bytearray(), False

    def write(self, data: Any) -> int:
        self._parts += data
        return len(data)

    def flush(self) -> None:
        """Nothing: an object is stored as a whole."""

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._storage.write_object(self._key, bytes(self._parts))


def bucket_filesystem(storage: Bucket) -> PyFileSystem:
    """The file system for Ray's ``RunConfig``."""
    return PyFileSystem(BucketHandler(storage))
