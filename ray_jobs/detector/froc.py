"""FROC: which share of the true findings is found, at how many false alarms per image. And the image-level AUC.

In: what was detected, what is true. Out: sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per image, the
operating points of LUNA16 (Setio et al. 2017, Med Image Anal 42:1-13, doi:10.1016/j.media.2017.06.015), and their mean,
LUNA16's score. What "hit" means, decided here for boxes:

- A detection hits a true box of its own class with an IoU of at least 0.5. (LUNA16 has points, and asks for a distance
  below the nodule's radius.) A detection of another class is a false positive wherever it lies.
- Detections are taken best score first, and each takes the true box that it overlaps most among those not yet hit, so
  every true box counts once.
- A further hit on a box that was hit already is ignored: neither a true nor a false positive, as in the evaluations
  of LUNA16 and CAMELYON16.
- The overall figure pools all classes under one common score threshold; that of a class looks at its own boxes alone.
  The false positives are divided by the number of all images of the split in both.
- The sensitivity at a rate is the best that any threshold reaches without exceeding the rate; nothing is interpolated,
  and detections with equal scores enter together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.reading.decode import Detections

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
HIT_IOU = 0.5

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Curve:
    """False positives per image and the sensitivity (0..1) there, one point per score threshold, falling thresholds."""

    rates: Floats
    sensitivity: Floats

    def at(self, rate: float) -> float:
        """The best sensitivity that is reached with at most ``rate`` false positives per image."""
        within = self.sensitivity[self.rates <= rate]
        return float(within.max()) if len(within) else 0.0

    def points(self) -> dict[str, float]:
        """Sensitivity at the seven operating points, and their mean, ready for JSON."""
        found = {f"{rate:g}": self.at(rate) for rate in RATES}
        return {**found, "mean": float(np.mean(list(found.values())))}


@dataclass(frozen=True)
class Froc:
    """The pooled curve and one for each class; None where the split has no such true box."""

    overall: Curve | None
    per_class: dict[str, Curve | None] = field(default_factory=dict)
    iou: float = HIT_IOU

    def as_dict(self) -> dict[str, Any]:
        """``{"iou", "sensitivity": {"0.125": ..., "8": ..., "mean": ...} or None, "per_class": {name: the same}}``."""
        return {
            "iou": self.iou,
            "sensitivity": self.overall.points() if self.overall else None,
            "per_class": {name: curve.points() if curve else None for name, curve in self.per_class.items()},
        }


def froc(
    detections: Sequence[Detections], truths: Sequence[Detections], names: Sequence[str], iou: float = HIT_IOU
) -> Froc:
    """FROC of one split: for each image what was detected and what is true (whose scores are not looked at)."""
    marks = [mark(found, true, iou) for found, true in zip(detections, truths, strict=True)]
    hit = np.concatenate(marks or [np.zeros(0, dtype=np.int8)])
    scores = np.concatenate([found.scores for found in detections] or [np.zeros(0, dtype=np.float32)])
    classes = np.concatenate([found.classes for found in detections] or [np.zeros(0, dtype=np.int64)])
    boxes = np.bincount(np.concatenate([true.classes for true in truths] or [classes]), minlength=len(names))
    per_class = {
        name: _curve(hit[classes == label], scores[classes == label], int(boxes[label]), len(truths))
        for label, name in enumerate(names)
    }
    return Froc(_curve(hit, scores, int(boxes.sum()), len(truths)), per_class, iou)


def overlaps(first: Floats, second: Floats) -> Floats:
    """Intersection over union of boxes x1, y1, x2, y2: ``(n, 4)`` and ``(m, 4)`` to ``(n, m)``."""
    corner = np.maximum(first[:, None, :2], second[None, :, :2])
    opposite = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(opposite - corner, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return shared / np.maximum(union, np.finfo(np.float32).tiny)


def image_auc(scores: Sequence[float], positive: Sequence[bool]) -> tuple[float | None, str | None]:
    """Area under the ROC curve (0..1) for telling images with any finding from images without.

    ``scores`` are each image's best score, 0 where nothing was detected. The area is the chance that an image with
    findings scores higher than one without, ties counting half (Hanley and McNeil 1982, Radiology 143:29-36,
    doi:10.1148/radiology.143.1.7063747). Returns None and the reason where only one kind of image is there.
    """
    value, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    with_findings, without = value[truth], value[~truth]
    if not len(with_findings) or not len(without):
        return None, f"no image {'with' if not len(with_findings) else 'without'} findings in this split"
    ordered = np.sort(without)
    below = np.searchsorted(ordered, with_findings, side="left")
    not_above = np.searchsorted(ordered, with_findings, side="right")
    return float((below + not_above).sum() / (2 * len(with_findings) * len(without))), None


def mark(found: Detections, true: Detections, iou: float) -> npt.NDArray[np.int8]:
    """For each detection of one image: 1 a hit, 0 a false positive, -1 a further hit on a box that is taken."""
    marks = np.zeros(len(found), dtype=np.int8)
    if not len(found) or not len(true):
        return marks
    shared = overlaps(found.boxes, true.boxes)
    shared[found.classes[:, None] != true.classes[None, :]] = 0
    reached = shared >= iou
    free = np.ones(len(true), dtype=bool)
    order = np.argsort(-found.scores, kind="stable")
    for detection in order[reached[order].any(axis=1)]:
        open_boxes = reached[detection] & free
        if open_boxes.any():
            free[np.where(open_boxes, shared[detection], -1).argmax()] = False
            marks[detection] = 1
        else:
            marks[detection] = -1
    return marks


def _curve(marks: npt.NDArray[np.int8], scores: Floats, boxes: int, images: int) -> Curve | None:
    if not boxes:
        return None
    order = np.argsort(-scores, kind="stable")
    marks, scores = marks[order], scores[order]
    # One point per distinct score: the last of a run of equal ones.
    last = np.flatnonzero(np.append(np.diff(scores) != 0, True)) if len(scores) else np.zeros(0, dtype=np.intp)
    rates = np.cumsum(marks == 0)[last] / images
    sensitivity = np.cumsum(marks == 1)[last] / boxes
    return Curve(np.append(0.0, rates), np.append(0.0, sensitivity))
