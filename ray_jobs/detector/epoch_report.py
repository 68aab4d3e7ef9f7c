"""What a trainer says after every epoch and on the way to it, and in whose words.

Needs neither PyTorch nor Ultralytics.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WriteCheckpoint = Callable[[Path], None]


@dataclass(frozen=True)
class EpochReport:
    """What every rank says after every epoch.

    ``epoch`` counts from 1 and ``started`` at that Unix time. ``metrics`` are the same on all ranks but for ``val/*``,
    which rank 0 alone knows, and ``data_wait_seconds``, ``gpu_memory_bytes``, ``images_cached`` and ``images_decoded``
    (read for training), which are each rank's own.
    ``batch_size`` is the global batch, halved where the first epoch found too little memory; an optimizer step covers
    ``nominal_batch`` images all the same. ``precision`` is fp32, bf16 or fp16. ``capture_checkpoint()``, on rank 0
    alone, copies all that the next epoch depends on, and the best weights; what it returns writes that copy into a
    folder, at any time and in any thread.
    """

    epoch: int
    started: float
    metrics: dict[str, float]
    weights_digest: str
    last: bool
    batch_size: int
    capture_checkpoint: Callable[[], WriteCheckpoint] | None
    precision: str = ""
    nominal_batch: int = 0


@dataclass(frozen=True)
class Progress:
    """What a rank says within an epoch, about once a second.

    ``epoch`` and ``step`` count from 1, ``steps`` is the epoch's number of batches. ``loss`` is the mean of the epoch
    so far, all parts together, on this rank. ``images_per_second`` is over all ranks, since the epoch began;
    ``data_wait_seconds`` is how long this rank has waited for batches in it.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    images_per_second: float
    data_wait_seconds: float


def plain_names(metrics: dict[str, Any]) -> dict[str, float]:
    """Ultralytics' metric names in the words used everywhere else here."""
    words = {
        "metrics/precision(B)": "val/precision",
        "metrics/recall(B)": "val/recall",
        "metrics/mAP50(B)": "val/map50",
        "metrics/mAP50-95(B)": "val/map50_95",
    }
    return {words.get(name, name): float(value) for name, value in metrics.items()}
