"""From the raw output of a YOLO12 head to boxes: thresholds and box suppression, in numpy.

In: the head's output ``(B, 4 + classes, anchors)``: centre x, centre y, width, height in input pixels, then one score
in 0..1 per class. Out: for each picture the boxes that remain, best score first.

The semantics are those of ``ultralytics.utils.nms.non_max_suppression``, which the tests compare with.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_DETECTIONS = 300  # boxes kept per picture, Ultralytics' default
MAX_CANDIDATES = 30_000  # candidates that enter suppression per picture, Ultralytics' default

Threshold = float | npt.NDArray[np.float32]


@dataclass(frozen=True)
class Detections:
    """What was found in one picture: ``boxes`` float32 (n, 4), x1, y1, x2, y2 in pixels; ``scores`` float32 (n,) in
    0..1; ``classes`` int64 (n,)."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: npt.NDArray[np.intp]) -> "Detections":
        """The boxes at these positions, in this order."""
        return Detections(self.boxes[index], self.scores[index], self.classes[index])


def candidates(output: npt.NDArray[np.float32], threshold: Threshold, multi_label: bool = False) -> Detections:
    """All boxes of one picture above the threshold, unsorted and before suppression.

    ``output`` is ``(4 + classes, anchors)``; ``threshold`` one number for all classes, or one for each. With
    ``multi_label`` a box counts once for every class above its threshold (how mAP is measured), else only for its
    best one (how a picture is read).
    """
    scores = output[4:]
    limits = np.broadcast_to(np.asarray(threshold, dtype=np.float32), scores.shape[:1])[:, None]
    # Most anchors are far below every threshold: leave them behind before anything is copied or sorted.
    above = scores > limits
    anchors = np.flatnonzero(above.any(axis=0))
    found, passed = scores[:, anchors].T, above[:, anchors].T
    if multi_label:
        row, classes = np.nonzero(passed)
    else:
        row, classes = np.arange(len(anchors)), np.where(passed, found, -1).argmax(axis=1)
    centre_x, centre_y, width, height = output[:4, anchors[row]]
    half_width, half_height = width / 2, height / 2
    corners = (centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height)
    xyxy = np.stack(corners, axis=1).astype(np.float32)
    return Detections(xyxy, found[row, classes].astype(np.float32), classes.astype(np.int64))


def suppress(found: Detections, iou: float, max_detections: int = MAX_DETECTIONS) -> Detections:
    """Greedy non-maximum suppression within each class, best score first.

    A box goes when a better one of its own class overlaps it by more than ``iou`` (intersection over union, 0..1).
    At most ``max_detections`` remain.
    """
    order = np.argsort(-found.scores, kind="stable")[:MAX_CANDIDATES]
    ranked = found.take(order)
    members = {int(label): np.flatnonzero(ranked.classes == label) for label in np.unique(ranked.classes)}
    left, top, right, bottom = ranked.boxes.T
    areas = (right - left) * (bottom - top)
    alive = np.ones(len(ranked), dtype=bool)
    kept: list[int] = []
    for best in range(len(ranked)):
        if not alive[best]:
            continue
        kept.append(best)
        if len(kept) == max_detections:
            break
        rivals = members[int(ranked.classes[best])]
        rivals = rivals[np.searchsorted(rivals, best) + 1 :]
        rivals = rivals[alive[rivals]]
        members[int(ranked.classes[best])] = rivals
        width = np.minimum(right[best], right[rivals]) - np.maximum(left[best], left[rivals])
        height = np.minimum(bottom[best], bottom[rivals]) - np.maximum(top[best], top[rivals])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        union = areas[best] + areas[rivals] - shared
        # Comparing products avoids dividing by the empty union of two boxes without area.
        alive[rivals[shared > np.float64(iou) * union]] = False
    return ranked.take(np.asarray(kept, dtype=np.intp))


def decode(
    output: npt.NDArray[np.float32],
    threshold: Threshold,
    iou: float,
    multi_label: bool = False,
    max_detections: int = MAX_DETECTIONS,
) -> list[Detections]:
    """The boxes that remain for each picture of a batch ``(B, 4 + classes, anchors)``, in input pixels."""
    return [suppress(candidates(one, threshold, multi_label), iou, max_detections) for one in output]
