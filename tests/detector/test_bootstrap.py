import time

import numpy as np
import pytest

from ray_jobs.detector.bootstrap import RATE_NAMES, compare, intervals, patients_of
from ray_jobs.detector.match_statistics import MatchStatistics
from ray_jobs.errors import DataError

NAMES = ("Common", "Rare")


def simulate(
    images: int, random: np.random.Generator, skill: float = 1.0, false_alarms: float = 3.0
) -> MatchStatistics:
    """A detector that finds 60 % of the boxes, with scores that are higher by ``skill`` than those of false alarms."""
    boxes = (random.random((images, 2)) < (0.5, 0.2)).astype(int)
    boxes += boxes * (random.random(boxes.shape) < 0.3)
    return detect(boxes, random, skill, false_alarms)


def detect(boxes: np.ndarray, random: np.random.Generator, skill: float, false_alarms: float = 3.0) -> MatchStatistics:
    where, label = (np.repeat(part, boxes[boxes > 0]) for part in np.nonzero(boxes))
    found = random.random(len(where)) < 0.6
    where, label = where[found], label[found]
    false = np.repeat(np.arange(len(boxes)), random.poisson(false_alarms, len(boxes)))
    scores = np.concatenate([random.normal(skill, 1, len(where)), random.normal(-1, 1, len(false))])
    order = np.argsort(-scores)
    hits = np.arange(10) < np.concatenate([random.integers(1, 11, len(where)), np.zeros(len(false), int)])[:, None]
    return MatchStatistics(
        NAMES,
        boxes,
        np.concatenate([where, false])[order],
        np.concatenate([label, random.integers(0, 2, len(false))])[order],
        1 / (1 + np.exp(-scores[order])),
        hits[order],
        hits[order, 0].astype(np.int8),
    )


def test_95_of_100_intervals_hold_the_truth() -> None:
    random = np.random.default_rng(0)
    whole = [simulate(4000, random) for _ in range(5)]
    truth = {
        figure: np.mean([getattr(one.measure(np.ones((1, 4000))), figure)[0] for one in whole], axis=0)
        for figure in ("map50", "map50_95", "ap50", "sensitivity", "image_auc")
    }
    held: dict[str, list[bool]] = {}
    for seed in range(200):
        found = intervals(simulate(120, random), resamples=300, seed=seed)
        for name, interval, value in (
            ("mAP50", found.map50, truth["map50"]),
            ("mAP50-95", found.map50_95, truth["map50_95"]),
            ("AP50 of the common class", found.per_class["Common"]["map50"], truth["ap50"][0]),
            ("AP50 of the rare class", found.per_class["Rare"]["map50"], truth["ap50"][1]),
            ("sensitivity", found.sensitivity["1"], truth["sensitivity"][RATE_NAMES.index("1")]),
            ("AUC", found.image_auc, truth["image_auc"]),
        ):
            assert interval is not None
            held.setdefault(name, []).append(interval[0] <= value <= interval[1])
    share = {name: np.mean(flags) for name, flags in held.items()}
    assert all(0.88 <= value <= 0.995 for value in share.values()), share


def test_the_interval_shrinks_with_more_images() -> None:
    few, many = (intervals(simulate(images, np.random.default_rng(1))).map50 for images in (100, 1600))
    assert few is not None
    assert many is not None
    assert (many[1] - many[0]) * 2.5 < few[1] - few[0]


def test_patients_with_several_images_make_intervals_wider() -> None:
    one_each = simulate(60, np.random.default_rng(2))
    copies = np.tile(np.arange(60), 5)  # five images of each patient, all alike
    order = np.argsort(np.tile(-one_each.scores, 5), kind="stable")
    shift = np.repeat(np.arange(5) * 60, len(one_each.image))
    columns = {name: np.concatenate([getattr(one_each, name)] * 5) for name in ("classes", "scores", "hits", "marks")}
    fivefold = MatchStatistics(
        NAMES,
        np.concatenate([one_each.boxes] * 5),
        (np.tile(one_each.image, 5) + shift)[order],
        **{name: column[order] for name, column in columns.items()},
    )
    patients = [f"patient {number}" for number in copies]
    by_patient, by_image, truth = intervals(fivefold, patients), intervals(fivefold), intervals(one_each)
    assert (by_patient.over, by_patient.drawn, by_image.over, by_image.drawn) == ("patients", 60, "images", 300)
    assert by_patient.map50 == pytest.approx(truth.map50, abs=0.03)
    assert by_image.map50 is not None
    assert by_patient.map50 is not None
    assert by_image.map50[1] - by_image.map50[0] < 0.7 * (by_patient.map50[1] - by_patient.map50[0])


