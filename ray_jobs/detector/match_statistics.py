"""What AP, FROC and AUC depend on, image by image, so that they can be computed again for any weighting of the images.

In: what was detected in each image, which detections hit a true box, what is true. Out: the figures for many weightings
at once, without a network. A weight counts how often an image is there: all 1 gives the figures of ``evaluate``, and a
bootstrap draws others (``bootstrap.py``).

AP is that of Ultralytics (``ultralytics.utils.metrics.compute_ap``: precision made monotone, read at 101 recalls,
integrated by the trapezoidal rule). Its curve is a staircase that is as high, between two hits, as the best precision
from the next hit on. So the number of detections up to each hit is all that has to be known, and a weighting costs a
small matrix product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.detector.froc import HIT_IOU, RATES, mark
from ray_jobs.reading.decode import Detections

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]
Flags = npt.NDArray[np.bool_]

RECALLS = np.linspace(0, 1, 101)
# How much of the area the first m of the recalls stand for, m = 0..101: the trapezoidal rule.
AREA = np.append(0.0, np.cumsum(np.where((RECALLS == 0) | (RECALLS == 1), 0.5, 1.0) / 100))
BLOCK = 512  # rows of a count table that are held at once


@dataclass(frozen=True)
class Figures:
    """The figures for R weightings; each lies in 0..1, or is NaN where a weighting leaves nothing to measure.

    ``map50``, ``map50_95`` and ``image_auc`` are (R,); ``ap50`` and ``ap50_95`` (R, classes); ``sensitivity`` (R, 8) at
    the false positives per image of ``froc.RATES``, and their mean.
    """

    map50: Floats
    map50_95: Floats
    ap50: Floats
    ap50_95: Floats
    sensitivity: Floats
    image_auc: Floats


@dataclass(frozen=True, eq=False)
class MatchStatistics:
    """Detections of a split, best score first, each with its image (a number), class, score, hits at the ten IoU levels
    of mAP (n, 10), and FROC mark (1 a hit, 0 a false positive, -1 ignored); ``boxes``: true ones (images, classes)."""

    names: tuple[str, ...]
    boxes: Integers
    image: Integers
    classes: Integers
    scores: Floats
    hits: Flags
    marks: Integers

    @classmethod
    def gather(
        cls, detections: Sequence[Detections], truths: Sequence[Detections], hits: Sequence[Flags], names: Sequence[str]
    ) -> "MatchStatistics":
        """From what was detected and is true in each image, and which detections hit at the ten IoU levels."""
        boxes = [np.bincount(true.classes, minlength=len(names)) for true in truths]
        marks = [mark(found, true, HIT_IOU) for found, true in zip(detections, truths, strict=True)]
        scores = np.concatenate([found.scores for found in detections])
        order = np.argsort(-scores)  # as Ultralytics does, so that equal scores are in the same order
        image = np.repeat(np.arange(len(detections)), [len(found) for found in detections])
        return cls(
            tuple(names),
            np.stack(boxes),
            image[order],
            np.concatenate([found.classes for found in detections])[order],
            scores[order],
            np.concatenate(hits)[order],
            np.concatenate(marks)[order],
        )

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.boxes)

    def measure(self, weights: npt.ArrayLike) -> Figures:
        """The figures for weightings (R, images), whose entries are at least 0."""
        given = np.asarray(weights, dtype=np.float64)
        measured = [self._average_precision(given, label) for label in range(len(self.names))]
        ap50 = np.stack([first for first, _ in measured], axis=1)
        ap50_95 = np.stack([mean for _, mean in measured], axis=1)
        sensitivity, auc = self._sensitivity(given), self._image_auc(given)
        return Figures(_mean(ap50), _mean(ap50_95), ap50, ap50_95, sensitivity, auc)

    def _average_precision(self, weights: Floats, label: int) -> tuple[Floats, Floats]:
        """AP of a class at IoU 0.5, and its mean over the ten levels."""
        rows = self.classes == label
        hits, image = self.hits[rows], self.image[rows]
        boxes = weights @ self.boxes[:, label]
        at = np.flatnonzero(hits.any(axis=1))
        step = np.searchsorted(at, np.arange(len(image)))  # the first hit that comes no earlier
        detected = np.cumsum(_weighted_counts(weights, image, step, len(at)), axis=1)
        weight = weights[:, image[at]]
        levels = [_area(weight[:, hit], detected[:, hit], boxes) for hit in hits[at].T]
        area = np.where(boxes[:, None] > 0, np.stack(levels, axis=1), np.nan)
        return area[:, 0], area.mean(axis=1)

    def _sensitivity(self, weights: Floats) -> Floats:
        """What ``froc`` computes: pooled over classes, equal scores entering together."""
        hit, false = self.marks == 1, self.marks == 0
        steps = -np.unique(-self.scores[hit])  # falling
        found = _weighted_counts(weights, self.image[hit], np.searchsorted(-steps, -self.scores[hit]), len(steps))
        alarms = _weighted_counts(weights, self.image[false], np.searchsorted(-steps, -self.scores[false]), len(steps))
        rates = np.cumsum(alarms, axis=1) / weights.sum(axis=1, keepdims=True)
        boxes = weights @ self.boxes.sum(axis=1)
        points = np.stack([np.where(rates <= rate, found, 0).sum(axis=1) for rate in RATES], axis=1)
        sensitivity = _ratio(points, boxes[:, None])
        return np.column_stack([sensitivity, sensitivity.mean(axis=1)])

    def _image_auc(self, weights: Floats) -> Floats:
        """What ``froc.image_auc`` computes."""
        best = np.zeros(self.images, dtype=self.scores.dtype)
        np.maximum.at(best, self.image, self.scores)
        positive = self.boxes.any(axis=1)
        with_findings, negatives = weights[:, positive], np.flatnonzero(~positive)
        negatives = negatives[np.argsort(best[negatives])]
        below = np.cumsum(np.pad(weights[:, negatives], ((0, 0), (1, 0))), axis=1)
        left = np.searchsorted(best[negatives], best[positive], side="left")
        right = np.searchsorted(best[negatives], best[positive], side="right")
        won = (with_findings * (below[:, left] + below[:, right])).sum(axis=1)
        return _ratio(won, 2 * with_findings.sum(axis=1) * below[:, -1])


def _weighted_counts(weights: Floats, image: Integers, step: Integers, steps: int) -> Floats:
    """(R, steps): how many detections belong to each step, each counting as often as its image. ``step`` == ``steps``
    belongs to none."""
    counts = np.empty((len(weights), steps))
    images = weights.shape[1]
    for first in range(0, steps, BLOCK):
        last = min(first + BLOCK, steps)
        chosen = (step >= first) & (step < last)
        cells = (step[chosen] - first) * images + image[chosen]
        table = np.bincount(cells, minlength=(last - first) * images).reshape(-1, images)
        counts[:, first:last] = weights @ table.T
    return counts


def _area(weight: Floats, detected: Floats, boxes: Floats) -> Floats:
    """AP of one level: each hit's weight, how much was detected up to it (R, hits), and how much is true (R,)."""
    hit = np.cumsum(weight, axis=1)
    recall = hit / (boxes[:, None] + 1e-16)
    precision = np.divide(hit, detected, out=np.zeros_like(hit), where=detected > 0)
    height = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    width = np.diff(AREA[np.searchsorted(RECALLS, recall)], axis=1, prepend=0)
    return (height * width).sum(axis=1)


def _mean(values: Floats) -> Floats:
    """Mean over the classes that have boxes in a weighting; NaN where none has."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(axis=1), known.sum(axis=1))


def _ratio(numerator: Floats, denominator: Floats | Integers) -> Floats:
    empty = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.divide(numerator, denominator, out=empty, where=np.broadcast_to(denominator > 0, empty.shape))
