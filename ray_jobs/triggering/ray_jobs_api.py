"""The jobs of a Ray cluster that this service has started, through Ray's own job submission.

In: a command and what to remember of it. Out: what Ray says of it. The id is chosen before the job is submitted, and
Ray takes an id once, so submitting again after a crash starts nothing twice.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from ray_jobs.errors import ClusterError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

SERVICE = "xray-trigger"
UNFINISHED = frozenset({"PENDING", "RUNNING"})
LOG_LINES = 100


@dataclass(frozen=True)
class Order:
    """A job to be submitted: ``command`` is the program and its arguments."""

    id: str
    kind: Literal["training", "finetune"]
    run_name: str
    command: tuple[str, ...]
    started_by: Literal["request", "watch"] = "request"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Order":
        values = json.loads(text)
        return cls(**{**values, "command": tuple(values["command"])})


@dataclass(frozen=True)
class Submitted:
    """What Ray knows of a job."""

    id: str
    kind: Literal["training", "finetune"]
    run_name: str
    started_by: Literal["request", "watch"]
    state: str
    submitted: datetime | None
    ended: datetime | None
    exit_code: int | None
    message: str | None


class RayJobs:
    """The jobs of this service on one cluster. Every method raises ``ClusterError`` where Ray does not answer."""

    def __init__(self, address: str) -> None:
        """``address`` is that of the dashboard; the token comes from ``RAY_AUTH_TOKEN``."""
        self.address = address
        self._client: JobSubmissionClient | None = None

    def submit(self, order: Order) -> None:
        """Start a job; nothing where it was started before."""
        metadata = {"service": SERVICE, "kind": order.kind, "run_name": order.run_name, "started_by": order.started_by}
        try:
            self._connected().submit_job(
                entrypoint=shlex.join(order.command), submission_id=order.id, metadata=metadata
            )
        except Exception as error:
            if self.get(order.id) is None:
                raise self._failed(error) from error

    def all(self) -> list[Submitted]:
        """Every job of this service, the newest first."""
        try:
            jobs = self._connected().list_jobs()
        except Exception as error:
            raise self._failed(error) from error
        ours = [_submitted(job) for job in jobs if job.submission_id and (job.metadata or {}).get("service") == SERVICE]
        return sorted(ours, key=lambda job: job.submitted or datetime.now(UTC), reverse=True)

    def unfinished(self) -> Submitted | None:
        """The job of this service that runs or is about to."""
        return next((job for job in self.all() if job.state in UNFINISHED), None)

    def get(self, job_id: str) -> Submitted | None:
        """A job by its id."""
        return next((job for job in self.all() if job.id == job_id), None)

    def stop(self, job_id: str) -> None:
        """Ask a job to stop."""
        try:
            self._connected().stop_job(job_id)
        except Exception as error:
            raise self._failed(error) from error

    def log_tail(self, job_id: str, lines: int = LOG_LINES) -> list[str]:
        """The last lines of a job's log; none where it has not begun."""
        try:
            return str(self._connected().get_job_logs(job_id)).splitlines()[-lines:]
        except Exception:  # a job that was never started has no log
            return []

    def _connected(self) -> "JobSubmissionClient":
        if self._client is None:
            from ray.job_submission import JobSubmissionClient

            self._client = JobSubmissionClient(self.address)
        return self._client

    def _failed(self, error: Exception) -> ClusterError:
        self._client = None
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = " ... ".join(dict.fromkeys((lines[0], lines[-1])))  # Ray answers with a whole traceback
        return ClusterError(f"the Ray cluster at {self.address} does not do it: {reason[:400]}")


def _submitted(job: Any) -> Submitted:
    known = job.metadata
    return Submitted(
        id=job.submission_id,
        kind=known["kind"],
        run_name=known["run_name"],
        started_by=known["started_by"],
        state=str(getattr(job.status, "value", job.status)),
        submitted=_time(job.start_time),
        ended=_time(job.end_time),
        exit_code=job.driver_exit_code,
        message=job.message,
    )


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def train_command(python: str, module: str, arguments: Sequence[str]) -> tuple[str, ...]:
    """``python -m ray_jobs.MODULE ...``."""
    return (python, "-m", f"ray_jobs.{module}", *arguments)
