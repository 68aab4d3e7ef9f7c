"""What a trained detector is worth: the best checkpoint on the test split, its pictures, and its ONNX twin.

In: the run's best.pt and the checked data set. Out: test metrics, plots, sample findings, best.onnx that agrees.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.flows.run_folder import RunFolder
from ray_jobs.settings import Settings

BATCH = 16


@dataclass
class Assessment:
    """``split`` is what was measured on: test, or val where there is no test split. ``seconds`` by stage."""

    split: str
    metrics: dict[str, Any]
    onnx: Path | None = None
    parity: dict[str, Any] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def assess(settings: Settings, index: DatasetIndex, run: RunFolder, say: Callable[[str], None]) -> Assessment:
    """Evaluate ``weights/best.pt``, draw samples and plots, export and compare the ONNX file.

    Raises ``ExportError`` where the ONNX file does not agree; test metrics and pictures are kept then.
    """
    from ray_jobs.detector.process import quiet_ultralytics

    quiet_ultralytics()
    from ray_jobs.detector.evaluation import detect, evaluate, onnx_forward, torch_forward
    from ray_jobs.detector.export import export_onnx
    from ray_jobs.detector.parity import check_parity
    from ray_jobs.detector.plots import draw_plots

    names, size = index.names, settings.img_size
    split = "test" if index.splits.get("test") else "val"
    samples = index.splits[split]
    best = run.weights / "best.pt"

    started = time.perf_counter()
    say(f"evaluating best.pt on {len(samples)} {split} images")
    trained = torch_forward(best, device_of(settings))
    evaluation = evaluate(detect(trained, samples, size, BATCH), samples, names)
    result = Assessment(split, evaluation.as_dict())
    result.pictures += draw_plots(evaluation, run.plots, split)
    result.pictures += _draw_samples(trained, settings, index, names, run)
    result.seconds["evaluate"] = time.perf_counter() - started

    started = time.perf_counter()
    if settings.export.onnx:
        say("exporting ONNX and comparing it with best.pt on the same images")
        exported = run.weights / "best.onnx"
        export_onnx(best, exported, names=names, image_size=size, opset=settings.export.opset)
        parity = check_parity(trained, onnx_forward(exported), samples, names, size, pt_evaluation=evaluation)
        result.onnx, result.parity = exported, parity.as_dict()
    result.seconds["export"] = time.perf_counter() - started
    return result


def _draw_samples(
    forward: Any, settings: Settings, index: DatasetIndex, names: tuple[str, ...], run: RunFolder
) -> list[Path]:
    from ray_jobs.detector.samples import save_samples
    from ray_jobs.reading.finding import find

    def read(images: Any) -> Any:
        return find(forward, images, names, settings.img_size)

    return save_samples(read, index.splits["val"], names, run.samples, settings.samples)


def device_of(settings: Settings) -> str:
    """Where models are measured: the first GPU unless the settings say CPU."""
    import torch

    return "cuda:0" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
