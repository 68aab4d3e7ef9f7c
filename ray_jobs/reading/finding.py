"""What a picture is read into: findings, by any network that can be called.

In: pictures and a network's forward function. Out: findings per picture. ``reader`` puts an ONNX file behind this,
``ray_jobs.detector.evaluation`` a PyTorch model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.pixels import to_gray8
from ray_jobs.reading.decode import Detections, Threshold, decode
from ray_jobs.reading.preprocess import Placement, fit_square, network_input

DEFAULT_THRESHOLD = 0.25
DEFAULT_IOU = 0.7  # overlap above which the lesser of two boxes of one class goes; Ultralytics' default
BATCH = 16  # pictures per call of the network: enough to keep it busy, small enough for any memory

Forward = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""A network: float32 pictures ``(B, 3, S, S)`` in 0..1 to the raw head output ``(B, 4 + classes, anchors)``."""


@dataclass(frozen=True)
class Finding:
    """Something found: its class, a score in 0..1, and its box x1, y1, x2, y2 in pixels of the picture."""

    label: str
    score: float
    box: tuple[float, float, float, float]

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON, rounded for people: ``{"label": ..., "score": ..., "box": [x1, y1, x2, y2]}``."""
        return {"label": self.label, "score": round(self.score, 4), "box": [round(edge, 1) for edge in self.box]}


@dataclass(frozen=True)
class Prepared:
    """A picture on its way into the network: its square (uint8, ``(S, S)``), and where in it the original lies."""

    square: npt.NDArray[np.uint8]
    placement: Placement


def to_findings(found: Detections, names: Sequence[str]) -> list[Finding]:
    """Detections of one picture, in its pixels, as findings."""
    return [
        Finding(names[label], float(score), (float(box[0]), float(box[1]), float(box[2]), float(box[3])))
        for box, score, label in zip(found.boxes, found.scores, found.classes, strict=True)
    ]


def find(
    forward: Forward,
    images: Sequence[npt.NDArray[Any]],
    names: Sequence[str],
    image_size: int,
    threshold: Threshold = DEFAULT_THRESHOLD,
    iou: float = DEFAULT_IOU,
) -> list[list[Finding]]:
    """Read pictures with any network: the findings of each, best first.

    ``images`` may differ in size, depth and colour. ``threshold`` is one score in 0..1, or one for each class.
    """
    findings: list[list[Finding]] = []
    for start in range(0, len(images), BATCH):
        prepared = [prepare(to_gray8(image), image_size) for image in images[start : start + BATCH]]
        findings += find_prepared(forward, prepared, names, threshold, iou)
    return findings


def prepare(gray: npt.NDArray[np.uint8], image_size: int) -> Prepared:
    """A gray picture ``(H, W)``, made ready for a network that works at ``image_size`` pixels."""
    return Prepared(*fit_square(gray, image_size))


def find_prepared(
    forward: Forward, pictures: Sequence[Prepared], names: Sequence[str], threshold: Threshold, iou: float
) -> list[list[Finding]]:
    """``find``, in one call of the network, for pictures that were prepared before."""
    if not pictures:
        return []
    output = forward(network_input([picture.square for picture in pictures]))
    return [
        findings_in(raw, picture.placement, names, threshold, iou)
        for raw, picture in zip(output, pictures, strict=True)
    ]


def findings_in(
    output: npt.NDArray[np.float32], placement: Placement, names: Sequence[str], threshold: Threshold, iou: float
) -> list[Finding]:
    """The findings in the network's output for one picture, ``(4 + classes, anchors)``."""
    (found,) = decode(output[None], threshold, iou)
    return to_findings(Detections(placement.to_original(found.boxes), found.scores, found.classes), names)
