from collections.abc import Sequence

import numpy as np

from ray_jobs.detector.detections_file import SplitDetections
from ray_jobs.detector.mistakes import find_mistakes
from ray_jobs.reading.decode import Detections

NAMES = ("Mass", "Nodule")
Row = tuple[int, float, float]


def boxes(*rows: Row, size: float = 10) -> Detections:
    """Squares in a row: (class, left edge, score)."""
    corners = np.array([(left, 0, left + size, size) for _, left, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, _, score in rows], np.float32)
    return Detections(corners, scores, np.array([label for label, _, _ in rows], np.int64))


def split(found: Sequence[Detections], true: Sequence[Detections]) -> SplitDetections:
    images = tuple(f"{number}.png" for number in range(len(true)))
    return SplitDetections("test", "f", NAMES, images, tuple(found), tuple(true))


def test_each_kind_of_mistake_is_named() -> None:
    true = [boxes((0, 0, 1), (1, 100, 1))] * 5 + [boxes()]
    found = [
        boxes((0, 0, 0.9), (1, 100, 0.8)),  # all right
        boxes((0, 0, 0.9), (0, 100, 0.7)),  # the nodule is taken for a mass
        boxes((0, 0, 0.9), (1, 104, 0.6)),  # seen, but placed badly
        boxes((0, 0, 0.9), (1, 100, 0.1)),  # below the threshold
        boxes((0, 0, 0.9), (1, 300, 0.5)),  # elsewhere
        boxes((1, 50, 0.4)),  # in an image without findings
    ]
    result = find_mistakes(split(found, true))
    assert (result.boxes, result.hits, result.alarms, result.images_with_alarms) == (10, 6, 4, 4)
    causes = {mistake.image: mistake.cause for mistake in result.worst_misses}
    assert causes == {
        1: "taken for Mass (0.70)",
        2: "seen, but boxed elsewhere (IoU 0.43)",
        3: "below the threshold, with a score of 0.10",
        4: "not seen at any score",
    }
    assert result.worst_misses[-1].image == 3  # a little of it was seen
    assert [(alarm.image, alarm.label, alarm.cause) for alarm in result.worst_alarms] == [
        (1, "Mass", "what is there is Nodule"),
        (2, "Nodule", "badly placed (IoU 0.43)"),
        (4, "Nodule", "nothing is labelled there"),
        (5, "Nodule", "an image without findings"),
    ]


def test_of_two_unseen_boxes_the_larger_is_worse_and_an_image_comes_once() -> None:
    true = [boxes((0, 0, 1)), boxes((0, 0, 1), size=40), boxes((0, 0, 1), (1, 50, 1))]
    result = find_mistakes(split([boxes()] * 3, true), most=2)
    assert [mistake.image for mistake in result.worst_misses] == [1, 0]
    images = [mistake.image for mistake in find_mistakes(split([boxes()] * 3, true)).worst_misses]
    assert sorted(images) == [0, 1, 2]
    assert result.worst_alarms == []


def test_every_class_may_have_its_own_threshold() -> None:
    true, found = [boxes((0, 0, 1), (1, 100, 1))], [boxes((0, 0, 0.3), (1, 100, 0.3))]
    assert find_mistakes(split(found, true), np.array([0.2, 0.4])).hits == 1
    assert find_mistakes(split(found, true), 0.2).hits == 2
