"""Searchers on a known function: whether they get better, and that an interruption changes nothing."""

import math
from collections.abc import Mapping

import pytest

from ray_jobs.search.searchers import GridSearcher, OptunaSearcher, RandomSearcher, Searcher
from ray_jobs.search.space import Space, Value, parse_space

TRIALS = 30


@pytest.fixture
def space() -> Space:
    wanted = {"lr0": {"loguniform": [1e-4, 1e-1]}, "momentum": {"uniform": [0.6, 0.99]}}
    return parse_space({**wanted, "optimizer": {"choice": ["SGD", "AdamW"]}, "freeze": {"randint": [1, 9]}})[0]


def known(point: Mapping[str, Value]) -> float:
    """Best, with 0, at lr0 0.003, momentum 0.9, AdamW, freeze 4."""
    lr0, momentum, freeze = (float(point[name]) for name in ("lr0", "momentum", "freeze"))
    distance = (math.log10(lr0) + 2.5) ** 2 + 10 * (momentum - 0.9) ** 2 + 0.05 * (freeze - 4) ** 2
    return -distance - (point["optimizer"] == "SGD")


def search(searcher: Searcher) -> float:
    best = -math.inf
    for number in range(1, TRIALS + 1):
        point = searcher.suggest(number)
        assert point
        score = known(point)
        searcher.tell(number, score)
        best = max(best, score)
    return best


def test_tpe_beats_random_over_seeds(space: Space) -> None:
    seeds = range(12)
    random = [search(RandomSearcher(space, seed)) for seed in seeds]
    tpe = [search(OptunaSearcher(space, seed)) for seed in seeds]
    assert sum(tpe) / len(tpe) > 0.6 * sum(random) / len(random), (tpe, random)
    assert sum(t > r for t, r in zip(tpe, random, strict=True)) >= 7


def test_a_gaussian_process_finds_the_best_point(space: Space) -> None:
    assert search(OptunaSearcher(space, 0, "gp")) > -0.05


def test_a_search_gone_on_with_suggests_what_it_would_have(space: Space) -> None:
    whole = OptunaSearcher(space, 3, startup=2)
    told = {}
    for number in range(1, 8):
        told[number] = whole.suggest(number) or {}
        if number != 6:  # one runs still
            whole.tell(number, known(told[number]) if number != 4 else None)
    resumed = OptunaSearcher(space, 3, startup=2)
    for number, point in told.items():
        resumed.restore(number, point)
        if number != 6:
            resumed.tell(number, known(point) if number != 4 else None)
    assert resumed.suggest(8) == whole.suggest(8)


def test_points_are_tried_first_and_filled_up(space: Space) -> None:
    for searcher in (RandomSearcher(space, 0, [{"lr0": 0.005}]), OptunaSearcher(space, 0, points=[{"lr0": 0.005}])):
        first = searcher.suggest(1)
        assert first
        assert first["lr0"] == 0.005
        assert first.keys() == space.domains.keys()


def test_earlier_searches_teach_from_the_first_trial_on(space: Space) -> None:
    earlier = [(point, known(point)) for point in (RandomSearcher(space, 9).suggest(n) or {} for n in range(1, 40))]
    cold = [known(OptunaSearcher(space, seed).suggest(1) or {}) for seed in range(8)]
    warm = [known(OptunaSearcher(space, seed, earlier=earlier).suggest(1) or {}) for seed in range(8)]
    assert sum(warm) > sum(cold) / 2


def test_a_grid_gives_every_combination_once() -> None:
    space, _ = parse_space({"mosaic": {"grid": [0.0, 1.0]}, "cos_lr": {"grid": [True, False]}})
    searcher = GridSearcher(space, 0, [{"mosaic": 1.0, "cos_lr": False}])
    points = [searcher.suggest(number) for number in range(1, 6)]
    assert points[0] == {"mosaic": 1.0, "cos_lr": False}
    assert points[4] is None
    assert len({tuple(point.items()) for point in points[:4] if point}) == 4
