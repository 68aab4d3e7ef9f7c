"""How long a store that fails in mid-run is waited for, and what is not waited for at all.

In: a call, and a judgement of its errors. Out: its result, or the last error when patience is at its end.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from ray_jobs.errors import StoreOutage

logger = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0


class Verdict(Enum):
    """What an error means for the next try."""

    OUTAGE = "outage"  # passes by itself: the network, a server that restarts or is too busy
    REFUSED = "refused"  # a key that is not taken: passes when the new one has arrived everywhere, or never
    FINAL = "final"  # the same call will fail in the same way


@dataclass
class Trouble:
    """What a store's user had to wait for in this process. Counts only grow."""

    retries: int = 0
    cause: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, cause: str) -> None:
        """One more failed try."""
        with self._lock:
            self.retries, self.cause = self.retries + 1, cause


@dataclass(frozen=True)
class Patience:
    """Retries with growing pauses until ``outage_s`` seconds have passed (``refused_s`` for a refused key)."""

    outage_s: float = 900.0
    refused_s: float = 300.0

    def keep_trying(
        self,
        call: Callable[[], T],
        judge: Callable[[Exception], Verdict],
        explain: Callable[[Exception], str],
        trouble: Trouble,
    ) -> T:
        """Call until it succeeds. Raises a final error as it came and ``StoreOutage`` when the time is over."""
        started, pause = time.monotonic(), FIRST_PAUSE_S
        while True:
            try:
                return call()
            except Exception as error:
                verdict = judge(error)
                if verdict is Verdict.FINAL:
                    raise
                limit = self.outage_s if verdict is Verdict.OUTAGE else min(self.refused_s, self.outage_s)
                waited = time.monotonic() - started
                trouble.add(explain(error))
                if waited + pause > limit:
                    raise StoreOutage(f"{explain(error)} (tried again for {waited:.0f} s)") from error
                logger.warning("%s; trying again in %.1f s", explain(error), pause)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
