"""What of a training run goes to the tracking server, and under which names.

In: a prepared run, its epochs, its assessment. Out: one MLflow run and a registered model; see ``ray_jobs.tracking``.
"""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ray_jobs.errors import PlatformError
from ray_jobs.flows.assessment import Assessment
from ray_jobs.flows.journal import Epoch, JournalReader
from ray_jobs.flows.preparation import Prepared
from ray_jobs.storage import sha256_of
from ray_jobs.tracking.environment import describe_environment
from ray_jobs.tracking.null_tracker import TrackingFigures
from ray_jobs.tracking.registered_model import ONNX_TAG, WEIGHTS_TAG
from ray_jobs.tracking.registry import RegistryRequest, model_description
from ray_jobs.tracking.tracker import TrackingOutcome, open_tracker

logger = logging.getLogger(__name__)

MAX_FAULTS = 20  # the newest; the journal has all
FINISH_TIMEOUT_S = 120.0  # how long the end of a run waits for a slow server before it leaves the rest to the spool


class RunLog:
    """The driver's record of one run."""

    def __init__(self, prepared: Prepared) -> None:
        """Begin the run's record, or go on with it."""
        self._prepared = prepared
        self._logged: set[int] = set()
        self._faults: list[str] = []
        self._continued = (prepared.run.path / "tracking").exists()
        settings, run = prepared.settings, prepared.run
        self._tracker = open_tracker(
            run.path,
            run.name,
            uri=settings.tracking.uri,
            experiment=settings.tracking.experiment,
            output_dir=run.path.parent,
            tags=settings.tracking.tags,
            artifacts=settings.tracking.artifacts,
            resume=self._continued,
        )
        index = prepared.report.index
        self._tracker.log_params(flatten(settings.as_dict()) | {"world_size": prepared.plan.max_workers})
        counts = prepared.report.as_dict()["counts"]
        self._tracker.log_dataset(index.root.name, index.fingerprint, index.source, counts)
        self._environment = run.path / "environment.json"
        self._environment.write_text(json.dumps(describe_environment(), indent=2) + "\n", encoding="utf-8")

    def epoch(self, epoch: Epoch) -> None:
        """The metrics of an epoch, with the epoch as step. Of a repeated one, what it learned and not how fast."""
        metrics = epoch.metrics
        if epoch.number in self._logged:
            metrics = {key: value for key, value in metrics.items() if key.startswith(("train/", "val/", "lr/"))}
        self._logged.add(epoch.number)
        self._tracker.log_metrics(metrics, epoch.number)

    def fault(self, text: str) -> None:
        """Something that the run survived, as a tag that lists them all."""
        self._faults.append(f"{datetime.now(UTC):%H:%M:%S} {text}")
        self._tracker.set_tags({"faults": "; ".join(self._faults[-MAX_FAULTS:]), "fault_count": len(self._faults)})

    def results(self, assessment: Assessment, journal: JournalReader) -> None:
        """Final metrics, all files, and the model."""
        run = self._prepared.run
        step = journal.epochs[-1].number
        self._tracker.log_metrics(final_metrics(assessment), step)
        for file in (run.settings, run.path / "data.yaml", self._environment, run.path / "results.csv"):
            self._tracker.log_artifact(file)
        self._tracker.log_artifact(run.weights / "best.pt", "weights")
        if assessment.onnx:
            self._tracker.log_artifact(assessment.onnx, "weights")
        self._tracker.log_artifact(run.plots, "plots")
        self._tracker.log_artifact(run.samples, "samples")
        registry = self._prepared.settings.tracking.registry
        if registry and assessment.onnx:
            self._tracker.register(self._request(registry, assessment))

    def report(self, page: Path) -> None:
        """The run's report."""
        self._tracker.log_artifact(page)

    def _request(self, name: str, assessment: Assessment) -> RegistryRequest:
        settings, run, report = self._prepared.settings, self._prepared.run, self._prepared.report
        assert assessment.onnx is not None
        measured = {key: assessment.metrics[key] for key in ("map50", "map50_95", "precision", "recall", "f1")}
        description = model_description(
            name=name,
            alias=settings.tracking.alias,
            model_name=settings.model_name,
            classes=list(report.index.names),
            image_size=settings.img_size,
            run_name=run.name,
            data_name=report.index.root.name,
            fingerprint=report.fingerprint,
            counts={split: {"images": count.images, "boxes": count.boxes} for split, count in report.counts.items()},
            test_metrics={key: value for key, value in measured.items() if value is not None},
            date=datetime.now(UTC).strftime("%d %B %Y"),
        )
        tags = {
            **settings.tracking.tags,
            "model_name": settings.model_name,
            "dataset_fingerprint": report.fingerprint,
            f"{assessment.split}_map50": f"{measured['map50'] or 0:.4f}",
            WEIGHTS_TAG: sha256_of(run.weights / "best.pt"),
            ONNX_TAG: sha256_of(assessment.onnx),
        }
        return RegistryRequest(name, assessment.onnx, settings.tracking.alias, tags, description)

    def figures(self) -> TrackingFigures:
        """How the delivery of the record is doing."""
        return self._tracker.figures()

    def finish(self) -> TrackingOutcome:
        """End a run that succeeded."""
        if self._continued:
            self._tracker.set_tags({"cause": "stopped or failed before; went on and finished"})
        return self._tracker.finish("FINISHED", FINISH_TIMEOUT_S)

    def stop(self, status: str, error: BaseException) -> None:
        """End a run that did not, with its cause as a tag."""
        cause = str(error) if isinstance(error, PlatformError) else f"{type(error).__name__}: {error}"
        self._tracker.set_tags({"cause": cause[:500]})
        self._tracker.finish(status, timeout_s=10.0)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``; None is left out."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat


def final_metrics(assessment: Assessment) -> dict[str, float]:
    """``test/map50`` and so on, per class as ``test/map50/Nodule``, FROC as ``test/sensitivity_at_0.5_fp``,
    the ends of the 95 % intervals as ``test/map50_ci_low`` and ``_high``."""
    metrics = assessment.metrics
    split = "test" if assessment.split == "test" else "best_val"  # val/* are the points of the epochs
    named: dict[str, Any] = {
        f"{split}/{key}": metrics[key] for key in ("map50", "map50_95", "precision", "recall", "f1", "image_auc")
    }
    for key in ("map50", "map50_95"):
        named |= dict(
            zip((f"{split}/{key}_ci_low", f"{split}/{key}_ci_high"), metrics[f"{key}_ci"] or (), strict=False)
        )
    for label, figures in metrics["per_class"].items():
        named |= {f"{split}/{key}/{label}": figures[key] for key in ("map50", "map50_95", "precision", "recall", "f1")}
    for rate, sensitivity in (metrics["froc"].get("sensitivity") or {}).items():
        named[f"{split}/sensitivity_at_{rate}_fp"] = sensitivity
    named |= {f"onnx/{key}": assessment.parity.get(key) for key in ("map50_difference", "map50_95_difference")}
    return {key: float(value) for key, value in named.items() if value is not None}
