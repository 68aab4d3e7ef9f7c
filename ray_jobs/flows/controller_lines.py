"""What Ray Train's controller writes into a run's journal: epochs, lost workers and why, and what it waits for.

The controller runs beside the driver; the journal (one JSON object a line) is how the driver hears of it.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from ray.train import UserCallback
from ray.train.v2._internal.execution.callback import ControllerCallback

from ray_jobs.errors import PlatformError
from ray_jobs.storage import room_for

STATES = ("Initializing", "Scheduling", "Rescheduling", "Restarting", "Running", "Preempting")


def append_line(path: Path, kind: str, **entries: Any) -> None:
    """Append a line to a journal. Raises ``DiskFull``."""
    line = {"kind": kind, "time": time.time(), **entries}
    with room_for(0, path.parent), path.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        unfinished = size and file.read(1) != b"\n"  # a line that was cut short stays one bad line
        file.write(b"\n" * bool(unfinished) + json.dumps(line).encode() + b"\n")


class Journal(UserCallback):
    """A line after every report and after every failure; lives in Ray Train's controller."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:  # noqa: ARG002
        """One line per epoch: rank 0's metrics, each rank's weights digest and local rank, the checkpoint's name."""
        append_line(
            self.path,
            "epoch",
            metrics=metrics[0],
            weights_digests=[rank["weights_digest"] for rank in metrics],
            local_ranks=[rank["local_rank"] for rank in metrics],
            checkpoint=Path(checkpoint.path).name if checkpoint else None,
        )

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        """One line per lost or failed worker group.

        Raises what another try would end in again; Ray Train then ends the run in place of starting the workers anew.
        """
        for error in worker_exceptions.values():
            if (known := platform_error(error)) is not None:
                raise known
        causes = {rank: describe(rank, error) for rank, error in worker_exceptions.items()}
        # A rank that lost its connection says so: of interest only where nobody knows why.
        first = [cause for rank, cause in causes.items() if not is_collateral(worker_exceptions[rank])]
        append_line(self.path, "failure", causes=first or list(causes.values()))


class StateLines(ControllerCallback):
    """A line whenever workers are being started, are missing, or run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._said: tuple[str, int] = ("", 0)

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:  # noqa: ARG002
        """Ray calls this on every turn of its loop; a line is written where something changed."""
        name = type(current_state).__name__.removesuffix("State")
        decision = getattr(current_state, "scaling_decision", None)
        now = name, getattr(decision, "num_workers", 0)
        if now != self._said and name in STATES:
            append_line(self.path, "state", state=name.lower(), workers=now[1])
        self._said = now


def platform_error(error: BaseException | None) -> PlatformError | None:
    """The error of ours behind Ray's wrappers, if there is one."""
    while error is not None:
        if isinstance(error, PlatformError):
            return error
        error = _inner(error)
    return None


def describe(rank: int, error: Exception) -> str:
    """Why a worker was lost, in one line."""
    text, name = str(error), type(error).__name__
    if name == "WorkerHealthCheckTimeoutError":
        return f"rank {rank}: did not answer for longer than cluster.hang_timeout_s"
    if "node running low on memory" in text or name == "OutOfMemoryError":
        return f"rank {rank}: killed because its node ran out of memory; a smaller batch_size needs less"
    if "node" in text and ("died" in text or "dead" in text) and "its node" in text:
        return f"rank {rank}: its node was lost"
    if name == "StandStill":
        return f"rank {rank}: {text}: it, or a rank that it waits for, stands still"
    if name == "WorkerHealthCheckFailedError":
        return f"rank {rank}: its process died (killed, or out of memory)"
    if is_collateral(error):
        return f"rank {rank}: lost its connection to another rank, which died or whose node was lost"
    return f"rank {rank}: {root_cause(error)}"


def is_collateral(error: Exception | str) -> bool:
    """Whether a rank failed only because another one did, by the words of its error."""
    text = str(error).lower()
    return any(words in text for words in ("connection closed by peer", "connection reset by peer", "nccl"))


def root_cause(error: BaseException) -> str:
    """The first error behind Ray's wrappers, in one line."""
    while (inner := _inner(error)) is not None:
        error = inner
    if isinstance(error, PlatformError):
        return str(error)
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__


def _inner(error: BaseException) -> BaseException | None:
    for name in ("controller_failure", "cause", "__cause__"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException) and inner is not error:
            return inner
    return None
