"""What a trainer says after every epoch, and in whose words. Needs neither PyTorch nor Ultralytics."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WriteCheckpoint = Callable[[Path], None]


@dataclass(frozen=True)
class EpochReport:
    """What every rank says after every epoch.

    ``epoch`` counts from 1 and ``started`` at that Unix time. ``metrics`` are the same on all ranks but for ``val/*``,
    which rank 0 alone knows. ``batch_size`` is the global batch. ``capture_checkpoint()``, on rank 0 alone, copies all
    that the next epoch depends on, and the best weights; what it returns writes that copy into a folder, at any time
    and in any thread.
    """

    epoch: int
    started: float
    metrics: dict[str, float]
    weights_digest: str
    last: bool
    batch_size: int
    capture_checkpoint: Callable[[], WriteCheckpoint] | None


def plain_names(metrics: dict[str, Any]) -> dict[str, float]:
    """Ultralytics' metric names in the words used everywhere else here."""
    words = {
        "metrics/precision(B)": "val/precision",
        "metrics/recall(B)": "val/recall",
        "metrics/mAP50(B)": "val/map50",
        "metrics/mAP50-95(B)": "val/map50_95",
    }
    return {words.get(name, name): float(value) for name, value in metrics.items()}
