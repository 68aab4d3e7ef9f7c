"""The copies of data sets on a node's disk: which are in use, which go, and whose turn it is.

Comes in: the folder of a copy, ``<data_cache>/<name>/``. Copies that nobody has used for a month, or that stand in the
way of another one on a full disk, are removed. One in use never is: a process that uses a copy holds a lock on it for
as long as it lives, which the kernel takes back however it ends.
"""

import atexit
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ray_jobs.errors import StorageError

SPARE = 1 << 30  # bytes of the disk that a copy leaves free
FORGOTTEN_AFTER_S = 30 * 24 * 3600
_IN_USE = "in-use"
_SAY_AGAIN_S = 30.0
_held: dict[Path, IO[str]] = {}  # what this process uses, until it ends


def use(folder: Path) -> None:
    """Make a copy's folder, private, and keep it from being removed as long as this process lives."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with alone(folder.parent / ".lock"):
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder not in _held:
            held = (folder / _IN_USE).open("a", encoding="utf-8")
            atexit.register(held.close)
            fcntl.flock(held, fcntl.LOCK_SH)
            _held[folder] = held
        os.utime(folder / _IN_USE)
        _remove_unused(folder.parent, lambda last_used: time.time() - last_used < FORGOTTEN_AFTER_S)


def make_room(cache: Path, needed: int, url: str) -> None:
    """Remove unused copies, the longest unused first, while the disk lacks room for ``needed`` bytes.

    Raises ``StorageError`` where that is not enough.
    """

    def enough(_last_used: float = 0.0) -> bool:
        return shutil.disk_usage(cache).free >= needed + SPARE

    with alone(cache / ".lock"):
        _remove_unused(cache, enough)
    if not enough():
        free = shutil.disk_usage(cache).free
        raise StorageError(
            f"{cache}: the disk is too small for {url}: {needed / 1e9:,.2f} GB needed and {SPARE / 1e9:.1f} GB to "
            f"spare, {free / 1e9:,.2f} GB free; make room, or set storage.data_cache (or XRAY_DATA_CACHE) to a folder "
            "on a larger disk"
        )


def _remove_unused(cache: Path, keep: Callable[[float], bool]) -> None:
    """Remove copies that no process uses, the longest unused first; ``keep`` is given the time of their last use."""
    marks = sorted((mark.stat().st_mtime, mark) for mark in cache.glob(f"*/{_IN_USE}"))
    for last_used, mark in marks:
        if keep(last_used):
            continue
        with mark.open("a", encoding="utf-8") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(mark.parent)


@contextmanager
def alone(lock: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock of this node; ``waiting`` is called at once, and every half minute, while another process has it."""
    with lock.open("a", encoding="utf-8") as file:
        said = -_SAY_AGAIN_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - said >= _SAY_AGAIN_S:
                    said = time.monotonic()
                    waiting()
                time.sleep(0.1)
        yield
