import re

import numpy as np
import pytest

from ray_jobs.report.charts import Axis, Line, bars, line_chart, parallel, scatter, span
from ray_jobs.report.importance import importance
from ray_jobs.report.xray import WIDTH, Box, _overlap, _place, xray

UNIT = Axis.over("", [0, 1])


def points_of(chart: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'points="([^"]*)"', chart)
    return [[(float(x), float(y)) for x, y in (point.split(",") for point in line.split())] for line in lines]


def test_a_line_runs_where_its_numbers_are() -> None:
    (line,) = points_of(line_chart("title", [Line("a", [0, 0.5, 1], [0, 1, 0])], UNIT, UNIT))
    (left, bottom), (middle, top), (right, end) = line
    assert middle - left == pytest.approx(right - middle, abs=0.1)
    assert bottom == end > top  # down is larger in SVG


def test_what_is_no_number_is_left_out_and_one_point_is_a_dot() -> None:
    chart = line_chart("title", [Line("a", [0, 0.5, 1], [0, float("nan"), 1])], UNIT, UNIT)
    assert len(points_of(chart)[0]) == 2
    one = line_chart("title", [Line("a", [0.5], [0.5])], UNIT, UNIT)
    assert points_of(one) == []
    assert "<circle" in one


def test_a_band_goes_there_and_back() -> None:
    line = Line("a", [0, 1], [0.5, 0.5], "all", low=[0.25, 0.25], high=[0.75, 0.75])
    band, path = points_of(line_chart("title", [line], UNIT, UNIT))
    assert len(band) == 4
    assert band[0][1] == band[1][1] < path[0][1] < band[2][1] == band[3][1]


def test_the_last_number_of_an_axis_is_not_cut_off() -> None:
    chart = line_chart("title", [], Axis.over("weight_decay", [0.0001, 0.0055]), UNIT)
    assert re.search(r'x="440"[^>]*text-anchor="end"[^>]*>0.006<', chart)
    assert re.search(r'text-anchor="middle"[^>]*>0.004<', chart)


def test_a_log_axis_spaces_by_ratio() -> None:
    axis = Axis.over("lr0", [2e-5, 8e-3], log=True)
    assert (axis.low, axis.high) == (1e-5, 1e-2)
    assert axis.share(1e-4) - axis.share(1e-5) == pytest.approx(axis.share(1e-2) - axis.share(1e-3))
    assert [text for _, text in axis.ticks] == ["1e-5", "1e-4", "0.001", "0.01"]


@pytest.mark.parametrize(
    ("last", "numbers"), [(1, [1]), (6, [1, 2, 3, 4, 5, 6]), (12, [1, 4, 6, 8, 10, 12]), (100, None)]
)
def test_a_counting_axis_has_room_for_its_numbers(last: int, numbers: list[int] | None) -> None:
    ticks = [int(value) for value, _ in Axis.counting("epoch", last).ticks]
    assert ticks == (numbers or [1, 20, 40, 60, 80, 100])


def test_the_winner_is_drawn_last_and_largest() -> None:
    chart = scatter("title", [(0.5, 0.9, True), (0.1, 0.2, False)], UNIT, UNIT, best=0)
    assert re.findall(r'r="(\d)" class="(\w+)"', chart) == [("4", "paledot"), ("6", "fill1")]


def test_charts_without_anything_are_empty_and_not_broken() -> None:
    assert points_of(line_chart("title", [], UNIT, UNIT)) == []
    assert "<rect" not in bars("title", [])
    assert "stroke-width" not in span(0.5, None, None)


def test_parallel_axes_carry_their_values() -> None:
    axes = [Axis("a", 0, 1, [(0, "0"), (1, "1")]), Axis("b", -0.5, 1.5, [(0, "x"), (1, "y")])]
    chart = parallel("title", axes, [((0.0, 0.0), "pale"), ((1.0, 1.0), 1)])
    low, high = points_of(chart)
    assert low[0][1] > high[0][1]
    assert low[1][1] > high[1][1]
    assert high[1][1] > high[0][1]  # words do not stand at the ends


def test_the_parameter_that_decides_comes_first() -> None:
    random = np.random.default_rng(0)
    trials = [
        {"lr0": 10 ** random.uniform(-5, -1), "cls": random.uniform(0, 1), "optimizer": random.choice(["SGD", "AdamW"])}
        for _ in range(40)
    ]
    # The best learning rate lies in the middle; the optimizer adds a little.
    scores = [-abs(np.log10(trial["lr0"]) + 3) + 0.8 * (trial["optimizer"] == "SGD") for trial in trials]
    shares = importance(trials, scores)
    assert list(shares) == ["lr0", "optimizer", "cls"]
    assert shares["lr0"] > 0.5
    assert shares["optimizer"] > 0.08 > shares["cls"]
    assert sum(shares.values()) <= 1


def test_importance_is_not_told_from_too_little() -> None:
    assert importance([{"lr0": 1.0}] * 5, [1, 2, 3, 4, 5]) == {}
    assert importance([{"lr0": 1.0, "cls": number} for number in range(8)], range(8)).keys() == {"cls"}
    assert importance([{"cls": number} for number in range(8)], [1.0] * 8) == {"cls": 0.0}
    mixed = importance([{"mosaic": True}] * 4 + [{}] * 4, range(8))  # some trials lack it
    assert mixed["mosaic"] > 0.5


def test_an_xray_carries_its_boxes() -> None:
    gray = np.full((1000, 800), 90, np.uint8)
    boxes = [Box((80, 100, 400, 500), "Mass & more", True, True), Box((90, 110, 390, 480), "Mass 0.81", False)]
    picture = xray(gray, boxes, "description")
    assert 'viewBox="0 0 400 500"' in picture
    assert picture.count("<rect") == 4  # each with its rim
    assert 'x="40.0" y="50.0" width="160.0" height="200.0"' in picture
    assert "Mass &amp; more" in picture
    assert picture.count("data:image/jpeg;base64,") == 1
    assert len(picture) < 20_000


def test_labels_do_not_cover_each_other() -> None:
    taken: list[tuple[float, float, float]] = []
    for true in (True, False, True, False):
        place = _place(Box((100, 100, 220, 220), "Cardiomegaly", true), 1.0, WIDTH, taken)
        assert sum(_overlap(place, other) for other in taken) == 0
        assert 0 <= place[0] <= WIDTH - place[2]
        taken.append(place)
