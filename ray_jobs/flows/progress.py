"""How far an epoch is, from the rank that knows to the driver that shows it, whatever node each is on.

In: rank 0's words, about one a second. Out: the newest of them, read by the driver. They travel through the key-value
store of the Ray cluster; a thread sends them, so that a head that does not answer holds up nobody who trains.
"""

import json
import threading
from dataclasses import asdict, dataclass

from ray_jobs.detector.epoch_report import Progress

_NAMESPACE = b"xray-progress"


@dataclass(frozen=True)
class Word:
    """Rank 0's word: its progress, the epoch of the newest stored checkpoint (0: none), whether one is on its way."""

    progress: Progress
    stored_epoch: int
    storing: bool


class ProgressSender:
    """Sends the newest word on; an older one that waits is dropped."""

    def __init__(self, address: str) -> None:
        """``address`` is the run's own: the URL of its storage."""
        self._key = address.encode()
        self._word: Word | None = None
        self._news = threading.Event()
        threading.Thread(target=self._run, name="progress", daemon=True).start()

    def send(self, word: Word) -> None:
        """Returns at once."""
        self._word = word
        self._news.set()

    def _run(self) -> None:
        from ray.experimental.internal_kv import _internal_kv_put

        while True:
            self._news.wait()
            self._news.clear()
            text = json.dumps(asdict(self._word)) if self._word else ""
            try:
                _internal_kv_put(self._key, text.encode(), overwrite=True, namespace=_NAMESPACE)
            except Exception:  # the head is away, or this process is ending; the next word may arrive
                continue


def read_progress(address: str) -> Word | None:
    """The newest word of a run, None before the first and while the head does not answer."""
    from ray.experimental.internal_kv import _internal_kv_get

    try:
        found = json.loads(_internal_kv_get(address.encode(), namespace=_NAMESPACE) or b"null")
    except Exception:  # Ray raises errors of its own for a head that is away; they are said elsewhere
        return None
    return Word(Progress(**found.pop("progress")), **found) if found else None


def forget_progress(address: str) -> None:
    """Remove a run's word, before it begins and when it has ended."""
    from ray.experimental.internal_kv import _internal_kv_del

    try:
        _internal_kv_del(address.encode(), namespace=_NAMESPACE)
    except Exception:  # as above
        return
