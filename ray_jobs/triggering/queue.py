"""One job at a time: who comes while one runs is told so, or waits as a file.

In: orders. Out: jobs on the cluster, in the order in which they came. An order that waits is a file in
``state/queue``, removed only after Ray has taken it.
"""

import os
import threading
import time
from pathlib import Path

from ray_jobs.triggering.ray_jobs_api import Order, RayJobs, Submitted


class JobRuns(Exception):
    """A job runs already; ``job`` is what Ray knows of it, None where it waits itself."""

    def __init__(self, job: Submitted | None) -> None:
        self.job = job
        super().__init__(f"{job.id} is {job.state.lower()}" if job else "other jobs wait already")


class Desk:
    """Submits orders to the cluster, one after the other."""

    def __init__(self, jobs: RayJobs, state: Path) -> None:
        self._jobs, self._folder = jobs, state / "queue"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()

    def submit(self, order: Order, queue: bool = False) -> bool:
        """Start an order's job now, or with ``queue`` as soon as no other runs; True where it was started.

        Raises ``JobRuns``, and ``ClusterError`` where Ray does not answer.
        """
        with self._lock:
            running = self._jobs.unfinished()
            if running is None and not self.waiting():
                self._jobs.submit(order)
                return True
            if not queue:
                raise JobRuns(running)
            write_whole(self._folder / f"{time.time_ns():020d}.json", order.to_json())
            return False

    def waiting(self) -> list[Order]:
        """The orders that wait, the first to come first."""
        return [Order.from_json(file.read_text(encoding="utf-8")) for file in self._files()]

    def start_next(self) -> Order | None:
        """Start the job of the first order that waits, unless one runs."""
        with self._lock:
            files = self._files()
            if not files or self._jobs.unfinished():
                return None
            order = Order.from_json(files[0].read_text(encoding="utf-8"))
            self._jobs.submit(order)
            files[0].unlink()
            return order

    def withdraw(self, job_id: str) -> bool:
        """Take an order out of the queue; False where it does not wait."""
        with self._lock:
            for file in self._files():
                if Order.from_json(file.read_text(encoding="utf-8")).id == job_id:
                    file.unlink()
                    return True
        return False

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.json"))


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all, and on the disk when this returns."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
