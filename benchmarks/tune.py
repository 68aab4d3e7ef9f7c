"""A search of ours against Ultralytics' own: ``python benchmarks/tune.py [--repeats 3]``.

Both search the same space on the same phantom X-rays: as many random trials, two at a time, of as many epochs and
pixels, with ASHA of the same grace and factor, each a command of its own from its start to its end. They take turns.
Compares wall-clock; epochs run and the best mAP50-95 of each search stand in ``benchmarks/results/tune.json`` too.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from commands import draw_phantoms, run
from comparison import Comparison, in_turns, show

TRIALS, EPOCHS, PIXELS, BATCH, GRACE, FACTOR, AT_ONCE = 8, 6, 160, 8, 1, 3, 2
SPACE = {"lr0": (2e-4, 1e-2), "momentum": (0.8, 0.97), "translate": (0.0, 0.2), "scale": (0.1, 0.6)}
NO_COLOUR = {"fliplr": 0.0, "hsv_h": 0.0, "hsv_s": 0.0}
FIXED = {"optimizer": "AdamW", **NO_COLOUR, "close_mosaic": 0, "mosaic": 0.0, "nbs": BATCH}
AIM = 0.4


def ours(data: Path, folder: Path) -> dict[str, float]:
    """``ray_jobs.tune``."""
    space: dict[str, Any] = {name: {"uniform": list(ends)} for name, ends in SPACE.items()}
    search = {
        "space": space | {"optimizer": FIXED["optimizer"]},
        "budget": {"samples": TRIALS, "epochs": EPOCHS},
        "scheduler": {"grace_epochs": GRACE, "reduction_factor": float(FACTOR)},
        "searcher": {"name": "random"},
        "max_concurrent": AT_ONCE,
    }
    (folder / "tune.yaml").write_text(yaml.safe_dump(search))
    settings = {**FIXED, "img_size": PIXELS, "batch_size": BATCH, "device": "cpu", "pretrained": "false"}
    overrides = [f"{name}={value}" for name, value in settings.items()] + ["tracking.uri=none", "workers=0"]
    command = ["-m", "ray_jobs.tune", "--data", str(data), "--tune", "tune.yaml", "--run-name", "search", *overrides]
    seconds = _timed(command, folder)
    lines = (folder / "runs" / "search" / "trials.jsonl").read_text().splitlines()
    epochs = [event for event in map(json.loads, lines) if event["kind"] == "epoch"]
    best = max(event["metrics"]["val/map50_95"] for event in epochs)
    return {"seconds": seconds, "epochs": len(epochs), "best": best}


def peer(data: Path, folder: Path) -> dict[str, float]:
    """``YOLO("yolo12n.yaml").tune(use_ray=True)``, in a process of its own."""
    seconds = _timed([str(Path(__file__).resolve()), "--peer", str(data)], folder)
    return {"seconds": seconds, **json.loads((folder / "peer.json").read_text())}


def run_peer(data: Path) -> None:
    """What the peer's process does."""
    from ray import tune
    from ultralytics import YOLO

    results = YOLO("yolo12n.yaml").tune(
        use_ray=True,
        data=str(data),
        space={name: tune.uniform(*ends) for name, ends in SPACE.items()},
        iterations=TRIALS,
        grace_period=GRACE,
        search_alg="random",
        epochs=EPOCHS,
        imgsz=PIXELS,
        batch=BATCH,
        device="cpu",
        workers=0,
        plots=False,
        amp=False,
        project=str(Path.cwd() / "peer"),
        **FIXED,
    )
    frames = [result.metrics_dataframe for result in results if result.metrics_dataframe is not None]
    epochs = [frame[frame["epoch"].notna()] for frame in frames if "epoch" in frame]
    best = max(float(frame["metrics/mAP50-95(B)"].max()) for frame in epochs)
    ran = sum(frame["epoch"].nunique() for frame in epochs)
    Path("peer.json").write_text(json.dumps({"epochs": ran, "best": best}))


def _timed(command: list[str], folder: Path) -> float:
    quiet = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(folder)}
    started = time.perf_counter()
    run([sys.executable, *command], folder, CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1", **quiet)
    return time.perf_counter() - started


def compare(repeats: int) -> Comparison:
    """Both sides in turns; who is first changes with every repeat."""
    with tempfile.TemporaryDirectory() as root:
        data = draw_phantoms(Path(root) / "phantoms", train=54, val=20, size=192)

        def side(name: str, search: Callable[[Path, Path], dict[str, float]], repeat: int) -> dict[str, float]:
            folder = Path(root) / f"{name}-{repeat}"
            folder.mkdir()
            return search(data, folder)

        runs = in_turns(repeats, partial(side, "ours", ours), partial(side, "peer", peer))
    mine, theirs = runs
    space = f"{TRIALS} trials of up to {EPOCHS} epochs, {AT_ONCE} at a time, {PIXELS} px, batch {BATCH}, phantoms"
    what: dict[str, Any] = {"note": space, "details": {"runs": {"ours": mine, "peer": theirs}}}
    seconds = [one["seconds"] for one in mine], [one["seconds"] for one in theirs]
    return Comparison("tune", "s", *seconds, AIM, **what)


def main() -> None:
    """Compare, show, save."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", type=Path, metavar="YAML", help="run the peer's search here (used by this script)")
    options = parser.parse_args()
    if options.peer:
        return run_peer(options.peer)
    comparison = compare(options.repeats)
    comparison.save()
    show([comparison.as_dict()])
    return None


if __name__ == "__main__":
    main()
