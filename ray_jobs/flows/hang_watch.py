"""Ends a worker whose training stands still, so that it is started again like one that died.

Ray notices a process that does not answer (``RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S``, set from the same setting), but
not one that answers while its training thread waits for ever: for a disk, a lock, a lost rank.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable

EXIT_CODE = 75  # EX_TEMPFAIL: another try may succeed
GRACE_S = 30.0  # for whoever was told to end this process


class StandStill(Exception):
    """No batch has begun for too long, on this rank."""


class HangWatch:
    """A thread that watches for signs of progress. It sleeps until the first one and after ``pause``."""

    def __init__(self, timeout_s: float, tell: Callable[[StandStill], None] | None = None) -> None:
        """A quarter more than ``timeout_s`` seconds without a sign end the process; 0: never.

        A rank that waits for one that stands still sees no progress either: the quarter lets Ray name a process that
        does not answer. ``tell`` hears of it first, to have the process ended with a cause.
        """
        self._timeout_s = 1.25 * timeout_s
        self._tell = tell
        self._last: float | None = None
        self._closed = False
        if timeout_s > 0:
            threading.Thread(target=self._watch, name="hang-watch", daemon=True).start()

    def beat(self) -> None:
        """A sign of progress, from the training thread."""
        self._last = time.monotonic()

    def pause(self) -> None:
        """What comes now may take as long as it wants: an upload that waits for its store."""
        self._last = None

    def close(self) -> None:
        """Training is over; this process may train again, with a watch of its own."""
        self._last, self._closed = None, True

    def _watch(self) -> None:
        while not self._closed:
            time.sleep(min(self._timeout_s / 4, 5.0))
            last = self._last
            if last is not None and (still := time.monotonic() - last) > self._timeout_s:
                self._end(f"no batch for {still:.0f} s (cluster.hang_timeout_s)")

    def _end(self, words: str) -> None:
        print(f"{words}: this worker ends itself", file=sys.stderr)
        faulthandler.dump_traceback(file=2)
        if self._tell:
            self._tell(StandStill(words))
            time.sleep(GRACE_S)
        os._exit(EXIT_CODE)
