"""Resized gray pixels of a data set, decoded once per node and shared by every process on it.

One file in memory-mapped pages: a slot for each image, one byte per pixel, and a flag per slot. Filling a slot twice
writes the same bytes, so processes need no lock. Without room for the file there is no cache, and nothing breaks.
"""

import logging
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_VERSION = 1  # of how pixels are decoded and resized; another one is another cache
_LEFT_FREE, _LEAST_FREE = 0.05, 2 << 30  # share and bytes of the disk that stay free
_FORGOTTEN_AFTER_S = 3 * 24 * 3600


def private_cache_folder() -> Path:
    """The folder for this user's caches on this node: nobody else can look into it, they are patients' X-rays.

    Caches that nobody has used for three days are removed. The name changes with every boot: after a power cut a flag
    may have reached the disk and its pixels not.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:  # not Linux
        boot = "0"
    folder = Path(tempfile.gettempdir()) / f"xray-pixels-{os.getuid()}-{_VERSION}-{boot}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        return Path(tempfile.mkdtemp(prefix="xray-pixels-"))  # somebody else's, or open to others
    for file in folder.iterdir():
        if time.time() - file.stat().st_mtime > _FORGOTTEN_AFTER_S:
            file.unlink(missing_ok=True)
    return folder


class PixelCache:
    """``count`` gray images of at most ``size`` x ``size`` pixels in a file shared by all processes of a node."""

    def __init__(self, path: Path, count: int, size: int) -> None:
        self.path, self.count, self.size = path, count, size
        self._usable: bool | None = None  # None: not opened yet in this process
        self._flags: NDArray[np.uint8] | None = None
        self._slots: NDArray[np.uint8] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_usable": None, "_flags": None, "_slots": None}

    def _open(self) -> bool:
        """Map the file, made in full on first use so that a full disk shows here. False where there is no room."""
        length = self.count + self.count * self.size * self.size
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                if file.seek(0, os.SEEK_END) < length:
                    self._reserve(file, length)
                memory = mmap.mmap(file.fileno(), length)
        except OSError as error:
            logger.warning("no pixel cache at %s (%s); images are decoded again in every epoch", self.path, error)
            return False
        os.utime(self.path)
        everything = np.frombuffer(memory, np.uint8)
        self._flags = everything[: self.count]
        self._slots = everything[self.count :].reshape(self.count, self.size * self.size)
        return True

    def _reserve(self, file: IO[bytes], length: int) -> None:
        """Take the room on the disk now: a page that has none when it is written kills the process."""
        disk = shutil.disk_usage(self.path.parent)
        if disk.free - length < max(_LEFT_FREE * disk.total, _LEAST_FREE):
            raise OSError(f"{length >> 20} MB wanted, {disk.free >> 20} MB free, of which some stay for checkpoints")
        try:
            os.posix_fallocate(file.fileno(), 0, length)
        except OSError:
            self.path.unlink(missing_ok=True)  # what was taken so far would fill the disk
            raise

    def get(self, index: int, shape: tuple[int, int], read: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The pixels ``(height, width)`` of an image, read by ``read`` where no process on this node has done so."""
        if self._usable is None:
            self._usable = self._open()
        if self._slots is None or self._flags is None:
            return read()
        used = shape[0] * shape[1]
        if not self._flags[index]:
            pixels = read()
            self._slots[index, :used] = pixels.reshape(-1)
            self._flags[index] = 1  # after the pixels: another process must not see the flag first
            return pixels
        return self._slots[index, :used].reshape(shape)
