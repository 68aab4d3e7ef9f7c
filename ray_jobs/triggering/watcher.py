"""Watches for new labelled X-rays and starts fine-tuning by itself.

In: the folder that ``finetune.data`` names, and the ledger. Out: a cycle, when enough new images have come in, or when
the schedule says so. An image counts when its label file is there (empty: no finding), neither file has changed for a
while, and the data check finds nothing wrong with it.
"""

import logging
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ray_jobs.dataset.description import DataDescription
from ray_jobs.dataset.inspection import inspect_images
from ray_jobs.dataset.layout import ImageFile, can_be_listed, read_layout
from ray_jobs.errors import PlatformError
from ray_jobs.triggering.cycles import OPEN, Cycle, Ledger, outcome_of
from ray_jobs.triggering.incoming import describe_incoming
from ray_jobs.triggering.messages import FinetuneRequest
from ray_jobs.triggering.options import TriggerOptions, WatchOptions
from ray_jobs.triggering.orders import cycle_order, free_name
from ray_jobs.triggering.queue import Desk, JobRuns
from ray_jobs.triggering.ray_jobs_api import Order, RayJobs

log = logging.getLogger(__name__)

ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})


@dataclass(frozen=True)
class Seen:
    """What one look found. ``sound``: hash of the pixels to file; ``unsound``: what is wrong, in words."""

    sound: dict[str, Path] = field(default_factory=dict)
    unlabelled: int = 0
    unsound: list[str] = field(default_factory=list)


