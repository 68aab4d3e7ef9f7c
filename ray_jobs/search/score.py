"""One number per epoch that says how good a trial is, from its first epoch on; higher is better.

In: an epoch's metrics under the names of a run's journal. Out: a score, or an error where the metric is missing.

From scratch every detector finds nothing for some epochs: precision, recall and mAP are exactly 0, and trials cannot be
told apart. There the validation loss speaks. The rule, for a detection metric that is maximized:

    score = metric                                            where metric > 0
    score = - sum over box, cls, dfl of loss / gain * default gain     where metric = 0

Losses are positive, so every trial that finds something is above every one that does not. The division takes out the
trial's own gains (``box``, ``cls``, ``dfl``): with them, the trial that weighs its losses least would win.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ray_jobs.errors import TrainingError

DETECTION = ("val/map50_95", "val/map50", "val/fitness", "val/precision", "val/recall")
LOSSES = ("box_loss", "cls_loss", "dfl_loss")
METRICS = (*DETECTION, *(f"{split}/{loss}" for split in ("val", "train") for loss in LOSSES))
DEFAULT_GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5}  # Ultralytics' own


@dataclass(frozen=True)
class Score:
    """How epochs of a search are scored; ``mode`` is max or min."""

    metric: str = "val/map50_95"
    mode: str = "max"

    def of(self, metrics: Mapping[str, float], gains: Mapping[str, float] = DEFAULT_GAINS) -> float:
        """The score of an epoch; ``gains`` are the trial's loss gains. Not finite counts as the worst.

        Raises ``TrainingError`` where the metric was not reported.
        """
        if self.metric not in metrics:
            raise TrainingError(f"the metric {self.metric!r} was not reported; there are {', '.join(sorted(metrics))}")
        value = float(metrics[self.metric])
        if not math.isfinite(value):
            return -math.inf
        if self.mode == "min":
            return -value
        if value > 0 or self.metric not in DETECTION:
            return value
        loss = validation_loss(metrics, gains)
        return -loss if math.isfinite(loss) else -math.inf

    def value(self, score: float) -> float:
        """The metric itself; 0 where a loss stands in for it."""
        if self.mode == "min":
            return -score
        return max(score, 0.0) if self.metric in DETECTION else score

    def shown(self, score: float | None) -> str:
        """For people: the metric, or the loss that stands in for it."""
        if score is None or not math.isfinite(score):
            return "-"
        if self.mode == "min":
            return f"{-score:.4f}"
        return f"loss {-score:.3f}" if score < 0 and self.metric in DETECTION else f"{score:.4f}"


def validation_loss(metrics: Mapping[str, float], gains: Mapping[str, float]) -> float:
    """The validation losses at Ultralytics' default gains, whatever gains the trial has; 0 where none was reported."""
    total = 0.0
    for name, default in DEFAULT_GAINS.items():
        gain = gains.get(name, default)
        if gain > 0:
            total += metrics.get(f"val/{name}_loss", 0.0) / gain * default
    return total
