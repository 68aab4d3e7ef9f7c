"""The page that a benchmark leaves."""

from pathlib import Path

from ray_jobs.flows.benchmark.sweep import Point, Setting, best_of
from ray_jobs.flows.report.benchmark import write_benchmark_report


def point(batch: int, workers: int, precision: str, speed: float | None) -> Point:
    setting = Setting(batch, workers, 0, precision)
    if speed is None:
        return Point(setting, error="rank 0: out of memory <on> cpu")
    return Point(setting, speed, (speed * 0.98, speed), batch / speed, 0.07, 1.2, 6.0, 1.5 * 2**30)


POINTS = [
    point(16, 1, "auto", 20.0),
    point(8, 1, "auto", 18.0),
    point(32, 1, "auto", None),
    point(16, 2, "auto", 22.0),
    point(16, 2, "bf16", 30.0),
]


def page(tmp_path: Path, points: list[Point]) -> str:
    best = best_of(points)
    assert best
    result = {
        "name": "b<ench",
        "startup_seconds": 12.0,
        "seconds": 100.0,
        "epochs": 3,
        "images": {"train": 128, "val": 32},
        "points": [one.as_dict() for one in points],
        "best": best.as_dict(),
        "faster": (best.images_per_second or 0.0) / 20.0,
        "recommended": best.setting.as_settings(),
    }
    write_benchmark_report(tmp_path / "report.html", result, points, best)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_it_names_the_winner_and_why(tmp_path: Path) -> None:
    text = page(tmp_path, POINTS)
    assert "The fastest does 30.0 images/s, 1.50 times what is configured." in text
    assert "precision: bf16" in text
    assert "num_workers: 2" in text
    for heading in ("Batch size", "Workers", "Precision", "Where the time goes"):
        assert f"<h2>{heading}</h2>" in text
    assert "Loader processes of each worker</h2>" not in text  # it was not varied
    assert "With 32 it failed." in text
    assert "out of memory &lt;on&gt; cpu" in text
    assert "b&lt;ench" in text
    assert "<script" not in text


def test_one_point_is_enough(tmp_path: Path) -> None:
    text = page(tmp_path, POINTS[:1])
    assert "What is configured is as fast as anything that was tried: 20.0 images/s." in text
    assert "<h2>Batch size</h2>" not in text
