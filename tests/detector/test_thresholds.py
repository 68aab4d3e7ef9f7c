"""The score from which on a finding counts: best F1 by class, and a rule where there is little to go by."""

from types import SimpleNamespace

import numpy as np
import pytest

from ray_jobs.detector.thresholds import FEWEST_BOXES, HIGHEST, LOWEST, choose_thresholds
from ray_jobs.reading.finding import DEFAULT_THRESHOLD

SCORES = np.linspace(0, 1, 1000)


def peak(at: float) -> np.ndarray:
    """An F1 curve that is best at one score."""
    return np.clip(0.8 - np.abs(SCORES - at), 0, 1)


def chosen(curves: dict[str, np.ndarray], boxes: dict[str, int]) -> dict[str, float]:
    evaluation = SimpleNamespace(
        curves=SimpleNamespace(f1=curves), per_class={name: {"boxes": count} for name, count in boxes.items()}
    )
    return choose_thresholds(evaluation)  # type: ignore[arg-type]


def test_each_class_gets_the_score_of_its_best_f1() -> None:
    found = chosen({"Mass": peak(0.3), "Nodule": peak(0.6)}, {"Mass": FEWEST_BOXES, "Nodule": 200})
    assert found == pytest.approx({"Mass": 0.3, "Nodule": 0.6}, abs=0.002)


def test_the_middle_is_taken_where_many_scores_are_equally_good() -> None:
    plateau = np.where((SCORES > 0.2) & (SCORES < 0.6), 0.9, 0.1)
    assert chosen({"Mass": plateau}, {"Mass": 50})["Mass"] == pytest.approx(0.4, abs=0.01)


def test_a_class_with_few_boxes_takes_the_score_of_the_others_together() -> None:
    curves = {"Mass": peak(0.4), "Nodule": peak(0.4), "Rare": peak(0.8)}
    found = chosen(curves, {"Mass": 50, "Nodule": 60, "Rare": FEWEST_BOXES - 1, "Absent": 0})
    assert found == pytest.approx(dict.fromkeys(("Mass", "Nodule", "Rare", "Absent"), 0.4), abs=0.002)


def test_nothing_to_go_by_is_the_default() -> None:
    never_hit = np.zeros(1000)
    assert chosen({"Mass": never_hit, "Rare": peak(0.5)}, {"Mass": 50, "Rare": 2}) == {
        "Mass": DEFAULT_THRESHOLD,
        "Rare": DEFAULT_THRESHOLD,
    }


@pytest.mark.parametrize(("at", "limit"), [(0.01, LOWEST), (0.99, HIGHEST)])
def test_scores_stay_within_limits(at: float, limit: float) -> None:
    assert chosen({"Mass": peak(at)}, {"Mass": 50})["Mass"] == pytest.approx(limit, abs=0.001)
