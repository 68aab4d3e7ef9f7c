"""From which score on a finding counts, for each class: chosen on the validation split, after training.

In: an ``Evaluation``. Out: a score for every class. The rule:

- A class with at least ``FEWEST_BOXES`` true boxes that were found at all gets the score where its F1 (at an IoU of
  0.5) is best, the middle of the range where several scores are equally good.
- Any other class gets the score where the mean F1 of those classes is best, for a few boxes say little; 0.25 where
  there is no such class.
- No score is below ``LOWEST``, where a hesitant detector would cover its pictures with boxes, or above ``HIGHEST``.
"""

import numpy as np

from ray_jobs.detector.evaluation import Evaluation
from ray_jobs.reading.finding import DEFAULT_THRESHOLD

FEWEST_BOXES = 10
LOWEST, HIGHEST = 0.05, 0.9
RULE = (
    f"best F1 on the validation split; mean of classes for those with under {FEWEST_BOXES} boxes; {LOWEST} to {HIGHEST}"
)


def choose_thresholds(evaluation: Evaluation) -> dict[str, float]:
    """The score in 0..1 from which on each class counts, by name, in the order of the classes."""
    curves = {
        name: curve
        for name, curve in evaluation.curves.f1.items()
        if (evaluation.per_class[name]["boxes"] or 0) >= FEWEST_BOXES and curve.max() > 0
    }
    rest = _best_score(np.mean(list(curves.values()), axis=0)) if curves else DEFAULT_THRESHOLD
    return {name: _best_score(curves[name]) if name in curves else rest for name in evaluation.per_class}


def _best_score(f1: np.ndarray) -> float:
    """``f1`` stands at scores spread evenly over 0..1."""
    scores = np.linspace(0, 1, len(f1))
    allowed = (scores >= LOWEST) & (scores <= HIGHEST)
    best = np.flatnonzero(allowed & (f1 >= f1[allowed].max() - 1e-6))
    return round(float(scores[best[len(best) // 2]]), 3)
