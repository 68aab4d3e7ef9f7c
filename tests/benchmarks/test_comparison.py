"""What a comparison says: ratio, spread, whether its aim is met."""

import json
from pathlib import Path

import pytest


def test_the_ratio_is_the_median_of_the_repeats_ratios() -> None:
    from comparison import Comparison

    result = Comparison("speed", "images/s", [30, 20, 90], [10, 10, 10], 3.0, more=True).as_dict()
    assert (result["ours"], result["peer"], result["ratio"]) == (30, 10, 3.0)
    assert result["spread"] == [2.0, 9.0]
    assert (result["aim"], result["met"]) == (">= 3", True)
    assert result["repeats"] == {"ours": [30, 20, 90], "peer": [10, 10, 10]}


@pytest.mark.parametrize(("aim", "more", "met"), [(0.5, False, True), (0.4, False, False), (0.6, True, False)])
def test_an_aim_bounds_the_ratio(aim: float, more: bool, met: bool) -> None:
    from comparison import Comparison

    assert Comparison("job", "s", [5.0], [10.0], aim, more=more).met is met


def test_an_aim_may_be_a_difference() -> None:
    from comparison import Later

    first_step = Later("first_step", "s", [14.0, 18.0, 19.0], [7.0, 8.0, 8.0], 10.0)
    assert first_step.met
    assert first_step.as_dict()["aim"] == "<= peer + 10 s"
    assert not Later("first_step", "s", [14.0, 18.1, 19.0], [7.0, 8.0, 8.0], 10.0).met


def test_an_aim_may_be_absolute_and_holds_for_every_repeat() -> None:
    from comparison import AtMost

    blocked = AtMost("blocked", "s", [0.01, 0.02], [2.0, 2.0], 0.05)
    assert blocked.met
    assert blocked.as_dict()["aim"] == "<= 0.05 s"
    assert not AtMost("blocked", "s", [0.01, 0.06], [2.0, 2.0], 0.05).met


def test_scores_may_be_lower_by_what_chance_makes_of_them() -> None:
    from comparison import WithinNoise

    peer = [0.10, 0.12, 0.14]  # a standard error of 0.02 / sqrt(3) each: 0.0163 for the difference
    assert WithinNoise("scores", "mAP50", [0.07, 0.09, 0.11], peer, 2.0).met
    assert WithinNoise("scores", "mAP50", [0.20, 0.22, 0.24], peer, 2.0).met
    lower = WithinNoise("scores", "mAP50", [0.06, 0.08, 0.10], peer, 2.0)
    assert not lower.met
    assert lower.as_dict()["aim"] == ">= peer - 2 standard errors (0.033)"
    assert not WithinNoise("scores", "mAP50", [0.11], [0.12], 2.0).met, "one seed knows nothing of chance"


def test_unequal_numbers_of_repeats_are_refused() -> None:
    from comparison import Comparison

    with pytest.raises(ValueError, match="argument 2 is shorter"):
        _ = Comparison("job", "s", [1.0, 2.0], [1.0], 1.0).ratio


def test_who_goes_first_changes_with_every_repeat(capsys: pytest.CaptureFixture[str]) -> None:
    from comparison import in_turns

    order: list[str] = []

    def side(name: str, repeat: int) -> int:
        order.append(f"{name}{repeat}")
        return repeat

    figures = in_turns(3, lambda n: side("ours", n), lambda n: side("peer", n))
    assert figures == ([0, 1, 2], [0, 1, 2])
    assert order == ["ours0", "peer0", "peer1", "ours1", "ours2", "peer2"]
    assert "repeat 3 of 3, peer" in capsys.readouterr().out


def test_a_result_is_a_file_with_all_that_must_be_known(tmp_path: Path) -> None:
    from comparison import Comparison

    Comparison("job", "s", [1.0], [2.0], 0.6, details={"map50": [0.5]}).save(tmp_path / "results")
    result = json.loads((tmp_path / "results" / "job.json").read_text())
    assert {"name", "ours", "peer", "ratio", "aim", "met", "spread", "hardware", "versions"} <= result.keys()
    assert result["details"] == {"map50": [0.5]}
    assert result["hardware"]["cores"] >= 1
    assert result["versions"]["ultralytics"]


def test_the_table_says_what_is_not_met(capsys: pytest.CaptureFixture[str]) -> None:
    from comparison import Comparison, show

    show([Comparison("job", "s", [1.0], [2.0], aim).as_dict() for aim in (0.6, 0.4)])
    said = capsys.readouterr().out
    assert said.count("NOT MET") == 1
    assert said.count("met") == 1
    assert "0.50 to 0.50" in said


def test_a_repeat_that_would_end_too_late_is_not_begun(capsys: pytest.CaptureFixture[str]) -> None:
    from comparison import in_turns

    assert in_turns(3, lambda n: n, lambda n: n, minutes=0.0) == ([0], [0])
    assert "no repeat 2: it would end after more than 0 minutes" in capsys.readouterr().out
