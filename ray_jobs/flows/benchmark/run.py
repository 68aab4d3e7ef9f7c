"""A benchmark from its checks to its report: what ``ray_jobs.benchmark`` runs.

In: settings, what to try. Out: ``runs/<run>/`` with benchmark.json, recommended.yaml and report.html. Nothing is
tracked, exported or registered. A benchmark that was stopped begins anew under the same name.
"""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ray_jobs.errors import DataError, TrainingError
from ray_jobs.flows.benchmark.choices import Asked, choose
from ray_jobs.flows.benchmark.measure import Portion, measure_point
from ray_jobs.flows.benchmark.sweep import Point, Setting, best_of, sweep
from ray_jobs.flows.preparation import Prepared, prepare
from ray_jobs.flows.ray_cluster import live_nodes
from ray_jobs.flows.report.benchmark import write_benchmark_report
from ray_jobs.flows.run_folder import RunFolder
from ray_jobs.settings import Settings
from ray_jobs.tracking.environment import describe_environment

Say = Callable[[str], None]
_FIRST_TRY = Portion(train=64, val=16, epochs=2)
_LEAST_STEPS = 4  # in an epoch, of the largest batch: fewer measure the start of an epoch and little else
_EPOCHS = (3, 12)  # the least and the most of a point


class BenchmarkFolder(RunFolder):
    """The folder of a benchmark; see ``RunFolder`` for claiming and releasing it."""

    state_file = "sweep.json"
    folders: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.result = path / "benchmark.json"
        self.recommended = path / "recommended.yaml"


def run_benchmark(
    settings: Settings, asked: Asked, seconds: float, run: BenchmarkFolder, say: Say, began: float
) -> dict[str, Any]:
    """Measure, recommend, report; returns what benchmark.json holds. ``seconds``: how long the epochs of a point that
    count shall take together. ``began``: Unix time of the command's start.

    Raises ``BadInput`` and its kin, and ``TrainingError`` where nothing could be trained.
    """
    quiet = settings.tracking.model_copy(update={"uri": "none", "registry": None})
    prepared = prepare(settings.model_copy(update={"tracking": quiet, "pretrained": False}), run, say)
    if not prepared.report.index.splits.get("val"):
        raise DataError(f"{prepared.data_yaml}: has no val split; a benchmark also measures validation")
    start, choices = choose(prepared, asked, live_nodes())
    run.claim(prepared.settings, prepared.report.fingerprint)
    try:
        shutil.rmtree(run.path / "points", ignore_errors=True)
        result = _measure_all(_Course(prepared, say, began), start, choices, seconds)
        run.write_state(status="finished")
        return result
    except BaseException:
        run.write_state(status="stopped")
        raise
    finally:
        shutil.rmtree(run.path / "points", ignore_errors=True)
        run.release()


def _measure_all(course: "_Course", start: Setting, choices: Any, seconds: float) -> dict[str, Any]:
    largest = max([start.batch_size, *choices["batch_size"]])
    most = 1 + sum(map(len, choices.values()))
    course.say(f"first a short try, then at most {most} points of about {seconds:g} s each, beside their starts")
    first = course.first_try(start)
    course.portion = _portion(course.prepared, first.images_per_second or 0.0, seconds, largest)
    course.say(
        f"a point: {course.portion.epochs} epochs over {course.portion.train} training and {course.portion.val} "
        "validation images; the first epoch does not count"
    )
    points = sweep(start, choices, course.measure)
    best = best_of(points)
    if best is None:
        raise TrainingError(f"no setting could be trained; with {start.describe()}: {points[0].error}")
    return course.finish(points, best)


def _portion(prepared: Prepared, speed: float, seconds: float, largest: int) -> Portion:
    """As many images as two epochs need to take ``seconds``, or all of them in more epochs."""
    splits = prepared.report.index.splits
    images, val = len(splits["train"]), len(splits["val"])
    train = min(images, max(round(speed * seconds / 2), _LEAST_STEPS * largest))
    counted = round(speed * seconds / train) if speed else 2
    least, most = _EPOCHS
    return Portion(train, max(1, min(val, round(val * train / images))), min(max(1 + counted, least), most))


class _Course:
    """The points of one benchmark as they come; says each, and writes what is known so far."""

    def __init__(self, prepared: Prepared, say: Say, began: float) -> None:
        self.prepared, self.say, self._began = prepared, say, began
        self.portion = _FIRST_TRY
        self._points: list[Point] = []
        self._startup: float | None = None

    def first_try(self, start: Setting) -> Point:
        """How fast it is, roughly, and how long this command took to its first step."""
        splits = self.prepared.report.index.splits
        images = max(_FIRST_TRY.train, 2 * start.batch_size)
        few = Portion(min(images, len(splits["train"])), min(_FIRST_TRY.val, len(splits["val"])), _FIRST_TRY.epochs)
        before = time.time() - self._began
        point = measure_point(self.prepared, start, few, 0)
        if point.startup_seconds is not None:
            self._startup = before + point.startup_seconds
        return point

    def measure(self, setting: Setting) -> Point:
        """One point."""
        number = len(self._points) + 1
        self.say(f"point {number}: {setting.describe()} ...")
        point = measure_point(self.prepared, setting, self.portion, number)
        self._points.append(point)
        self.say(f"point {number}: {_outcome(point)}")
        return point

    def finish(self, points: list[Point], best: Point) -> dict[str, Any]:
        """Write benchmark.json, recommended.yaml and report.html; returns what the first holds."""
        prepared, run = self.prepared, self.prepared.run
        assert isinstance(run, BenchmarkFolder)
        before = points[0].images_per_second
        settings = prepared.settings
        recommended = best.setting.as_settings()
        if not prepared.plan.gpus:  # which measured nothing about loader processes
            del recommended["workers"]
        result = {
            "name": run.name,
            "model_name": settings.model_name,
            "img_size": settings.img_size,
            "plan": prepared.plan.describe(),
            "images": {"train": self.portion.train, "val": self.portion.val},
            "epochs": self.portion.epochs,
            "startup_seconds": self._startup,
            "seconds": time.time() - self._began,
            "points": [point.as_dict() for point in points],
            "best": best.as_dict(),
            "faster": best.images_per_second / before if before and best.images_per_second else None,
            "recommended": recommended,
            "environment": describe_environment(),
        }
        run.result.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        run.recommended.write_text(yaml.safe_dump(recommended, sort_keys=False), encoding="utf-8")
        write_benchmark_report(run.report, result, points, best)
        return result


def _outcome(point: Point) -> str:
    if point.images_per_second is None:
        return f"failed: {point.error}"
    return f"{point.images_per_second:.1f} images/s, waited {point.data_wait or 0:.0%} for data"
