import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ray_jobs.detector.froc import RATES, froc, image_auc, overlaps
from ray_jobs.reading.decode import Detections

NAMES = ("Mass", "Nodule")


def detections(*rows: tuple[int, float, float]) -> Detections:
    """Boxes 10 x 10 px in a row: (class, left edge, score)."""
    boxes = np.array([(left, 0, left + 10, 10) for _, left, _ in rows], dtype=np.float32).reshape(-1, 4)
    scores = np.array([score for _, _, score in rows], dtype=np.float32)
    return Detections(boxes, scores, np.array([label for label, _, _ in rows], dtype=np.int64))


def test_an_example_computed_by_hand() -> None:
    truths = [detections((0, 0, 1), (1, 100, 1)), detections((0, 0, 1)), detections(), detections()]
    found = [
        detections((0, 1, 0.9), (0, 2, 0.8), (0, 100, 0.6)),  # hit; hit again, ignored; wrong class, false
        detections((0, 50, 0.7), (0, 0, 0.5)),  # false; hit
        detections((1, 0, 0.4)),  # false
        detections(),
    ]
    result = froc(found, truths, NAMES)
    # Falling scores: 0.9 hit, 0.8 ignored, 0.7 false, 0.6 false, 0.5 hit, 0.4 false; 4 images, 3 boxes.
    assert result.overall is not None
    assert result.overall.rates.tolist() == [0, 0, 0, 0.25, 0.5, 0.5, 0.75]
    assert np.allclose(result.overall.sensitivity, np.array([0, 1, 1, 1, 1, 2, 2]) / 3)
    points = result.as_dict()["sensitivity"]
    assert points["0.125"] == points["0.25"] == pytest.approx(1 / 3)
    assert points["0.5"] == points["8"] == pytest.approx(2 / 3)
    assert points["mean"] == pytest.approx((2 * 1 / 3 + 5 * 2 / 3) / 7)
    # Masses alone: two boxes, both hit, the second behind two false positives in four images.
    assert result.as_dict()["per_class"]["Mass"]["0.25"] == pytest.approx(0.5)
    assert result.as_dict()["per_class"]["Mass"]["0.5"] == pytest.approx(1.0)
    assert result.as_dict()["per_class"]["Nodule"]["8"] == 0.0


@pytest.mark.parametrize(("left", "hit"), [(3.3, 1.0), (3.4, 0.0)])
def test_a_hit_needs_an_iou_of_one_half(left: float, hit: float) -> None:
    result = froc([detections((0, left, 0.9))], [detections((0, 0, 1))], NAMES)
    assert result.as_dict()["sensitivity"]["8"] == hit


def test_one_detection_hits_one_box() -> None:
    truth = detections((0, 0, 1), (0, 3, 1))
    assert froc([detections((0, 1, 0.9))], [truth], NAMES).as_dict()["sensitivity"]["8"] == 0.5
    both = froc([detections((0, 1, 0.9), (0, 2, 0.8))], [truth], NAMES)
    assert both.as_dict()["sensitivity"]["0.125"] == 1.0


def test_detections_of_equal_score_enter_together() -> None:
    found = [detections((0, 0, 0.5), (0, 50, 0.5))]
    assert froc(found, [detections((0, 0, 1))], NAMES).as_dict()["sensitivity"]["0.5"] == 0.0
    assert froc(found, [detections((0, 0, 1))], NAMES).as_dict()["sensitivity"]["1"] == 1.0


def test_without_boxes_there_is_no_sensitivity() -> None:
    result = froc([detections((0, 0, 0.5))], [detections()], NAMES).as_dict()
    assert result["sensitivity"] is None
    assert result["per_class"] == {"Mass": None, "Nodule": None}


def test_nothing_found_is_a_sensitivity_of_zero() -> None:
    result = froc([detections()], [detections((0, 0, 1))], NAMES).as_dict()
    assert result["sensitivity"]["8"] == 0.0
    assert result["per_class"]["Nodule"] is None


rows = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 60).map(float), st.sampled_from([0.1, 0.3, 0.5, 0.9])))
images = st.lists(st.tuples(rows, rows), min_size=1, max_size=5)


@given(images)
@settings(max_examples=60, deadline=None)
def test_more_false_positives_never_cost_sensitivity(drawn: list[tuple[list, list]]) -> None:
    found, truths = [detections(*one) for one, _ in drawn], [detections(*one) for _, one in drawn]
    result = froc(found, truths, NAMES)
    for curve in (result.overall, *result.per_class.values()):
        if curve is not None:
            points = [curve.at(rate) for rate in RATES]
            assert points == sorted(points)
            assert points[0] >= 0
            assert points[-1] <= 1
            assert (np.diff(curve.rates) >= 0).all()


@given(images)
@settings(max_examples=30, deadline=None)
def test_the_truth_as_detections_finds_everything(drawn: list[tuple[list, list]]) -> None:
    # One box per place, so that no two true boxes overlap.
    truths = [
        detections(*{left // 12: (label, left // 12 * 12, 1.0) for label, left, _ in one}.values()) for one, _ in drawn
    ]
    result = froc(truths, truths, NAMES)
    if any(len(truth) for truth in truths):
        assert result.as_dict()["sensitivity"]["0.125"] == 1.0


def test_overlaps() -> None:
    first = np.array([[0, 0, 10, 10], [5, 5, 5, 5]], dtype=np.float32)
    second = np.array([[5, 0, 15, 10], [20, 20, 30, 30]], dtype=np.float32)
    assert np.allclose(overlaps(first, second), [[1 / 3, 0], [0, 0]])


def test_image_auc_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    scores, positive = random.integers(0, 6, 80) / 5, random.random(80) < 0.4
    value, missing = image_auc(scores.tolist(), positive.tolist())
    assert value == pytest.approx(roc_auc_score(positive, scores))
    assert missing is None


@pytest.mark.parametrize(("positive", "kind"), [(True, "without"), (False, "with")])
def test_image_auc_says_what_is_missing(positive: bool, kind: str) -> None:
    assert image_auc([0.5, 0.2], [positive] * 2) == (None, f"no image {kind} findings in this split")
