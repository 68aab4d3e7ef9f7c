"""Training here against plain Ultralytics: throughput, the whole job, the time to the first step, two workers and one.

    python benchmarks/training.py [--data DATA.yaml] [--epochs 40] [--size 256] [--repeats 5] [--times 1]

Same images, seed, image size, global batch, epochs and optimizer settings on both sides; every run is a command of its
own with folders of its own. Without ``--data`` it draws phantoms. ``--times 10`` repeats every training image ten
times, so that start-up no longer counts. Results go to ``benchmarks/results/``.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from comparison import Comparison, in_turns, show

HERE = Path(__file__).parent
BATCH = 16
SAME = {"nbs": BATCH, "fliplr": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "seed": 0, "device": "cpu"}
OURS = {
    "pretrained": "false",
    "tracking.uri": "none",
    "tracking.registry": "false",
    "export.onnx": "false",
    "samples": 0,
}


def main() -> None:
    """Run what was asked for, show one table, save it."""
    options = _parse()
    with tempfile.TemporaryDirectory() as folder:
        data = own_copy(options.data, Path(folder) / "data", options.times)
        job = Job(data, Path(folder), options.epochs, options.size)
        suffix = "" if options.times == 1 else f"_{options.times}_times_the_data"
        comparisons = whole_jobs(job, options.repeats, suffix)
        if options.times == 1:
            comparisons.append(two_workers(job, options.repeats))
    for comparison in comparisons:
        comparison.save()
    show([comparison.as_dict() for comparison in comparisons])


class Job:
    """The same training job for both sides."""

    def __init__(self, data: Path, folder: Path, epochs: int, size: int) -> None:
        self.data, self.folder, self.epochs, self.size = data, folder, epochs, size
        self.runs = 0

    def ours(self, **settings: Any) -> dict[str, Any]:
        """Train here; returns seconds to the first step and in all, images per second, and validation scores."""
        output = self._new_folder()
        values = {**SAME, **OURS, "epochs": self.epochs, "img_size": self.size, "batch_size": BATCH, **settings}
        command = [sys.executable, "-m", "ray_jobs.train", "--data", str(self.data), "--run-name", "run"]
        began = time.time()
        _run([*command, f"output_dir={output}", *(f"{key}={value}" for key, value in values.items())])
        total = time.time() - began
        run = output / "run"
        epochs = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
        metrics = [epoch["metrics"] for epoch in epochs if epoch["kind"] == "epoch"]
        return {
            "first_step": metrics[0]["started"] - began,
            "total": total,
            "images_per_second": [epoch["images_per_second"] for epoch in metrics],
            "map50": max(epoch["val/map50"] for epoch in metrics),
        }

    def peer(self) -> dict[str, Any]:
        """Train with plain Ultralytics; returns the same."""
        values = {**SAME, "epochs": self.epochs, "imgsz": self.size, "batch": BATCH, "workers": 0}
        script = [sys.executable, str(HERE / "plain_ultralytics.py"), str(self.data), str(self._new_folder())]
        output = _run([*script, str(time.time()), *(f"{key}={value}" for key, value in values.items())])
        figures: dict[str, Any] = json.loads(output.splitlines()[-1])
        return figures

    def _new_folder(self) -> Path:
        self.runs += 1
        return self.folder / f"run-{self.runs}"


def whole_jobs(job: Job, repeats: int, suffix: str) -> list[Comparison]:
    """Throughput in steady state, seconds of the whole job, and seconds to the first step, from the same runs."""
    ours, peer = in_turns(repeats, lambda _: job.ours(), lambda _: job.peer())
    scores = f"best validation mAP50 {_scores(ours)} against {_scores(peer)}"
    steady_ours, steady_peer = ([_steady(run) for run in runs] for runs in (ours, peer))
    jobs = [
        Comparison(f"training_throughput{suffix}", "images/s", steady_ours, steady_peer, 3.0, more=True, note=scores),
        Comparison(
            f"whole_job{suffix}",
            "s",
            [run["total"] for run in ours],
            [run["total"] for run in peer],
            0.35 if suffix else 0.5,
            note=scores,
        ),
    ]
    if not suffix:
        seconds = [run["first_step"] for run in peer]
        jobs.append(FirstStep("first_step", "s", [run["first_step"] for run in ours], seconds, 10.0))
    return jobs


class FirstStep(Comparison):
    """Its aim is a difference in seconds: how much later than the peer's the first step may come."""

    @property
    def met(self) -> bool:
        """Whether the median difference keeps the aim."""
        later = sorted(ours - peer for ours, peer in zip(self.ours, self.peer, strict=True))
        return later[len(later) // 2] <= self.aim

    def as_dict(self) -> dict[str, Any]:
        """As every comparison, with the aim in words."""
        return {**super().as_dict(), "aim": f"<= peer + {self.aim:g} s"}


def two_workers(job: Job, repeats: int) -> Comparison:
    """Two workers with a core each against one with both."""
    two, one = in_turns(
        repeats,
        lambda _: _steady(job.ours(**{"cluster.num_workers": 2})),
        lambda _: _steady(job.ours(**{"cluster.num_workers": 1})),
    )
    return Comparison("two_workers_against_one", "images/s", two, one, 0.95, more=True, note="the same cores in total")


def own_copy(data: Path | None, folder: Path, times: int) -> Path:
    """A copy of the data set that may be written to, each training image ``times`` times; phantoms without ``data``."""
    if data is None:
        command = [sys.executable, "-m", "ray_jobs.dataset.phantom", "--out", str(folder)]
        _run([*command, "--train", "75", "--val", "20", "--test", "20"])
        data = folder / "data.yaml"
    else:
        shutil.copytree(data.parent, folder)
    source = yaml.safe_load((folder / data.name).read_text(encoding="utf-8"))
    source["path"] = str(folder)
    images = sorted((folder / source["train"]).iterdir())
    listed = folder / "train.txt"
    listed.write_text("".join(f"{image}\n" for image in images) * times, encoding="utf-8")
    (folder / data.name).write_text(yaml.safe_dump({**source, "train": str(listed)}), encoding="utf-8")
    return folder / data.name


def _steady(run: dict[str, Any]) -> float:
    """The median over all epochs but the first, which fills caches."""
    speeds = sorted(run["images_per_second"][1:])
    return float(speeds[len(speeds) // 2])


def _scores(runs: list[dict[str, Any]]) -> str:
    return ", ".join(f"{run['map50']:.3f}" for run in runs)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="YAML")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--times", type=int, default=1, help="how often each training image is listed")
    return parser.parse_args()


if __name__ == "__main__":
    main()
