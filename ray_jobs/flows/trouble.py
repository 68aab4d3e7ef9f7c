"""What the driver says, and tells the tracking server, of the things that befall a run while it trains.

In: the run's journal, its cluster and its storage. Out: lines for people, tags, and an error where waiting has an end.
"""

import threading
import time
from collections.abc import Callable, Sequence

from ray_jobs.errors import ClusterError, StorageError
from ray_jobs.flows.journal import Event, JournalReader
from ray_jobs.flows.ray_cluster import WorkerPlan, missing_room
from ray_jobs.settings import ClusterSettings
from ray_jobs.storage import FolderStorage, Storage

Say = Callable[[str], None]
SAY_AGAIN_S = 60.0
PATIENT_S = 8.0  # starting workers takes its time also where there is room
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
                    self._say(
                        f"going on with {event.workers} worker(s) in place of {self._started_with}: the same epoch, "
                        "schedule and global batch, but no longer bit for bit what it would have been"
                    )
                self._started_with = event.workers
            elif event.text == "preempting":
                words = "a node of this run is being taken away; checkpoints are stored until its deadline"
                self._log_fault(words)
                self._say(words)

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
        self._said_at = -SAY_AGAIN_S
        self._earlier = len(reader.events)  # of a driver before this one

    def __call__(self) -> None:
        """Raises ``ClusterError`` after ``wait_s`` seconds at the start, ``lost_node_wait_s`` in mid-run."""
        since = waiting_since(self._reader.events[self._earlier :])
        if since is None:
            self._said_at = -SAY_AGAIN_S
            return
        now, waited = time.monotonic(), time.time() - since
        if waited < PATIENT_S or now - self._said_at < SAY_AGAIN_S:
            return
        missing = missing_room(self._plan)
        self._said_at = now
        if missing is None:
            return
        if waited > (self._cluster.lost_node_wait_s if self._reader.epochs else self._cluster.wait_s):
            raise ClusterError(f"waited {waited:.0f} s for {missing}; add nodes, or lower cluster.num_workers")
        self._say(f"waiting for {missing}")


def waiting_since(events: Sequence[Event]) -> float | None:
    """Since when (Unix time) Ray Train has found no room for workers; None where it has, or tries for the first time.

    It says ``rescheduling`` after a try that found none, and stays in ``initializing`` or ``restarting`` where it does
    not even try.
    """
    since = None
    last = ""
    for event in events:
        if event.kind != "state":
            continue
        last = event.text
        if last in ("running", "preempting"):
            since = None
        elif last != "scheduling":
            since = since or event.time
    tried = [event.text for event in events if event.kind == "state"][-2:]
    return since if last in ("initializing", "restarting") or "rescheduling" in tried else None


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
