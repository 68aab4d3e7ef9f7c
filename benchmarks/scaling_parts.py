"""Measures the parts of the scaling model on one device: ``python benchmarks/scaling_parts.py DATA.yaml cuda:0``.

It trains in this process with the platform's own trainer, without Ray: four epochs with all validation images and four
with a quarter of them, because a validation takes some time however few images it has. The last line of its output is
a ``scaling_model.Parts`` as JSON.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from comparison import hardware
from scaling_model import Parts

from ray_jobs.dataset.check import check_dataset
from ray_jobs.dataset.description import read_description
from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.detector.epoch_report import EpochReport
from ray_jobs.detector.process import Place
from ray_jobs.detector.training import train_detector
from ray_jobs.settings import load_config_with_defaults


@dataclass(frozen=True)
class Steady:
    """Medians over all epochs but the first, in seconds: training, validation, the rest; and every step.

    ``gradient_bytes``: four for each parameter.
    """

    train: float
    val: float
    rest: float
    steps: list[float]
    gradient_bytes: float


def measure_parts(data: Path, device: str, batch: int = 64, size: int = 640, epochs: int = 4) -> Parts:
    """The parts of yolo12n on one device."""
    index = check_dataset(read_description(data), show_progress=False).index
    val = index.splits["val"]
    few = index.part({**index.splits, "val": val[: len(val) // 4]}, "a quarter of val")
    whole, quarter = (_train(one, device, batch, size, epochs) for one in (index, few))
    per_image = max((whole.val - quarter.val) / (len(val) - len(val) // 4), 1e-6)
    steps = whole.steps + quarter.steps
    return Parts(
        where=f"{hardware()['gpus'][0] if device != 'cpu' else 'cpu'}, yolo12n, {size} px",
        batch=batch,
        step_s=whole.train / -(-len(index.splits["train"]) // batch),
        variation=statistics.stdev(steps) / statistics.mean(steps),
        gradient_bytes=whole.gradient_bytes,
        val_images_per_s=1 / per_image,
        epoch_s=max(whole.rest + whole.val - per_image * len(val), 0.0),
    )


def _train(index: DatasetIndex, device: str, batch: int, size: int, epochs: int) -> Steady:
    chosen = {"epochs": epochs, "img_size": size, "batch_size": batch, "close_mosaic": 0, "pretrained": "false"}
    settings = load_config_with_defaults(None, [f"{key}={value}" for key, value in chosen.items()])
    marks: list[float] = []
    reports: list[tuple[float, EpochReport]] = []

    def mark() -> None:
        if device != "cpu":
            torch.cuda.synchronize(device)  # a step ends when the GPU has done it, not when it was told to
        marks.append(time.time())

    def report(epoch: EpochReport) -> None:
        if epoch.capture_checkpoint:
            epoch.capture_checkpoint()
        reports.append((time.time(), epoch))

    with tempfile.TemporaryDirectory() as folder:
        place = Place(device=device, threads=len(os.sched_getaffinity(0)))
        work, cache = Path(folder) / "work", Path(folder) / "cache"
        work.mkdir()
        train_detector(settings, index, place, work, report, batch_size=batch, cache_folder=cache, on_batch=mark)
        model = torch.load(work / "weights" / "last.pt", weights_only=False)["model"]
    steady = [epoch.metrics for _, epoch in reports[1:]]
    rest = [
        end - before - epoch.metrics["train_seconds"] - epoch.metrics["val_seconds"]
        for (before, _), (end, epoch) in pairwise(reports)
    ]
    trainings = [(epoch.started, epoch.started + epoch.metrics["train_seconds"]) for _, epoch in reports[1:]]
    return Steady(
        train=statistics.median(metrics["train_seconds"] for metrics in steady),
        val=statistics.median(metrics["val_seconds"] for metrics in steady),
        rest=statistics.median(rest),
        steps=[b - a for a, b in pairwise(marks) if any(start <= a and b <= end for start, end in trainings)],
        gradient_bytes=4.0 * sum(parameter.numel() for parameter in model.parameters()),
    )


if __name__ == "__main__":
    print(json.dumps(asdict(measure_parts(Path(sys.argv[1]), sys.argv[2]))))
