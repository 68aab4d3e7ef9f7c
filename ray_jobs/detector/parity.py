"""Proves on real images that an exported detector finds what the trained one finds.

In: both networks and the samples of a split. Out: a ``ParityReport``, or an ExportError with the difference.

Two things are compared. Candidates, before suppression, anchor by anchor on a few images: there the two networks must
give the same numbers, and no box is left out of the comparison because suppression or a threshold took another one of
two near-equal boxes. And mAP, after suppression, on all images.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.dataset.samples import Sample
from ray_jobs.detector.evaluation import Evaluation, batches, detect, evaluate
from ray_jobs.errors import ExportError
from ray_jobs.reading.finding import Forward

SCORE_TOLERANCE = 0.001  # of 0..1; fp32 networks that agree differ by about a millionth
BOX_TOLERANCE = 0.5  # pixels of the network's input; agreeing networks differ by about a thousandth
MAP_TOLERANCE = 0.002
LOWEST_SCORE = 0.05  # candidates below it on both sides are shown to nobody; mAP looks at them all the same
IMAGES = 32  # compared anchor by anchor, spread evenly over the split


@dataclass(frozen=True)
class ParityReport:
    """How far the exported detector is from the trained one.

    On ``images`` real pictures ``candidates`` were compared anchor by anchor; ``score_difference`` (0..1) and
    ``box_difference`` (pixels of the network's input) are the largest seen. The mAP differences are absolute and of the
    whole split, None where it has no boxes.
    """

    images: int
    candidates: int
    score_difference: float
    box_difference: float
    map50_difference: float | None
    map50_95_difference: float | None

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def check_parity(
    pt_forward: Forward,
    onnx_forward: Forward,
    samples: Sequence[Sample],
    names: Sequence[str],
    size: int,
    *,
    batch: int = 16,
    pt_evaluation: Evaluation | None = None,
) -> ParityReport:
    """Compare the exported network with the trained one on real images.

    ``pt_evaluation`` is what ``evaluate`` gave for ``detect(pt_forward, samples, size)``; a caller that has it saves
    the trained network's second run over all samples. Raises ExportError, naming the first image that differs or the
    difference in mAP.
    """
    spread = np.unique(np.linspace(0, len(samples) - 1, min(IMAGES, len(samples))).round().astype(int))
    chosen = [samples[number] for number in spread]
    candidates, score, box = _compare_candidates(pt_forward, onnx_forward, chosen, names, size, batch)
    before = pt_evaluation or evaluate(detect(pt_forward, samples, size, batch), samples, names)
    after = evaluate(detect(onnx_forward, samples, size, batch), samples, names)
    map50, map50_95 = _difference(before.map50, after.map50), _difference(before.map50_95, after.map50_95)
    for metric, value in (("mAP50", map50), ("mAP50-95", map50_95)):
        if value is not None and not value <= MAP_TOLERANCE:
            raise ExportError(
                f"export: {metric} of the ONNX model differs from the trained one's by {value:.4f} on {len(samples)} "
                f"images, more than {MAP_TOLERANCE}; do not use the file, export again"
            )
    return ParityReport(len(chosen), candidates, score, box, map50, map50_95)


def _compare_candidates(
    pt_forward: Forward, onnx_forward: Forward, samples: Sequence[Sample], names: Sequence[str], size: int, batch: int
) -> tuple[int, float, float]:
    """Number of candidates, largest difference in score and in box; ExportError at the first image out of tolerance."""
    count, worst_score, worst_box = 0, 0.0, 0.0
    waiting = iter(samples)
    for pixels, _ in batches(samples, size, batch):
        trained, exported = pt_forward(pixels), onnx_forward(pixels)
        if trained.shape != exported.shape:
            raise ExportError(f"export: the ONNX model gives {exported.shape}, the trained one {trained.shape}")
        for ours, theirs in zip(trained, exported, strict=True):
            sample = next(waiting)
            # Written so that NaN, which compares false with everything, does not pass.
            apart = ~(np.abs(ours[4:] - theirs[4:]) <= SCORE_TOLERANCE)
            seen = ~(np.maximum(ours[4:], theirs[4:]).max(axis=0) < LOWEST_SCORE)
            moved = ~(np.abs(ours[:4] - theirs[:4]).max(axis=0) <= BOX_TOLERANCE)
            wrong = seen & (apart.any(axis=0) | moved)
            if wrong.any():
                anchor = int(wrong.argmax())
                raise ExportError(
                    f"{sample.image}: the ONNX model finds {_describe(theirs[:, anchor], names)}, the trained one "
                    f"{_describe(ours[:, anchor], names)}, and {int(wrong.sum()) - 1} more differ by over "
                    f"{SCORE_TOLERANCE} in score or {BOX_TOLERANCE} px; do not use the file, export again"
                )
            count += int(seen.sum())
            worst_score = max(worst_score, float(np.abs(ours[4:] - theirs[4:])[:, seen].max(initial=0)))
            worst_box = max(worst_box, float(np.abs(ours[:4] - theirs[:4])[:, seen].max(initial=0)))
    return count, worst_score, worst_box


def _describe(candidate: npt.NDArray[np.float32], names: Sequence[str]) -> str:
    best = int(candidate[4:].argmax())
    x, y, width, height = candidate[:4]
    return f"{names[best]} {candidate[4 + best]:.4f} at ({x:.1f}, {y:.1f}), {width:.1f} x {height:.1f} px"


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else abs(before - after)
