"""No tracking, and what any tracker leaves behind: ``NullTracker`` has the methods of ``Tracker`` and does nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ray_jobs.tracking.child_tracker import NullChild
from ray_jobs.tracking.registry import Registered, RegistryRequest


@dataclass(frozen=True)
class TrackingOutcome:
    """What became of tracking: ``pending`` records that the server has not confirmed, and why (``error``).

    ``url`` is the run's page, None for a database; ``open_with`` what a person does to look at it. ``refused`` records
    will never be accepted (they lie in ``tracking/refused.jsonl``), ``lost`` could not even be written to the disk.
    """

    run_id: str | None = None
    url: str | None = None
    open_with: str | None = None
    pending: int = 0
    refused: int = 0
    lost: int = 0
    registered: Registered | None = None
    error: str | None = None


class TrackingFigures(NamedTuple):
    """Records that wait, that the server has confirmed, and that it confirmed late, after it had failed; and the
    server's names for the run."""

    pending: int = 0
    sent: int = 0
    late: int = 0
    experiment_id: str = ""
    run_id: str = ""


class NullTracker:
    """No tracking: takes every call and does nothing."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Nothing."""

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Nothing."""

    def log_dataset(self, name: str, fingerprint: str, source: str, counts: Mapping[str, Any]) -> None:
        """Nothing."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Nothing."""

    def register(self, request: RegistryRequest) -> None:
        """Nothing."""

    def figures(self) -> TrackingFigures:
        """Zeros."""
        return TrackingFigures()

    def child(self, name: str, run_name: str, params: Mapping[str, Any]) -> NullChild:  # noqa: ARG002 - a twin
        """A twin that does nothing."""
        return NullChild()

    def finish(self, status: str = "FINISHED", timeout_s: float = 60.0) -> TrackingOutcome:  # noqa: ARG002 - a twin
        """An outcome without a run."""
        return TrackingOutcome()
