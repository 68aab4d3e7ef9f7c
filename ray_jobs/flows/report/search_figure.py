"""By which figure a search's report shows its trials: the metric, or the validation loss while nothing is found yet.

In: trials, whose ``score`` is what the search decided by (higher is better, whatever the metric; below 0 where a loss
stood in for a metric that is still 0). Out: the figure to show for a trial and for an epoch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from ray_jobs.flows.search.trial import Trial

LOSSES = ("val/box_loss", "val/cls_loss", "val/dfl_loss")


@dataclass(frozen=True)
class Measure:
    """``name`` of the figure, and whether more of it is better. ``stands_in``: no trial has reached the metric."""

    name: str
    more_is_better: bool
    stands_in: bool = False

    @classmethod
    def of(cls, metric: str, mode: Literal["max", "min"], trials: Sequence[Trial]) -> Self:
        """The metric; the validation loss where every trial's metric is still 0 and its loss decided."""
        measure = cls(metric, mode == "max")
        values = [value for trial in trials if (value := measure.value(trial)) is not None]
        decided_by_loss = any(trial.score is not None and trial.score < 0 for trial in trials)
        if mode == "max" and decided_by_loss and values and not any(values):
            return cls("validation loss", False, stands_in=True)
        return measure

    def at(self, epoch: Mapping[str, float]) -> float | None:
        """The figure of an epoch; None where it was not reported or is no number."""
        if self.stands_in:
            value: float | None = sum(epoch.get(name, 0.0) for name in LOSSES)
        else:
            value = epoch.get(self.name)
        return value if value is not None and math.isfinite(value) else None

    def value(self, trial: Trial) -> float | None:
        """The best figure of a trial's epochs; of losses the one that decided, at equal gains."""
        if self.stands_in and trial.score is not None and math.isfinite(trial.score):
            return -trial.score
        known = [value for epoch in trial.epochs if (value := self.at(epoch)) is not None]
        return self.best(known) if known else None

    def place(self, trial: Trial) -> float:
        """Where a trial with a figure stands on an axis."""
        return self.value(trial) or 0.0

    def best(self, values: Sequence[float]) -> float:
        """The best of some figures."""
        return max(values) if self.more_is_better else min(values)
