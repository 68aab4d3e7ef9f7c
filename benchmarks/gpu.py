"""Training on one GPU against plain Ultralytics with its best settings, and how long the first system's job would take.

    python benchmarks/gpu.py [--full] [--data DATA.yaml] [--repeats 3]

yolo12n (with ``--full`` also yolo12m) at 640 px, batch 64; Ultralytics with amp, ``cache=ram`` and 16 loader processes.
Both in one plain process without Ray. Then one real epoch over 15,000 images, times 50, against the three hours that
the first system took. Without ``--data``: the X-rays of the tests where they are found, else phantoms.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from commands import ROOT, run
from comparison import Comparison, in_turns, show
from training import own_copy

HERE = Path(__file__).parent
DATA = Path(os.environ.get("XRAY_DATA_DIR", ROOT.parent / "shared" / "data")) / "nih-cxr8-boxes" / "data.yaml"
BATCH, SIZE, IMAGES = 64, 640, 15_000
FIRST_SYSTEM_S = 3 * 3600.0  # 50 epochs on one GPU


def main() -> None:
    """Measure, show one table, save it."""
    options = _parse()
    models = ("yolo12n", "yolo12m") if options.full else ("yolo12n",)
    comparisons = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = own_copy(options.data, folder / "data", 4)
        for model in models:
            sides = in_turns(
                options.repeats,
                lambda seed, model=model: ours(data, folder, model, seed),
                lambda seed, model=model: peer(data, folder, model, seed),
            )
            steady = [[statistics.median(figures["images_per_second"][1:]) for figures in side] for side in sides]
            what = f"{SIZE} px, batch {BATCH}, without validation"
            comparisons.append(Comparison(f"gpu_{model}", "images/s", *steady, 1.5, more=True, note=what))
        comparisons.append(fifty_epochs(options.data, folder))
    for comparison in comparisons:
        comparison.save()
    show([comparison.as_dict() for comparison in comparisons])


def ours(data: Path, folder: Path, model: str, seed: int, epochs: int = 4) -> dict[str, Any]:
    """Train here; each epoch's images per second."""
    values = {"model_name": model, "seed": seed, "epochs": epochs, "img_size": SIZE, "batch_size": BATCH}
    script = [sys.executable, str(HERE / "train_here.py"), str(data), str(_new(folder))]
    return _figures([*script, *(f"{key}={value}" for key, value in values.items())])


def peer(data: Path, folder: Path, model: str, seed: int) -> dict[str, Any]:
    """Train with plain Ultralytics; the same."""
    values = {"model": model, "seed": seed, "epochs": 3, "imgsz": SIZE, "batch": BATCH, "nbs": BATCH, "device": 0}
    values |= {"workers": 16, "cache": "ram", "fliplr": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "plots": False}
    script = [sys.executable, str(HERE / "plain_ultralytics.py"), str(data), str(_new(folder)), str(time.time())]
    return _figures([*script, *(f"{key}={value}" for key, value in values.items())])


def fifty_epochs(source: Path | None, folder: Path) -> Comparison:
    """50 times the second of two real epochs over 15,000 images, validation included."""
    images = 742 if source else 75
    data = own_copy(source, folder / "many", round(IMAGES / images))
    figures = ours(data, folder, "yolo12n", 0, epochs=2)
    seconds = 50 * (figures["train_seconds"][1] + figures["val_seconds"][1])
    details = {"one epoch, s": figures["train_seconds"][1], "validation, s": figures["val_seconds"][1]}
    aim = 15 * 60 / FIRST_SYSTEM_S
    return Comparison("gpu_fifty_epochs", "s", [seconds], [FIRST_SYSTEM_S], aim, note="computed", details=details)


def _new(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))


def _figures(command: list[str]) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(run(command).splitlines()[-1])
    return figures


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="YAML", default=DATA if DATA.is_file() else None)
    parser.add_argument("--full", action="store_true", help="yolo12m too, five repeats")
    parser.add_argument("--repeats", type=int)
    options = parser.parse_args()
    options.repeats = options.repeats or (5 if options.full else 3)
    return options


if __name__ == "__main__":
    main()
