"""Train a detector in this process, as one of N ranks or alone. Ultralytics is imported here, when it is called.

In: settings, a checked data set, starting weights, the process's place. Out: an ``EpochReport`` after every epoch.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.detector.epoch_report import EpochReport
from ray_jobs.detector.process import Place, prepare_process
from ray_jobs.settings import Settings


def train_detector(
    settings: Settings,
    index: DatasetIndex,
    place: Place,
    work_dir: Path,
    report: Callable[[EpochReport], None],
    *,
    batch_size: int,
    weights: Path | None = None,
    resume_from: Path | None = None,
    cache_folder: Path | None = None,
    keep_weights: bool = True,
    carried: bool = False,
) -> None:
    """Train to the end or to early stopping; ``report`` is called on every rank after every epoch.

    ``batch_size`` is the global batch. ``weights`` are the starting weights (None: from scratch). ``resume_from`` is
    a folder that ``EpochReport.write_checkpoint`` wrote. ``work_dir`` is this process's own folder for its files.
    ``cache_folder`` is shared by the processes of a node and holds decoded pixels. Without ``keep_weights`` no best.pt
    and last.pt are written. ``carried`` says that ``resume_from`` comes from a training with other parameters, whose
    weights and optimizer state are taken, and whose learning rate and the like are not.
    """
    prepare_process(place)
    from ray_jobs.detector.trainer import DetectorTraining

    arguments = ultralytics_arguments(settings, place, work_dir, batch_size, weights) | {"save": keep_weights}
    DetectorTraining(arguments, index, place, report, resume_from, cache_folder, carried).train()


def ultralytics_arguments(
    settings: Settings, place: Place, work_dir: Path, batch_size: int, weights: Path | None
) -> dict[str, Any]:
    """The settings in Ultralytics' words."""
    return {
        **settings.for_ultralytics(),
        "model": f"{settings.model_name}.yaml",
        "pretrained": str(weights) if weights else False,
        "data": "checked",
        "epochs": settings.epochs,
        "patience": settings.patience,
        "batch": batch_size,
        "nbs": settings.nbs or batch_size,
        "imgsz": settings.img_size,
        "device": place.device.removeprefix("cuda:"),
        "workers": settings.workers,
        "seed": settings.seed,
        "amp": resolve_precision(settings.precision, place.device),
        "save_dir": str(work_dir),
        "exist_ok": True,
        "plots": False,
        "verbose": False,
    }


def resolve_precision(precision: str, device: str) -> bool | str:
    """Ultralytics' ``amp`` for a precision on a device: False, "bf16" or True (fp16)."""
    if precision == "auto":
        if device == "cpu":
            precision = "fp32"  # small networks lose more to the casts than they win
        else:
            import torch

            precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    arguments: dict[str, bool | str] = {"fp32": False, "bf16": "bf16", "fp16": True}
    return arguments[precision]
