"""The part of a run's report that shows mistakes: missed boxes and false alarms, as pictures with both boxes.

In: what was detected in the assessed split, and its X-rays. Out: ``Html``. At most ``samples`` X-rays are shown.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.errors import PlatformError
from ray_jobs.flows.assessment import Assessment
from ray_jobs.pixels import read_image
from ray_jobs.reading.finding import DEFAULT_THRESHOLD
from ray_jobs.report.page import Html, element, figure, grid, join, section
from ray_jobs.report.xray import Box, xray

if TYPE_CHECKING:
    from ray_jobs.detector.detections_file import SplitDetections
    from ray_jobs.detector.mistakes import Mistake

MOST = 6  # pictures of each kind
HEADING = "Worst mistakes"


def mistakes_section(assessment: Assessment, index: DatasetIndex, samples: int) -> Html:
    """What is found at the thresholds in numbers, and the worst mistakes in pictures."""
    from ray_jobs.detector.mistakes import find_mistakes

    split = assessment.detections
    if split is None or not any(map(len, split.truths)):
        return section(HEADING, lead=f"Nothing to compare with: the {assessment.split} split has no boxes.")
    scores = [assessment.thresholds.get(name, DEFAULT_THRESHOLD) for name in split.names]
    found = find_mistakes(split, np.array(scores, np.float32), MOST)
    low, high = min(scores), max(scores)
    start = f"From a score of {low:g} on" if low == high else f"From a score of {low:.2f} to {high:.2f} on, by class"
    counted = (
        f"{start}, {found.hits} of {found.boxes} true boxes are found. False alarms: {found.alarms}, in "
        f"{found.images_with_alarms} of {len(split.images)} images."
    )
    if not samples:
        return section(HEADING, lead=f"{counted} No X-rays are shown, because samples=0 asks for none.")
    alarms = found.worst_alarms[: samples // 2]
    misses = found.worst_misses[: samples - len(alarms)]
    key = join(
        [
            f"{counted} ",
            element("b", "Dashed blue", style="color:var(--c0)"),
            " is the truth, ",
            element("b", "solid orange", style="color:var(--c1)"),
            " what was found, with its score.",
        ]
    )
    return section(
        HEADING,
        _pictures("Missed, those least seen first", misses, split, index),
        _pictures("False alarms, the surest first", alarms, split, index),
        lead=key,
    )


def _pictures(heading: str, mistakes: "list[Mistake]", split: "SplitDetections", index: DatasetIndex) -> Html:
    if not mistakes:
        return element("p", f"{heading.split(',')[0]}: none.", class_="none")
    shown = [_picture(mistake, split, index) for mistake in mistakes]
    return join([element("h3", heading), grid(*shown, class_="pictures")])


def _picture(mistake: "Mistake", split: "SplitDetections", index: DatasetIndex) -> Html:
    true, found = split.truths[mistake.image], mistake.found
    boxes = [
        Box(_corners(true.boxes[at]), split.names[label], true=True, strong=(mistake.kind, mistake.box) == ("miss", at))
        for at, label in enumerate(true.classes)
    ]
    for at, label in enumerate(found.classes):
        name = f"{split.names[label]} {found.scores[at]:.2f}"
        boxes.append(Box(_corners(found.boxes[at]), name, False, (mistake.kind, mistake.box) == ("alarm", at)))
    score = f" {mistake.score:.2f}" if mistake.kind == "alarm" else ""
    caption = join(
        [element("b", f"{mistake.label}{score}"), f": {mistake.cause}. ", element("code", split.images[mistake.image])]
    )
    try:
        gray = read_image(index.splits[split.split][mistake.image].image)
    except (OSError, PlatformError) as error:  # the X-ray is gone or unreadable by now
        return figure(element("p", f"The X-ray could not be read: {error}"), caption)
    return figure(xray(gray, boxes, f"{mistake.label}: {mistake.cause}"), caption)


def _corners(box: npt.NDArray[np.float32]) -> tuple[float, float, float, float]:
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom
