"""The mistakes worth looking at: true boxes that a detector misses worst, and its surest false alarms.

In: the detections and the truth of a split, and the score from which on something counts as found. Out: mistakes, worst
first, one per image. A hit needs the class and an IoU of 0.5, as in ``froc``.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ray_jobs.detector.detections_file import SplitDetections
from ray_jobs.detector.froc import HIT_IOU, mark, overlaps
from ray_jobs.reading.decode import Detections, Threshold
from ray_jobs.reading.finding import DEFAULT_THRESHOLD


@dataclass(frozen=True)
class Mistake:
    """A true box that was missed, or a found one that is a false alarm.

    ``image`` is the number of the image in its split, ``box`` that of the box among the image's truths (a miss) or
    ``found`` (an alarm). ``score`` is the best one of a detection that would have hit a missed box, 0 without one.
    ``cause`` is what a person may want to know of it. ``found`` is what counts as found in the image.
    """

    kind: Literal["miss", "alarm"]
    image: int
    box: int
    label: str
    score: float
    cause: str
    found: Detections


@dataclass(frozen=True)
class Mistakes:
    """What was found at the threshold, counted over all images, and the worst mistakes."""

    boxes: int
    hits: int
    alarms: int
    images_with_alarms: int
    worst_misses: list[Mistake]
    worst_alarms: list[Mistake]


def find_mistakes(split: SplitDetections, threshold: Threshold = DEFAULT_THRESHOLD, most: int = 6) -> Mistakes:
    """Look through a split; up to ``most`` mistakes of each kind. ``threshold``: one score, or one for each class.

    Misses are sorted by how little the detector saw (the best score of a box that would have hit), then by size, the
    larger one being the worse miss; false alarms by their score.
    """
    limits = np.broadcast_to(np.asarray(threshold, np.float32), len(split.names))
    misses: list[tuple[tuple[float, float], Mistake]] = []
    alarms: list[tuple[float, Mistake]] = []
    hits = false = 0
    for image, (everything, true) in enumerate(zip(split.detections, split.truths, strict=True)):
        found = everything.take(np.flatnonzero(everything.scores >= limits[everything.classes]))
        marks = mark(found, true, HIT_IOU)
        hits, false = hits + int((marks == 1).sum()), false + int((marks == 0).sum())
        misses += _misses(split, image, everything, found, true)
        alarms += _alarms(split, image, found, true, marks == 0)
    return Mistakes(
        boxes=sum(map(len, split.truths)),
        hits=hits,
        alarms=false,
        images_with_alarms=len({alarm.image for _, alarm in alarms}),
        worst_misses=_one_per_image([miss for _, miss in sorted(misses, key=lambda entry: entry[0])], most),
        worst_alarms=_one_per_image([alarm for _, alarm in sorted(alarms, key=lambda entry: -entry[0])], most),
    )


def _misses(
    split: SplitDetections, image: int, everything: Detections, found: Detections, true: Detections
) -> list[tuple[tuple[float, float], Mistake]]:
    shared, shared_found = overlaps(everything.boxes, true.boxes), overlaps(found.boxes, true.boxes)
    result = []
    for box, label in enumerate(true.classes):
        reached = shared[:, box] >= HIT_IOU
        if (found.classes == label)[shared_found[:, box] >= HIT_IOU].any():
            continue
        score = float(everything.scores[reached & (everything.classes == label)].max(initial=0))
        others = np.flatnonzero(shared_found[:, box] >= HIT_IOU)
        near = np.flatnonzero((found.classes == label) & (shared_found[:, box] > 0.1))
        if len(others):
            cause = f"taken for {split.names[found.classes[others[0]]]} ({found.scores[others[0]]:.2f})"
        elif len(near):
            cause = f"seen, but boxed elsewhere (IoU {shared_found[near, box].max():.2f})"
        elif score:
            cause = f"below the threshold, with a score of {score:.2f}"
        else:
            cause = "not seen at any score"
        size = float((true.boxes[box, 2:] - true.boxes[box, :2]).prod())
        result.append(((score, -size), Mistake("miss", image, box, split.names[label], score, cause, found)))
    return result


def _alarms(
    split: SplitDetections, image: int, found: Detections, true: Detections, false: np.ndarray
) -> list[tuple[float, Mistake]]:
    shared = overlaps(found.boxes, true.boxes)
    result = []
    for box in np.flatnonzero(false):
        nearest = int(shared[box].argmax()) if len(true) else -1
        overlap = float(shared[box, nearest]) if len(true) else 0.0
        same = len(true) and true.classes[nearest] == found.classes[box]
        if not len(true):
            cause = "an image without findings"
        elif overlap >= HIT_IOU:
            cause = f"what is there is {split.names[true.classes[nearest]]}"
        elif overlap > 0.1:
            cause = f"{'badly placed' if same else f'beside {split.names[true.classes[nearest]]}'} (IoU {overlap:.2f})"
        else:
            cause = "nothing is labelled there"
        score = float(found.scores[box])
        label = split.names[found.classes[box]]
        result.append((score, Mistake("alarm", image, int(box), label, score, cause, found)))
    return result


def _one_per_image(mistakes: list[Mistake], most: int) -> list[Mistake]:
    first: dict[int, Mistake] = {}
    for mistake in mistakes:
        first.setdefault(mistake.image, mistake)
    return list(first.values())[:most]
