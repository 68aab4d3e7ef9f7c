"""What of a search goes to the tracking server: a run for the search, and one inside it for every trial.

In: the search's events, those of an earlier driver first. Out: see ``ray_jobs.tracking``; nothing is there twice.
"""

import math
from pathlib import Path
from typing import Any

from ray_jobs.errors import PlatformError
from ray_jobs.flows.run_log import FINISH_TIMEOUT_S, flatten
from ray_jobs.flows.search.journal import Event, SearchState, TrialRecord
from ray_jobs.flows.search.preparation import PreparedSearch
from ray_jobs.tracking.null_tracker import TrackingFigures
from ray_jobs.tracking.tracker import TrackingOutcome, open_tracker

_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_SOURCE = {"mlflow.source.name": "ray_jobs.tune"}


class SearchLog:
    """The driver's record of one search and its trials."""

    def __init__(self, prepared: PreparedSearch, state: SearchState) -> None:
        """Begin the record, or go on with it."""
        self._prepared, self._state = prepared, state
        self._tracker = _tracker_of(prepared)
        search = prepared.search.as_dict()
        space = {f"space.{name}": str(values) for name, values in search.pop("space").items()}
        self._tracker.log_params(space | {f"tune.{key}": value for key, value in flatten(search).items()})
        index, counts = prepared.report.index, prepared.report.as_dict()["counts"]
        self._tracker.log_dataset(index.root.name, index.fingerprint, index.source, counts)

    def event(self, event: Event, replayed: bool = False) -> None:
        """Log what happened; the state knows of it already. An event of an earlier driver may have been logged."""
        trial = self._state.trials[event["trial"]]
        child = self._child(trial)
        kind = event["kind"]
        if kind == "started" and not replayed:
            child.resume()
        elif kind == "epoch":
            child.log_metrics(_finite({**event["metrics"], "score": event["score"]}), event["epoch"])
        elif kind == "lost" and not replayed:
            child.set_tags({"restarts": trial.restarts, "last_loss": event["reason"]})
        elif kind == "ordered" and "donor" in event and not replayed:
            child.set_tags(
                {f"after_epoch_{len(trial.epochs)}": f"weights of trial {event['donor']}, {event['parameters']}"}
            )
        elif kind == "ended":
            child.finish(_STATUS[event["state"]], {"state": event["state"], "reason": event.get("reason") or ""})
            if (best := self._state.best()) and not replayed:
                ended = sum(one.phase == "ended" for one in self._state.trials.values())
                self._tracker.log_metrics(_finite({"best_score": best.best or 0.0}), ended)

    def _child(self, trial: TrialRecord) -> Any:
        prepared = self._prepared
        name = f"{trial.number:04d}"
        return self._tracker.child(name, f"{prepared.folder.name}-{name}", {**prepared.space.fixed, **trial.parameters})

    def figures(self) -> TrackingFigures:
        """How the delivery of the record is doing."""
        return self._tracker.figures()

    def finish(self, summary: dict[str, Any], files: list[Path]) -> TrackingOutcome:
        """The end of a search: its figures and files."""
        figures = {key: summary[key] for key in ("epochs_run", "epochs_saved", "gpu_hours", "cpu_hours", "seconds")}
        best = {"best_metric": summary["best"]["metric"], "best_trial": summary["best"]["trial"]}
        self._tracker.log_metrics(_finite(figures | best), summary["trials"])
        self._tracker.set_tags({"best": summary["best"]["parameters"], "cause": "", **_SOURCE})
        for file in files:
            if file.exists():
                self._tracker.log_artifact(file)
        return self._tracker.finish("FINISHED", FINISH_TIMEOUT_S)

    def stop(self, status: str, error: BaseException) -> None:
        """End a search that was stopped or failed; trials that have not ended end with it, until it goes on."""
        cause = str(error) if isinstance(error, PlatformError) else f"{type(error).__name__}: {error}"
        for trial in self._state.trials.values():
            if trial.phase != "ended":
                self._child(trial).finish("KILLED", {"state": trial.state, "reason": "the search was stopped"})
        self._tracker.set_tags({"cause": cause[:500]})
        self._tracker.finish(status, timeout_s=10.0)


def log_again(prepared: PreparedSearch, file: Path) -> None:
    """A file of a finished search that has changed since."""
    tracker = _tracker_of(prepared)
    tracker.log_artifact(file)
    tracker.finish("FINISHED", FINISH_TIMEOUT_S)


def _tracker_of(prepared: PreparedSearch) -> Any:
    folder, tracking = prepared.folder, prepared.settings.tracking
    return open_tracker(
        folder.path,
        folder.name,
        uri=tracking.uri,
        experiment=tracking.experiment,
        output_dir=folder.path.parent,
        tags={**tracking.tags, **_SOURCE},
        artifacts=tracking.artifacts,
        resume=(folder.path / "tracking").exists(),
    )


def _finite(metrics: dict[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in metrics.items() if math.isfinite(float(value))}
