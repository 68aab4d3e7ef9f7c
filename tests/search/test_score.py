"""The score says something from the first epoch on."""

import math

import pytest

from ray_jobs.errors import TrainingError
from ray_jobs.search.score import Score

LOSSES = {"val/box_loss": 3.0, "val/cls_loss": 4.0, "val/dfl_loss": 2.0}


def test_where_nothing_is_found_the_validation_loss_decides() -> None:
    score = Score()
    blind = score.of({"val/map50_95": 0.0, **LOSSES})
    blinder = score.of({"val/map50_95": 0.0, **LOSSES, "val/cls_loss": 5.0})
    seeing = score.of({"val/map50_95": 1e-6, **LOSSES, "val/cls_loss": 50.0})
    assert blinder < blind < 0 < seeing == 1e-6


def test_gains_do_not_make_a_loss_better() -> None:
    metrics = {"val/map50_95": 0.0, **LOSSES}
    halved = {**metrics, "val/cls_loss": 2.0}
    assert Score().of(halved, {"cls": 0.25}) == pytest.approx(Score().of(metrics))


def test_other_metrics_are_themselves() -> None:
    assert Score("val/cls_loss", "min").of(LOSSES) == -4.0
    assert Score("train/box_loss", "max").of({"train/box_loss": 0.0}) == 0.0
    assert Score().of({"val/map50_95": math.nan, **LOSSES}) == -math.inf
    with pytest.raises(TrainingError, match="'val/map50' was not reported"):
        Score("val/map50").of(LOSSES)


def test_what_is_told_of_a_score_is_the_metric_and_no_loss_in_its_place() -> None:
    assert [Score().value(score) for score in (0.25, -7.6)] == [0.25, 0.0]
    assert Score("val/cls_loss", "min").value(-4.0) == 4.0
    assert Score("train/box_loss", "max").value(-1.0) == -1.0
