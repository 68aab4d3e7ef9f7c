"""Training on one GPU against plain Ultralytics with its best settings, and how long the first system's job would take.

    python benchmarks/gpu.py [--data DATA.yaml] [--repeats 3] [--full | --parts throughput scores fifty medium]

- ``throughput``: yolo12n at 640 px, batch 64; Ultralytics with amp, ``cache=ram`` and 16 loader processes.
- ``scores``: best validation mAP50 on phantoms over three seeds, all runs at once; the speed of these says nothing.
- ``fifty``: real epochs over 15,000 images, with and without mosaic, as often as 50 epochs have them, against the three
  hours that the first system took.
- ``medium`` (with ``--full``): yolo12m as the first.

Both in one plain process without Ray. Without ``--data``: the X-rays of the tests where they are found, else phantoms.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from commands import XRAYS, draw_phantoms, run
from comparison import Comparison, in_turns, show
from training import own_copy

HERE = Path(__file__).parent
DATA = XRAYS / "nih-cxr8-boxes" / "data.yaml"
BATCH, SIZE, IMAGES = 64, 640, 15_000
PHANTOMS = 75  # that ``own_copy`` draws to train on where there are no X-rays
FIRST_SYSTEM_S = 3 * 3600.0  # 50 epochs on one GPU
NOISE = 0.95  # of the peer's mAP50: seeds differ by more


def main() -> None:
    """Measure, save each part when it is done, show one table."""
    options = _parse()
    comparisons = []
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(options.data, Path(name), options.repeats)
        parts: dict[str, Callable[[], Comparison]] = {
            "throughput": lambda: bench.throughput("yolo12n", 4),
            "scores": bench.scores,
            "fifty": bench.fifty_epochs,
            "medium": lambda: bench.throughput("yolo12m", 2),
        }
        for part in options.parts:
            print(part, flush=True)
            comparisons.append(parts[part]())
            comparisons[-1].save()
    show([comparison.as_dict() for comparison in comparisons])


class Bench:
    """The parts, each a comparison."""

    def __init__(self, source: Path | None, folder: Path, repeats: int) -> None:
        self.source, self.folder, self.repeats = source, folder, repeats

    def throughput(self, model: str, times: int) -> Comparison:
        """Steady state, in turns; the first epoch, which fills caches, does not count. ``times``: how often each image
        of the data set is in an epoch."""
        data = own_copy(self.source, self._new(), times)
        sides = in_turns(
            self.repeats,
            lambda seed: self.ours(data, model_name=model, seed=seed, epochs=5, img_size=SIZE, batch_size=BATCH),
            lambda seed: self.peer(
                data, model=model, seed=seed, epochs=3, imgsz=SIZE, batch=BATCH, nbs=BATCH, val=False
            ),
        )
        steady = [[statistics.median(figures["images_per_second"][1:]) for figures in side] for side in sides]
        busy = [share for figures in sides[0] for share in figures["gpu_busy"][1:] if share is not None]
        details = {"share of the time in which our GPU was busy": statistics.median(busy) if busy else None}
        what = f"{SIZE} px, batch {BATCH}, without validation"
        return Comparison(f"gpu_{model}", "images/s", *steady, 1.5, more=True, note=what, details=details)

    def scores(self) -> Comparison:
        """The same job with either, three seeds."""
        data = draw_phantoms(self._new() / "data", train=240, val=60, size=192)
        seeds = range(3)
        with ThreadPoolExecutor() as pool:
            ours = [
                pool.submit(self.ours, data, seed=seed, epochs=25, img_size=192, batch_size=16, nbs=16)
                for seed in seeds
            ]
            peer = [
                pool.submit(self.peer, data, seed=seed, epochs=25, imgsz=192, batch=16, nbs=16, workers=2)
                for seed in seeds
            ]
        maps = [_of_best_epoch(run.result()) for run in ours], [run.result()["map50"] for run in peer]
        note = "validation mAP50 of the best epoch, 240 + 60 phantoms, 25 epochs, a seed each"
        return Comparison("gpu_scores", "mAP50", *maps, NOISE, more=True, note=note)

    def fifty_epochs(self) -> Comparison:
        """40 times an epoch with mosaic and 10 times one without, as 50 epochs have them, and 50 validations."""
        copies = round(IMAGES / (_training_images(self.source) if self.source else PHANTOMS))
        data = own_copy(self.source, self._new(), max(copies, 1))
        figures = self.ours(data, epochs=3, img_size=SIZE, batch_size=BATCH, close_mosaic=1)
        _, mosaic, plain = figures["train_seconds"]
        images = figures["images_per_second"][1] * mosaic
        seconds = (40 * mosaic + 10 * plain) * IMAGES / images + 50 * figures["val_seconds"][1]
        details = {"images": round(images), "an epoch with mosaic, s": mosaic, "one without, s": plain}
        details["validation, s"] = figures["val_seconds"][1]
        aim = 15 * 60 / FIRST_SYSTEM_S
        return Comparison("gpu_fifty_epochs", "s", [seconds], [FIRST_SYSTEM_S], aim, note="computed", details=details)

    def ours(self, data: Path, **values: Any) -> dict[str, Any]:
        """Train here; each epoch's figures. All epochs are with mosaic where ``values`` do not say otherwise."""
        script = [sys.executable, str(HERE / "train_here.py"), str(data), str(self._new())]
        return _figures(script, {"close_mosaic": 0, **values})

    def peer(self, data: Path, **values: Any) -> dict[str, Any]:
        """Train with plain Ultralytics; the same."""
        always = {"workers": 16, "cache": "ram", "plots": False, "device": 0}
        always |= {"fliplr": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "close_mosaic": 0}
        script = [sys.executable, str(HERE / "plain_ultralytics.py"), str(data), str(self._new()), str(time.time())]
        return _figures(script, {**always, **values})

    def _new(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder)) / "new"


def _figures(command: list[str], values: dict[str, Any]) -> dict[str, Any]:
    output = run([*command, *(f"{key}={value}" for key, value in values.items())])
    figures: dict[str, Any] = json.loads(output.splitlines()[-1])
    print(f"  {figures}", flush=True)
    return figures


def _training_images(data: Path) -> int:
    from ray_jobs.dataset.description import read_description
    from ray_jobs.dataset.layout import read_layout

    return len(read_layout(read_description(data)).images["train"])


def _of_best_epoch(figures: dict[str, Any]) -> float:
    """Its mAP50: that of best.pt, which is what plain Ultralytics says."""
    best = max(range(len(figures["val/fitness"])), key=figures["val/fitness"].__getitem__)
    return float(figures["val/map50"][best])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="YAML", default=DATA if DATA.is_file() else None)
    parser.add_argument("--full", action="store_true", help="yolo12m too, five repeats")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--parts", nargs="+", choices=["throughput", "scores", "fifty", "medium"])
    options = parser.parse_args()
    options.repeats = options.repeats or (5 if options.full else 3)
    options.parts = options.parts or ["throughput", "scores", "fifty", *(["medium"] if options.full else [])]
    return options


if __name__ == "__main__":
    main()
