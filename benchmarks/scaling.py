"""How training scales: measured over the cores of this machine, and a model of 8, 64 and 512 GPUs.

    python benchmarks/scaling.py [--data DATA.yaml]

Measured: images/s of 1, 2, 4 and 8 workers with a core each, every one with a batch of its own, as far as cores allow.
On a machine with a GPU ``scaling_parts.py`` also measures the model's parts there (``results/scaling_parts.json``).
Predicted: what ``scaling_model.py`` makes of those parts, drawn in docs/scaling.svg. ``results/scaling.json`` has both.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from commands import ROOT, draw_phantoms, run, train
from comparison import RESULTS, hardware
from scaling_model import DataSize, Network, Parts, epoch_s, pays_to, speed_up

PARTS = RESULTS / "scaling_parts.json"
PICTURE = ROOT / "docs" / "scaling.svg"
GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SIZES = {"15,000 images": DataSize(15_000, 3_000), "1,000,000 images": DataSize(1_000_000, 20_000)}
# Where no GPU was measured: a round guess for yolo12n at 640 px, which the picture and the file call so.
GUESS = Parts("a guess", 64, 0.1, 0.03, 10.4e6, 1500.0, 0.5)


def main() -> None:
    """Measure, predict, draw, save."""
    options = _parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = options.data or draw_phantoms(folder / "phantoms")
        if _has_gpu():
            images = draw_phantoms(folder / "large", 512, 512, 640)
            said = run([sys.executable, str(Path(__file__).with_name("scaling_parts.py")), str(images), "cuda:0"])
            RESULTS.mkdir(exist_ok=True)
            PARTS.write_text(said.splitlines()[-1] + "\n", encoding="utf-8")
        measured = measured_here(data, folder, options.epochs)
    parts = Parts(**json.loads(PARTS.read_text())) if PARTS.is_file() else GUESS
    predicted = predict(parts)
    save(parts, measured, predicted)
    draw(parts)
    for size, figures in predicted.items():
        told = ", ".join(f"{gpus}: {figures['speed_up'][str(gpus)]:.1f}" for gpus in (8, 64, 512))
        print(f"model, {size}: times faster on GPUs {told}; pays to {figures['pays_to']}", flush=True)


def measured_here(data: Path, folder: Path, epochs: int) -> dict[int, float]:
    """Images/s of 1, 2, 4, 8 workers with one core each and a batch of 8 each."""
    found = {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for workers in (n for n in (1, 2, 4, 8) if n <= cores):
        cluster = {"cluster.num_workers": workers, "cluster.cpus_per_worker": 1}
        settings = {"epochs": epochs, "img_size": 256, "batch_size": 8 * workers, "device": "cpu", "close_mosaic": 0}
        run = train(data, folder / f"workers-{workers}", **settings, **cluster, **{"export.onnx": "false"})
        lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
        speeds = [line["metrics"]["images_per_second"] for line in lines if line["kind"] == "epoch"]
        found[workers] = statistics.median(speeds[1:])
        print(f"  {workers} worker(s), a core each: {found[workers]:.1f} images/s", flush=True)
    return found


def predict(parts: Parts) -> dict[str, dict[str, Any]]:
    """Speed-up and seconds of an epoch by number of GPUs, and how far it pays, for each size of data set."""
    return {
        name: {
            "speed_up": {str(gpus): speed_up(parts, gpus, data) for gpus in GPUS},
            "epoch_seconds": {str(gpus): epoch_s(parts, gpus, data) for gpus in GPUS},
            "pays_to": pays_to(parts, data),
        }
        for name, data in SIZES.items()
    }


def save(parts: Parts, measured: dict[int, float], predicted: dict[str, Any]) -> None:
    """Write ``results/scaling.json``."""
    RESULTS.mkdir(exist_ok=True)
    result = {
        "name": "scaling",
        "measured_images_per_second_by_workers": measured,
        "model": {"parts": asdict(parts), "assumed": asdict(Network()), "predicted": predicted},
        "hardware": hardware(),
    }
    (RESULTS / "scaling.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def draw(parts: Parts) -> None:
    """docs/scaling.svg: how many times faster N GPUs are, by the model."""
    from ray_jobs.report.charts import Axis, Line, line_chart
    from ray_jobs.report.page import Html, picture_file

    def axis(label: str) -> Axis:
        return Axis(label, 1, 512, [(gpus, str(gpus)) for gpus in (1, 8, 64, 512)], log=True)

    lines = [Line("", GPUS, GPUS, "pale")]
    lines += [
        Line("", GPUS, [max(speed_up(parts, gpus, data), 1.0) for gpus in GPUS], tone, dots=True)
        for tone, data in enumerate(SIZES.values())
    ]
    ends = [(gpus, f"pays to {gpus}") for gpus in (pays_to(parts, data) for data in SIZES.values())]
    small, large = SIZES
    title = f"Model: times faster than one GPU ({parts.where.split(',')[0]})"
    x = axis(f"GPUs; blue: {small}, orange: {large}, gray: ideal")
    chart = line_chart(title, lines, x, axis(""), [end for end in ends if end[0] < GPUS[-1]])
    svg = Html(chart.removeprefix("<div>").removesuffix("</div>"))  # the page's frame, without a legend in it
    PICTURE.write_text(picture_file(svg), encoding="utf-8")


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="YAML", help="without it, phantoms")
    parser.add_argument("--epochs", type=int, default=4)
    return parser.parse_args()


if __name__ == "__main__":
    main()
