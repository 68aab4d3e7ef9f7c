"""A search of ours against Ultralytics' own: ``python benchmarks/tune.py [--repeats 3]``.

Both search the same space on the same phantom X-rays: as many random trials, two at a time, of as many epochs and
pixels, with ASHA of the same grace and factor, each a command of its own from its start to its end. They take turns.
Prints wall-clock, epochs run and the best mAP50-95 of each, and writes ``benchmarks/results/tune.json``.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

TRIALS, EPOCHS, PIXELS, BATCH, GRACE, FACTOR, AT_ONCE = 8, 6, 160, 8, 1, 3, 2
SPACE = {"lr0": (2e-4, 1e-2), "momentum": (0.8, 0.97), "translate": (0.0, 0.2), "scale": (0.1, 0.6)}
NO_COLOUR = {"fliplr": 0.0, "hsv_h": 0.0, "hsv_s": 0.0}
FIXED = {"optimizer": "AdamW", **NO_COLOUR, "close_mosaic": 0, "mosaic": 0.0, "nbs": BATCH}
AIM = 0.4
RESULT = Path(__file__).parent / "results" / "tune.json"


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
    environment = {**os.environ, **quiet, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    with (folder / "output.log").open("w") as output:
        started = time.perf_counter()
        done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, stdout=output, stderr=output)
        seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit((folder / "output.log").read_text()[-3000:])
    return seconds


def compare(repeats: int) -> dict[str, Any]:
    """Both sides in turns; who is first changes with every repeat."""
    from ray_jobs.dataset.phantom import draw_phantoms

    figures: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory() as root:
        data = draw_phantoms(Path(root) / "phantoms", train=54, val=20, test=8, size=192)
        for repeat in range(repeats):
            sides = [("ours", ours), ("peer", peer)]
            for name, side in sides if repeat % 2 == 0 else reversed(sides):
                folder = Path(root) / f"{name}-{repeat}"
                folder.mkdir()
                figures[name].append(side(data, folder))
                print(f"repeat {repeat + 1}  {name}  {figures[name][-1]}", flush=True)
    return _result(figures)


def _result(figures: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(figures["ours"], figures["peer"], strict=True)]
    middle = {name: statistics.median(run["seconds"] for run in runs) for name, runs in figures.items()}
    ratio = statistics.median(ratios)
    return {
        "name": "tune",
        "unit": "seconds",
        **middle,
        "ratio": ratio,
        "aim": f"<= {AIM}",
        "met": ratio <= AIM,
        "spread": [min(ratios), max(ratios)],
        "repeats": figures,
        "note": f"{TRIALS} trials of up to {EPOCHS} epochs, {AT_ONCE} at a time, {PIXELS} px, batch {BATCH}, phantoms",
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f} at the end",
        "versions": {name: version(name) for name in ("ray", "torch", "ultralytics")},
    }


def main() -> None:
    """Compare and write the result down."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", type=Path, metavar="YAML", help="run the peer's search here (used by this script)")
    options = parser.parse_args()
    if options.peer:
        return run_peer(options.peer)
    result = compare(options.repeats)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    seconds = f"ours {result['ours']:.0f} s, peer {result['peer']:.0f} s"
    print(f"{seconds}, ratio {result['ratio']:.2f} (aim {result['aim']})")
    return None


if __name__ == "__main__":
    main()
