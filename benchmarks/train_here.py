"""Training here in one plain process, without Ray: what a GPU does, with the time of what it does.

    python benchmarks/train_here.py DATA.yaml FOLDER key=value ...

The last line of its output is JSON: each epoch's images per second without validation, seconds of training, of
validation and of waiting for data, the share of its training in which the GPU was busy, and scores.
"""

import json
import sys
import time
from pathlib import Path

import torch
from gpu_busy import GpuBusy

from ray_jobs.dataset.check import check_dataset
from ray_jobs.dataset.description import read_description
from ray_jobs.detector.epoch_report import EpochReport
from ray_jobs.detector.process import Place
from ray_jobs.detector.training import train_detector
from ray_jobs.settings import load_config_with_defaults


def main(data: Path, folder: Path, overrides: list[str]) -> None:
    """Train once."""
    settings = load_config_with_defaults(None, ["pretrained=false", *overrides])
    report = check_dataset(read_description(data), show_progress=False, allow=["duplicate_images", "shared_patients"])
    report.raise_for_errors()
    epochs: list[dict[str, float]] = []
    times: list[tuple[float, float]] = []

    def tell(epoch: EpochReport) -> None:
        epochs.append(epoch.metrics)
        times.append((epoch.started, epoch.started + epoch.metrics["train_seconds"]))
        print(f"epoch {epoch.epoch}: {epoch.metrics['images_per_second']:.0f} images/s", flush=True)

    device = "cuda:0" if torch.cuda.is_available() and settings.device != "cpu" else "cpu"
    place = Place(device=device)
    began = time.time()
    batch = int(settings.batch_size)
    where = {"batch_size": batch, "cache_folder": folder / "cache"}
    with GpuBusy() as busy:
        train_detector(settings, report.index, place, folder / "run", tell, **where)
    names = (
        "images_per_second",
        "val_seconds",
        "train_seconds",
        "data_wait_seconds",
        "val/fitness",
        "val/map50",
        "val/map50_95",
    )
    figures = {name: [epoch[name] for epoch in epochs] for name in names}
    shares = [busy.between(*epoch) for epoch in times]
    print(json.dumps({**figures, "gpu_busy": shares, "total": time.time() - began}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
