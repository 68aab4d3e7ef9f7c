"""Which points a benchmark measures, and which of them it recommends."""

from typing import Any

from ray_jobs.flows.benchmark.sweep import Point, Setting, best_of, sweep

START = Setting(16, 1, 0, "auto")


def speeds(table: dict[str, Any], limit: int = 1000) -> Any:
    """A machine whose speed is the product of what each value is worth; batches above ``limit`` do not fit."""

    def measure(setting: Setting) -> Point:
        if setting.batch_size > limit:
            return Point(setting, error="out of memory")
        speed = 10.0
        for kind, worth in table.items():
            speed *= worth.get(getattr(setting, kind), 1.0)
        return Point(setting, images_per_second=speed)

    return measure


def test_each_kind_starts_from_the_best_so_far() -> None:
    measure = speeds({"batch_size": {32: 1.5}, "num_workers": {2: 0.8}, "precision": {"bf16": 2.0}})
    points = sweep(START, {"batch_size": [8, 32], "num_workers": [2], "precision": ["fp32", "bf16"]}, measure)
    tried = [point.setting for point in points]
    assert tried == [
        START,
        Setting(8, 1, 0, "auto"),
        Setting(32, 1, 0, "auto"),
        Setting(32, 2, 0, "auto"),
        Setting(32, 1, 0, "fp32"),
        Setting(32, 1, 0, "bf16"),
    ]
    best = best_of(points)
    assert best
    assert best.setting == Setting(32, 1, 0, "bf16")


def test_a_gain_within_the_noise_changes_nothing() -> None:
    points = sweep(START, {"batch_size": [32, 64]}, speeds({"batch_size": {32: 1.02, 64: 1.04}}))
    assert best_of(points[:2]) == points[0]
    assert best_of(points) == points[2]


def test_a_batch_that_does_not_fit_ends_the_larger_ones_and_nothing_else() -> None:
    measure = speeds({"num_workers": {2: 1.5}}, limit=31)
    points = sweep(START, {"batch_size": [8, 32, 64], "num_workers": [2]}, measure)
    assert [point.setting.batch_size for point in points] == [16, 8, 32, 16]
    assert [bool(point.error) for point in points] == [False, False, True, False]
    best = best_of(points)
    assert best
    assert best.setting == Setting(16, 2, 0, "auto")


def test_a_start_that_does_not_fit_leaves_the_smaller_batches() -> None:
    points = sweep(START, {"batch_size": [8, 32]}, speeds({}, limit=8))
    assert [point.setting.batch_size for point in points] == [16, 8]
    assert best_of(points) == points[1]
    assert best_of(points[:1]) is None


def test_batches_that_cannot_be_shared_are_left_out() -> None:
    points = sweep(Setting(9, 1, 0, "fp32"), {"num_workers": [2, 3]}, speeds({}))
    assert [point.setting.num_workers for point in points] == [1, 3]
