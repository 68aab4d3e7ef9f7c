"""Resized gray pixels of a data set, decoded once per node and shared by every process on it.

One file in memory-mapped pages: a slot for each image, one byte per pixel, and a flag per slot. Filling a slot twice
writes the same bytes, so processes need no lock. Without room for the file there is no cache, and nothing breaks.
"""

import logging
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)


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
                    os.posix_fallocate(file.fileno(), 0, length)
                memory = mmap.mmap(file.fileno(), length)
        except OSError as error:
            logger.warning("no pixel cache at %s (%s); images are decoded again in every epoch", self.path, error)
            return False
        everything = np.frombuffer(memory, np.uint8)
        self._flags = everything[: self.count]
        self._slots = everything[self.count :].reshape(self.count, self.size * self.size)
        return True

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

    def remove(self) -> None:
        """Delete the file; processes that still map it keep their pages."""
        self.path.unlink(missing_ok=True)
