from typing import Any

import pytest

from ray_jobs.flows.journal import Epoch
from ray_jobs.flows.report.verdict import judge, ranked_classes, trend_of

TRAINED = {"Mass": 400, "Nodule": 30}


def measured(mass: float | None = 0.8, nodule: float | None = 0.7, **changes: Any) -> dict[str, Any]:
    known = [value for value in (mass, nodule) if value is not None]
    mean = sum(known) / len(known) if known else None
    plain = {
        "images": 200,
        "map50": mean,
        "map50_ci": [mean - 0.05, mean + 0.05] if mean is not None else None,
        "per_class": {"Mass": {"map50": mass}, "Nodule": {"map50": nodule}},
        "froc": {"sensitivity": {"1": 0.75} if known else None},
    }
    return plain | changes


def epochs(scores: list[float]) -> list[Epoch]:
    return [Epoch(number, 1, 0.0, 1.0, {"val/map50_95": score}) for number, score in enumerate(scores, 1)]


LEVEL = epochs([0.1, 0.3, 0.5, 0.5, 0.5, 0.5])


def test_a_good_run_needs_no_advice() -> None:
    verdict = judge(measured(), "test", LEVEL, 6, 6, TRAINED)
    assert verdict.tone == "good"
    assert verdict.advice == []
    assert verdict.sentence.replace("\u00a0", " ") == (
        "Finds 75 % of the true boxes at one false alarm per image; mAP50 0.75 (95 % interval 0.70 to 0.80) on 200 "
        "test images. Weakest is Nodule (AP50 0.70)."
    )


@pytest.mark.parametrize(
    ("scores", "trend"),
    [
        ([0.1, 0.2], "unknown"),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "rising"),
        ([0.1, 0.5, 0.52, 0.51, 0.52, 0.52], "level"),
        ([0.1, 0.6, 0.5, 0.5, 0.3, 0.3], "falling"),
        ([0.0] * 10, "level"),
    ],
)
def test_trends(scores: list[float], trend: str) -> None:
    assert trend_of(scores) == trend


@pytest.mark.parametrize(
    ("figures", "run", "wanted", "advice"),
    [
        (measured(), epochs([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), 6, "Train longer"),
        (measured(), epochs([0.5]), 1, "1 epoch say"),
        (measured(), epochs([0.1, 0.6, 0.5, 0.5, 0.3, 0.3]), 6, "More epochs will not help: epoch 2 of 6"),
        (measured(), LEVEL, 50, "Stopped after 6 of 50 epochs"),
        (measured(0.9, 0.2), LEVEL, 6, "Label more Nodule: the model has seen 30 boxes"),
        (measured(0.2, 0.9), LEVEL, 6, "Look at the missed Mass"),
        (measured(0.9, None), LEVEL, 6, "Nothing is known about Nodule"),
        (measured(map50_ci=[0.5, 0.9]), LEVEL, 6, "known to about ± 0.20"),
        (measured(0.001, 0.001), LEVEL, 6, "pretrained weights"),
        (measured(None, None), LEVEL, 6, "Add labelled X-rays to the test split"),
    ],
)
def test_advice_is_given_where_it_helps(figures: dict[str, Any], run: list[Epoch], wanted: int, advice: str) -> None:
    best = max(run, key=lambda epoch: epoch.metrics["val/map50_95"]).number
    verdict = judge(figures, "test", run, best, wanted, TRAINED)
    assert any(advice in line for line in verdict.advice), verdict
    assert verdict.tone in ("fair", "poor")


def test_classes_are_ranked_and_unknown_ones_left_out() -> None:
    assert ranked_classes(measured(0.2, 0.9)) == ["Nodule", "Mass"]
    assert ranked_classes(measured(None, 0.9)) == ["Nodule"]
