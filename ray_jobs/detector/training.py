"""Train a detector in this process, as one of N ranks or alone. Ultralytics is imported here, when it is called.

In: settings, a checked data set, starting weights, the process's place. Out: an ``EpochReport`` after every epoch.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.detector.epoch_report import EpochReport, Progress
from ray_jobs.detector.process import Place, prepare_process
from ray_jobs.errors import TrainingError
from ray_jobs.settings import Settings


def train_detector(
    settings: Settings,
    index: DatasetIndex,
    place: Place,
    work_dir: Path,
    report: Callable[[EpochReport], None],
    *,
    batch_size: int,
    nominal_batch: int = 0,
    weights: Path | None = None,
    resume_from: Path | None = None,
    cache_folder: Path | None = None,
    keep_weights: bool = True,
    carried: bool = False,
    lr_scale: float = 1.0,
    on_batch: Callable[[], None] = lambda: None,
    on_progress: Callable[[Progress], None] | None = None,
) -> None:
    """Train to the end or to early stopping; ``report`` is called on every rank after every epoch.

    ``batch_size`` is the global batch, ``nominal_batch`` the images of an optimizer step of a run that goes on (0: as
    the settings say). ``weights`` are the starting weights (None: from scratch). ``resume_from`` is
    a folder that ``EpochReport.capture_checkpoint`` filled. ``work_dir`` is this process's own folder for its files.
    ``cache_folder`` is shared by the processes of a node and holds decoded pixels. Without ``keep_weights`` no best.pt
    and last.pt are written. ``carried`` says that ``resume_from`` comes from a training with other parameters, whose
    weights and optimizer state are taken, and whose learning rate and the like are not. ``lr_scale`` multiplies the
    learning rate. ``on_batch`` is called before every batch, ``on_progress`` about once a second within an epoch.

    Raises ``Diverged`` where numbers are not finite any more, ``WeightsError`` for a state of another model, and
    ``TrainingError`` where memory is too small for the batch.
    """
    prepare_process(place)
    from ray_jobs.detector.precision import gpu_precision
    from ray_jobs.detector.trainer import DetectorTraining

    arguments = ultralytics_arguments(settings, place, work_dir, batch_size, weights) | {"save": keep_weights}
    arguments |= {"nbs": nominal_batch} if nominal_batch else {}
    if settings.precision == "auto" and place.device != "cpu":
        arguments["amp"] = gpu_precision(place, resume_from)
    how: dict[str, Any] = {"carried": carried, "lr_scale": lr_scale, "speed": settings.speed}
    how |= {"choose_precision": settings.precision == "auto" and place.device == "cpu"}
    how |= {"on_batch": on_batch, "on_progress": on_progress}
    training = DetectorTraining(arguments, index, place, report, resume_from, cache_folder, **how)
    try:
        training.train()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(memory_advice(batch_size, place, settings.img_size)) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch or Python found no memory; PyTorch says so in words, on a GPU and on a CPU in different ones."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in words or "can't allocate memory" in words


def memory_advice(batch_size: int, place: Place, img_size: int) -> str:
    """What to do about a batch that does not fit."""
    share = batch_size // place.world_size
    smaller = max(share // 2, 1) * place.world_size
    fits = f"try batch_size={smaller}" if smaller < batch_size else "try a smaller img_size or model_name"
    automatic = " (batch_size=0.6 finds one that fills 60 % of each GPU)" if place.device != "cpu" else ""
    return (
        f"rank {place.rank}: out of memory on {place.device} with batch_size {batch_size} ({share} per worker) at "
        f"{img_size} px; {fits}{automatic}"
    )


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
            precision = "fp32"  # unless the trainer finds that bf16 is faster
        else:
            import torch

            precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    arguments: dict[str, bool | str] = {"fp32": False, "bf16": "bf16", "fp16": True}
    return arguments[precision]
