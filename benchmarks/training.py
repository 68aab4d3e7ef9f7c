"""Training here against plain Ultralytics: throughput, whole job, first step, validation, two workers and one.

    python benchmarks/training.py [--data DATA.yaml] [--epochs 40] [--size 256] [--repeats 5] [--times 1]
    python benchmarks/training.py --workers                      # two workers against one

Same images, seed, image size, global batch, epochs and optimizer settings on both sides; every run is a command of its
own with folders of its own, every repeat has a seed of its own. Without ``--data`` it draws phantoms. ``--times 10``
repeats every training image ten times, so that start-up no longer counts. Results go to ``benchmarks/results/``.
"""

import argparse
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from commands import draw_phantoms, run, train
from comparison import Comparison, Later, in_turns, show

HERE = Path(__file__).parent
BATCH = 16
SAME = {"nbs": BATCH, "fliplr": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "device": "cpu"}


def main() -> None:
    """Run what was asked for, show one table, save it."""
    options = _parse()
    with tempfile.TemporaryDirectory() as folder:
        data = own_copy(options.data, Path(folder) / "data", options.times)
        job = Job(data, Path(folder), options.epochs, options.size)
        suffix = "" if options.times == 1 else f"_{options.times}_times_the_data"
        if options.workers:
            comparisons = [two_workers(job, options.repeats, options.minutes)]
        else:
            comparisons = whole_jobs(job, options.repeats, options.minutes, suffix)
    for comparison in comparisons:
        comparison.save()
    show([comparison.as_dict() for comparison in comparisons])


class Job:
    """The same training job for both sides."""

    def __init__(self, data: Path, folder: Path, epochs: int, size: int) -> None:
        self.data, self.folder, self.epochs, self.size = data, folder, epochs, size
        self.runs = 0

    def ours(self, seed: int, **settings: Any) -> dict[str, Any]:
        """Train here; returns seconds to the first step, of validations and in all, images per second, and scores."""
        values = {**SAME, "seed": seed, "epochs": self.epochs, "img_size": self.size, "batch_size": BATCH, **settings}
        began = time.time()
        folder = train(self.data, self._new_folder(), **{"export.onnx": "false", **values})
        total = time.time() - began
        lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
        epochs = [line["metrics"] for line in lines if line["kind"] == "epoch"]
        return {
            "first_step": epochs[0]["started"] - began,
            "total": total,
            "images_per_second": [epoch["images_per_second"] for epoch in epochs],
            "val_seconds": [epoch["val_seconds"] for epoch in epochs],
            "map50": max(epochs, key=lambda epoch: epoch.get("val/fitness", 0.0))["val/map50"],
        }

    def peer(self, seed: int) -> dict[str, Any]:
        """Train with plain Ultralytics; returns the same."""
        values = {**SAME, "seed": seed, "epochs": self.epochs, "imgsz": self.size, "batch": BATCH, "workers": 0}
        script = [sys.executable, str(HERE / "plain_ultralytics.py"), str(self.data), str(self._new_folder())]
        output = run([*script, str(time.time()), *(f"{key}={value}" for key, value in values.items())])
        figures: dict[str, Any] = json.loads(output.splitlines()[-1])
        return figures

    def _new_folder(self) -> Path:
        self.runs += 1
        return self.folder / f"run-{self.runs}"


def whole_jobs(job: Job, repeats: int, minutes: float, suffix: str) -> list[Comparison]:
    """Throughput and validation in steady state, seconds of the whole job and to the first step, from the same runs."""
    ours, peer = in_turns(repeats, job.ours, job.peer, minutes)
    sides = {"ours": ours, "peer": peer}
    scores = {
        "best validation mAP50, a seed each": {side: [run["map50"] for run in runs] for side, runs in sides.items()}
    }
    what: dict[str, Any] = {"note": f"{job.epochs} epochs, {job.size} px, batch {BATCH}", "details": scores}

    def figures(key: str) -> tuple[list[float], list[float]]:
        return [run[key] for run in ours], [run[key] for run in peer]

    def steady(key: str) -> tuple[list[float], list[float]]:
        return [_steady(run[key]) for run in ours], [_steady(run[key]) for run in peer]

    long = bool(suffix)
    jobs = [
        Comparison(f"training_throughput{suffix}", "images/s", *steady("images_per_second"), 3.0, more=True, **what),
        Comparison(f"whole_job{suffix}", "s", *figures("total"), 0.35 if long else 0.5, **what),
    ]
    if not long:
        jobs += [
            Later("first_step", "s", *figures("first_step"), 10.0, **what),
            Comparison("validation", "s", *steady("val_seconds"), 1.0, **what),
        ]
    return jobs


def two_workers(job: Job, repeats: int, minutes: float) -> Comparison:
    """Two workers with a core each against one with both."""
    two, one = in_turns(
        repeats,
        lambda seed: _steady(job.ours(seed, **{"cluster.num_workers": 2})["images_per_second"]),
        lambda seed: _steady(job.ours(seed, **{"cluster.num_workers": 1})["images_per_second"]),
        minutes,
    )
    return Comparison("two_workers_against_one", "images/s", two, one, 0.95, more=True, note="the same cores in total")


def own_copy(data: Path | None, folder: Path, times: int) -> Path:
    """A copy of the data set that may be written to; phantoms without ``data``.

    Each training image is there ``times`` times, each time a little darker: the same picture twice is refused.
    """
    if data is None:
        data = draw_phantoms(folder)
    else:
        shutil.copytree(data.parent, folder)
    source = yaml.safe_load((folder / data.name).read_text(encoding="utf-8"))
    source["path"] = str(folder)
    (folder / data.name).write_text(yaml.safe_dump(source), encoding="utf-8")
    shades = [1 - 0.5 * copy / times for copy in range(1, times)]
    jobs = [(image, *shade) for image in sorted((folder / source["train"]).iterdir()) for shade in enumerate(shades, 1)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(_write_darker, *zip(*jobs, strict=True)) if jobs else ())
    return folder / data.name


def _write_darker(image: Path, number: int, shade: float) -> None:
    pixels = cv2.imread(str(image), cv2.IMREAD_GRAYSCALE)
    again = image.with_name(f"{image.stem}-{number}.png")
    cv2.imwrite(str(again), (pixels * shade).astype(np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    label, copy = (Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt") for path in (image, again))
    if label.is_file():
        shutil.copyfile(label, copy)


def _steady(epochs: list[float]) -> float:
    """The median over all epochs but the first, which fills caches."""
    return statistics.median(epochs[1:])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="YAML")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no repeat that would end later")
    parser.add_argument("--times", type=int, default=1, help="how often each training image is listed")
    parser.add_argument("--workers", action="store_true", help="two workers against one, and nothing else")
    return parser.parse_args()


if __name__ == "__main__":
    main()