class Watcher:
    """Looks every ``poll_s`` seconds, in a thread of its own."""

    def __init__(self, options: TriggerOptions, jobs: RayJobs, desk: Desk, ledger: Ledger) -> None:
        self._options, self._jobs, self._desk, self._ledger = options, jobs, desk, ledger
        self._known: dict[tuple[str, int, int, int, int], tuple[str, list[str]]] = {}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.seen = Seen()
        self.looked: datetime | None = None
        self.problem: str | None = None

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking, and wait for a look that is under way."""
        self._stop.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(self._options.watch.poll_s)

    def look(self) -> None:
        """Settle what has ended, start what waits, and begin a cycle where one is due."""
        try:
            with self._lock:
                self._settle()
                self._desk.start_next()
                if self._options.watch.enabled:
                    self._begin_if_due()
            self.problem = None
        except PlatformError as error:
            self._say_once(str(error))
        except Exception as error:  # a watch that dies silently would be worse than one that says what is wrong
            log.exception("the watch failed")
            self._say_once(f"{type(error).__name__}: {error}")
        self.looked = datetime.now(UTC)

    def begin(self, request: FinetuneRequest) -> Cycle | None:
        """Begin a cycle now on everything that no champion has learned; None where there is nothing.

        Raises ``JobRuns`` where a job runs, unless the request may wait.
        """
        with self._lock:
            if request.run_name:
                free_name(self._options, request.run_name)
            if not request.queue and (running := self._jobs.unfinished()):
                raise JobRuns(running)
            description = self._scan()
            return self._begin(description, request)

    def withdraw(self, job_id: str) -> bool:
        """Take a job out of the queue, and give its cycle up; False where it does not wait."""
        with self._lock:
            if all(order.id != job_id for order in self._desk.waiting()):
                return False
            for cycle in self._ledger.cycles():  # first: an order without an open cycle is dropped, not the reverse
                if cycle.id == job_id:
                    self._ledger.close(cycle, "failed")
            return self._desk.withdraw(job_id)

    def _say_once(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("watch: %s", problem)
        self.problem = problem

    def _settle(self) -> None:
        """Write down how cycles ended; submit again what never reached the cluster, or was lost with it."""
        every = self._ledger.cycles()
        closed = {cycle.id for cycle in every if cycle.state not in OPEN}
        for order in self._desk.waiting():
            if order.id in closed:  # it was being withdrawn when the service died
                self._desk.withdraw(order.id)
        cycles = [cycle for cycle in every if cycle.state in OPEN]
        if not cycles:
            return
        jobs = {job.id: job for job in self._jobs.all()}  # before the outcomes: a job that has ended has left its own
        waiting = {order.id for order in self._desk.waiting()}
        for cycle in cycles:
            order = self._ledger.order(cycle)
            job, outcome = jobs.get(order.id), outcome_of(self._options.runs / order.run_name)
            if outcome is None and job is None and order.id not in waiting:
                log.info("cycle %s is not on the cluster: submitting it", cycle.id)
                self._desk.submit(order, queue=True)
            elif outcome is None and job is not None and job.state in ENDED:
                self._ledger.close(cycle, "refused" if job.state == "SUCCEEDED" else "failed")
            elif outcome is not None and outcome != cycle.state:
                self._ledger.close(cycle, outcome)

    def _begin_if_due(self) -> None:
        description = self._scan()
        cycles = self._ledger.cycles()
        if any(cycle.state == "planned" for cycle in cycles):
            return
        new = self.new_images()
        since = datetime.fromtimestamp(cycles[-1].planned if cycles else self._ledger.since(), UTC)
        if due(self._options.watch, len(new), since, datetime.now(UTC)) and not self._jobs.unfinished():
            self._begin(description, FinetuneRequest())

    def _begin(self, description: DataDescription, request: FinetuneRequest) -> Cycle | None:
        learned = self._ledger.learned()
        images = {pixels: path for pixels, path in self.seen.sound.items() if pixels not in learned}
        if not images:
            return None

        def order_for(cycle_id: str, data_yaml: Path) -> Order:
            return cycle_order(self._options, request, cycle_id, data_yaml)

        cycle, order = self._ledger.plan(images, self.new_images(), description, order_for, time.time())
        log.info("cycle %s: %d images, %d of them new", cycle.id, len(cycle.images), len(cycle.new))
        self._desk.submit(order, queue=True)
        return cycle

    def new_images(self) -> frozenset[str]:
        """Sound images that no cycle has used."""
        return frozenset(self.seen.sound) - self._ledger.used()

    def _scan(self) -> DataDescription:
        """Look at the folder; files that have not changed since the last look are not read again."""
        description = describe_incoming(self._options.finetune.data, self._options.state)
        files = read_layout(description).images["train"]
        ready, unlabelled = [], 0
        for file in files:
            mark = _mark(file)
            if mark is None:
                unlabelled += 1
            elif time.time() - max(mark[2], mark[4]) / 1e9 >= self._options.watch.settle_s:
                ready.append((file, mark))
        unread = [(file, mark) for file, mark in ready if mark not in self._known]
        for (_, mark), found in zip(unread, inspect_images([file for file, _ in unread], description), strict=True):
            self._known[mark] = found
        self._known = {mark: self._known[mark] for _, mark in ready}
        sound: dict[str, Path] = {}
        unsound = []
        for file, mark in ready:
            pixels, problems = self._known[mark]
            if not can_be_listed(file.image):
                shown = str(file.image).encode(errors="backslashreplace").decode()
                unsound.append(f"{shown!r}: its name is not UTF-8 or holds a line break; rename it")
            elif problems:
                unsound += problems
            else:
                sound.setdefault(pixels, file.image)
        self.seen = Seen(sound, unlabelled, unsound)
        return description


def _mark(file: ImageFile) -> tuple[str, int, int, int, int] | None:
    """What tells that an image and its label file are the same as before; None where there is no label file."""
    try:
        image, label = file.image.stat(), file.label.stat()
    except OSError:
        return None
    return str(file.image), image.st_size, image.st_mtime_ns, label.st_size, label.st_mtime_ns


def due(watch: WatchOptions, new: int, since: datetime, now: datetime) -> bool:
    """Whether a cycle is due: enough new images, or any new image and the schedule says so.

    ``since`` is when the last cycle began, or the ledger where there was none.
    """
    if new >= watch.min_images:
        return True
    if not new:
        return False
    if watch.every and now - since >= watch.every:
        return True
    if not watch.at:
        return False
    hour, minute = map(int, watch.at.split(":"))
    today = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return since < (today if today <= now else today - timedelta(days=1))
