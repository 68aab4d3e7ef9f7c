"""What the driver says, and tells the tracking server, of the things that befall a run while it trains.

In: the run's journal, its cluster and its storage. Out: lines for people, tags, and an error where waiting has an end.
"""

import threading
import time
from collections.abc import Callable

from ray_jobs.errors import ClusterError, StorageError
from ray_jobs.flows.journal import Event, JournalReader
from ray_jobs.flows.ray_cluster import WorkerPlan, missing_room
from ray_jobs.settings import ClusterSettings
from ray_jobs.storage import FolderStorage, Storage

Say = Callable[[str], None]
SAY_AGAIN_S = 60.0
SILENCE_S = 20.0  # without an epoch for this long, the store is asked whether it is there


class EventSayer:
    """Says each event of the journal once, and logs those that are faults."""

    def __init__(self, reader: JournalReader, cluster: ClusterSettings, say: Say, log_fault: Say) -> None:
        self._reader, self._cluster, self._say, self._log_fault = reader, cluster, say, log_fault
        self._seen = len(reader.events)
        self._failures = 0
        self._started_with = 0

    def __call__(self) -> None:
        """Say what is new."""
        events, self._seen = self._reader.events[self._seen :], len(self._reader.events)
        for event in events:
            if event.is_fault:
                self._log_fault(event.text)
                self._say(self._words(event))
            elif event.text == "scheduling" and event.workers:
                if self._started_with not in (0, event.workers):
                    self._say(f"going on with {event.workers} worker(s) in place of {self._started_with}")
                self._started_with = event.workers

    def _words(self, event: Event) -> str:
        if event.kind == "failure":
            self._failures += 1
            allowed = self._cluster.max_failures
            limit = f" of {allowed}" if allowed >= 0 else ""
            return f"workers were lost: {event.text}; they are started again (failure {self._failures}{limit})"
        if event.kind == "rollback":
            return f"rolled back: {event.text}; going on from the last good checkpoint with half the learning rate"
        if event.kind == "damaged":
            return f"damaged checkpoint: {event.text}"
        return f"object store: {event.text}; waiting for it"


class RoomWatch:
    """Says what a run waits for when it has no workers, and ends the wait after its time."""

    def __init__(self, reader: JournalReader, plan: WorkerPlan, cluster: ClusterSettings, say: Say) -> None:
        self._reader, self._plan, self._cluster, self._say = reader, plan, cluster, say
        self._since = time.monotonic()
        self._said_at = time.monotonic()
        self._event: Event | None = None

    def __call__(self) -> None:
        """Raises ``ClusterError`` after ``wait_s`` seconds at the start, ``lost_node_wait_s`` in mid-run."""
        states = [event for event in self._reader.events[-20:] if not event.is_fault]
        now = time.monotonic()
        if not states or states[-1].text == "running":
            self._since = self._said_at = now
            return
        waited = now - self._since
        if waited < 15 or now - self._said_at < (SAY_AGAIN_S if waited > 30 else 15):
            return
        missing = missing_room(self._plan)
        if missing is None:
            return
        self._said_at = now
        limit = self._cluster.lost_node_wait_s if self._reader.epochs else self._cluster.wait_s
        if waited > limit:
            raise ClusterError(f"waited {waited:.0f} s for {missing}; add nodes, or lower cluster.num_workers")
        self._say(f"waiting for {missing}")


class StoreWatch:
    """Looks after the object store while the run is silent, and says when it goes and when it is back."""

    def __init__(self, storage: Storage, say: Say, log_fault: Say) -> None:
        self._storage, self._say, self._log_fault = storage, say, log_fault
        self._quiet_since = time.monotonic()
        self._away_since: float | None = None
        self._stop = threading.Event()
        if not isinstance(storage, FolderStorage):
            threading.Thread(target=self._watch, name="store-watch", daemon=True).start()

    def heard(self) -> None:
        """The run gave a sign of life."""
        self._quiet_since = time.monotonic()

    def stop(self) -> None:
        """Training is over."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(5.0):
            if self._away_since is None and time.monotonic() - self._quiet_since < SILENCE_S:
                continue
            try:
                self._storage.probe()
            except StorageError as error:
                if self._away_since is None:
                    self._away_since = time.monotonic()
                    self._log_fault(str(error))
                    self._say(f"{error}; training goes on, checkpoints wait and are tried again")
                continue
            if self._away_since is not None:
                self._say(f"the object store is back after {time.monotonic() - self._away_since:.0f} s")
                self._away_since = None
            self._quiet_since = time.monotonic()
