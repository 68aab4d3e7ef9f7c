"""What a trained detector is worth: the best checkpoint on the test split, its pictures, and its ONNX twin.

In: the run's best.pt and the checked data set. Out: test metrics, plots, sample findings, best.onnx that agrees, and
the thresholds chosen on the validation split, inside best.onnx and beside best.pt (``thresholds.json``).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.flows.run_folder import RunFolder
from ray_jobs.reading.thresholds import save_thresholds
from ray_jobs.settings import Settings

if TYPE_CHECKING:
    from ray_jobs.detector.detections_file import SplitDetections
    from ray_jobs.detector.evaluation import Evaluation

BATCH = 16


@dataclass
class Assessment:
    """``split`` is what was measured on: test, or val where there is no test split. ``seconds`` by stage.
    ``thresholds``: the score in 0..1 from which on each class counts when a picture is read."""

    split: str
    metrics: dict[str, Any]
    thresholds: dict[str, float] = field(default_factory=dict)
    onnx: Path | None = None
    parity: dict[str, Any] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    evaluation: "Evaluation | None" = None
    detections: "SplitDetections | None" = None


def assess(settings: Settings, index: DatasetIndex, run: RunFolder, say: Callable[[str], None]) -> Assessment:
    """Evaluate ``weights/best.pt``, draw samples and plots, export and compare the ONNX file.

    Raises ``ExportError`` where the ONNX file does not agree; test metrics and pictures are kept then.
    """
    from ray_jobs.detector.process import quiet_ultralytics

    quiet_ultralytics()
    from ray_jobs.detector.bootstrap import intervals, patients_of
    from ray_jobs.detector.detections_file import SplitDetections
    from ray_jobs.detector.evaluation import detect, evaluate, onnx_forward, torch_forward
    from ray_jobs.detector.export import export_onnx
    from ray_jobs.detector.parity import check_parity
    from ray_jobs.detector.plots import draw_plots
    from ray_jobs.detector.thresholds import choose_thresholds

    names, size = index.names, settings.img_size
    split = "test" if index.splits.get("test") else "val"
    samples = index.splits[split]
    best = run.weights / "best.pt"

    started = time.perf_counter()
    say(f"evaluating best.pt on {len(samples)} {split} images")
    trained = torch_forward(best, device_of(settings))
    detections = SplitDetections.of(detect(trained, samples, size, BATCH), index, split)
    detections.save(run.detections)
    evaluation = evaluate(detections.detections, samples, names)
    patients = patients_of(detections.images, settings.data_check.patient_id_pattern)
    metrics = intervals(evaluation.statistics, patients).added_to(evaluation.as_dict())
    result = Assessment(split, metrics, evaluation=evaluation, detections=detections)
    result.pictures += draw_plots(evaluation, run.plots, split)
    if split != "val":
        val = index.splits["val"]
        evaluation_on_val = evaluate(detect(trained, val, size, BATCH), val, names)
    else:
        evaluation_on_val = evaluation
    result.thresholds = choose_thresholds(evaluation_on_val)
    save_thresholds(result.thresholds, run.weights / "thresholds.json")
    result.pictures += _draw_samples(trained, settings, index, result.thresholds, run)
    result.seconds["evaluate"] = time.perf_counter() - started

    started = time.perf_counter()
    if settings.export.onnx:
        say("exporting ONNX and comparing it with best.pt on the same images")
        exported = run.weights / "best.onnx"
        export_onnx(
            best, exported, names=names, image_size=size, thresholds=result.thresholds, opset=settings.export.opset
        )
        parity = check_parity(trained, onnx_forward(exported), samples, names, size, pt_evaluation=evaluation)
        result.onnx, result.parity = exported, parity.as_dict()
    result.seconds["export"] = time.perf_counter() - started
    return result


def _draw_samples(
    forward: Any, settings: Settings, index: DatasetIndex, thresholds: dict[str, float], run: RunFolder
) -> list[Path]:
    from ray_jobs.detector.samples import save_samples
    from ray_jobs.reading.finding import find
    from ray_jobs.reading.thresholds import class_thresholds

    names = index.names
    limits = class_thresholds(names, thresholds)

    def read(images: Any) -> Any:
        return find(forward, images, names, settings.img_size, limits)

    return save_samples(read, index.splits["val"], names, run.samples, settings.samples)


def device_of(settings: Settings) -> str:
    """Where models are measured: the first GPU unless the settings say CPU."""
    import torch

    return "cuda:0" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
