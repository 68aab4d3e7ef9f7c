"""Files of this process: folders to work in, digests, copies that are on the disk when they are said to be."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray_jobs.errors import DiskFull

_BLOCK = 1 << 20


def scratch_folder(purpose: str) -> Path:
    """A new folder for this process's files. Those of processes that were killed are removed on the way."""
    base = Path(tempfile.gettempdir())
    for folder in base.glob("xray-scratch-*-*-*"):
        pid = folder.name.split("-")[3]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)  # which another user's folder survives
    return Path(tempfile.mkdtemp(prefix=f"xray-scratch-{purpose}-{os.getpid()}-"))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_synced(source: Path, target: Path) -> None:
    """Copy a file and wait until the disk has it."""
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, _BLOCK)
        writer.flush()
        os.fsync(writer.fileno())


@contextmanager
def room_for(size: int, folder: Path) -> Iterator[None]:
    """Raise ``DiskFull`` where ``folder`` has no room for ``size`` more bytes, before or while something is written."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DiskFull(_full(folder, size, free))
    try:
        yield
    except (OSError, RuntimeError) as error:  # PyTorch says RuntimeError
        free = shutil.disk_usage(folder).free
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or free < _BLOCK:
            raise DiskFull(_full(folder, size, free)) from error
        raise


def _full(folder: Path, size: int, free: int) -> str:
    needed = f"{size / 1e6:.1f} MB are needed" if size else "more is needed"
    return f"{folder}: the disk is full: {needed}, {free / 1e6:.1f} MB are free; make room there, then go on"