def test_a_better_model_wins_and_an_equal_one_does_not() -> None:
    random = np.random.default_rng(3)
    boxes = simulate(200, random).boxes
    champion = detect(boxes, random, skill=0.3)
    better = compare(detect(boxes, random, skill=2.0), champion)
    assert better.map50 is not None
    assert better.map50.low > 0
    assert better.map50.better > 0.99
    assert better.map50.p_value < 0.02
    worse = compare(champion, detect(boxes, random, skill=2.0))
    assert worse.map50 is not None
    assert worse.map50.high < 0
    assert worse.map50.better < 0.01
    same = compare(champion, champion)
    for difference in (same.map50, same.map50_95, same.sensitivity, *same.per_class.values()):
        assert difference is not None
        assert vars(difference) == {"value": 0.0, "low": 0.0, "high": 0.0, "better": 0.5, "p_value": 1.0}


def test_equal_models_are_told_apart_in_5_of_100_cases() -> None:
    random = np.random.default_rng(4)
    rejected = []
    for seed in range(150):
        boxes = simulate(100, random).boxes
        found = compare(detect(boxes, random, 1.0), detect(boxes, random, 1.0), resamples=300, seed=seed).map50
        assert found is not None
        assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high) or abs(found.p_value - 0.05) < 0.02
        rejected.append(found.p_value < 0.05)
    assert 0.0 < np.mean(rejected) < 0.12


def test_models_measured_on_different_images_are_not_compared() -> None:
    one, other = (simulate(50, np.random.default_rng(seed)) for seed in (5, 6))
    with pytest.raises(DataError, match="not measured on the same images"):
        compare(one, other)


def test_what_cannot_be_measured_has_no_interval() -> None:
    boxes = np.zeros((20, 2), int)
    boxes[3, 0] = 1  # one image with boxes, of one class
    found = intervals(detect(boxes, np.random.default_rng(7), 1.0))
    assert (
        found.map50 is found.image_auc is found.per_class["Common"]["map50"] is found.per_class["Rare"]["map50"] is None
    )
    nothing = intervals(detect(boxes * 0, np.random.default_rng(8), 1.0))
    assert nothing.map50 is nothing.sensitivity["mean"] is None
    silent = intervals(detect(simulate(20, np.random.default_rng(9)).boxes, np.random.default_rng(9), 1.0, 0.0))
    assert silent.map50 is not None


def test_a_detector_that_finds_nothing_is_surely_worth_nothing() -> None:
    boxes = simulate(30, np.random.default_rng(10)).boxes
    none = np.zeros(0, int)
    silent = MatchStatistics(NAMES, boxes, none, none, none.astype(float), np.zeros((0, 10), bool), none)
    found = intervals(silent)
    assert found.map50 == found.sensitivity["8"] == (0.0, 0.0)
    assert found.image_auc == (0.5, 0.5)


def test_patients_are_read_from_file_names() -> None:
    names = ["00012_001.png", "00012_002.png", "00013_001.png", "scan.png"]
    patients = patients_of(names, r"^(\d+)_")
    assert patients is not None
    assert patients[0] == patients[1] != patients[2]
    assert len(set(patients)) == 3
    assert patients_of(names, None) is None


def test_a_thousand_draws_take_less_than_evaluating_once() -> None:
    boxes = np.random.default_rng(11).integers(0, 2, (212, 2))
    statistics = detect(boxes, np.random.default_rng(11), 1.0, false_alarms=299)
    began = time.perf_counter()
    intervals(statistics)
    assert time.perf_counter() - began < 5  # 0.2 s on a quiet core
