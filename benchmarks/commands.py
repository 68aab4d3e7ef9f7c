"""Commands as a user gives them, each a process of its own, with the environment that a benchmark needs.

In: a command. Out: what it printed; where it fails, a ``SystemExit`` with the end of what it said.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
XRAYS = Path(os.environ.get("XRAY_DATA_DIR", ROOT.parent / "shared" / "data"))  # those of the tests
OURS_ALWAYS = {"pretrained": "false", "tracking.uri": "none", "tracking.registry": "false", "samples": 0}


def run(command: list[str], folder: Path | None = None, **variables: str) -> str:
    """Run a command to its end; returns its standard output. ``variables`` are added to the environment."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment(**variables))
    if done.returncode:
        said = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done.stdout


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without what a cluster or a limit on threads left in it, and with this source."""
    left_out = ("RAY_", "MLFLOW_", "OMP_NUM_THREADS")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {**clean, "PYTHONPATH": str(ROOT), **variables}


def train(data: Path, output: Path, **settings: object) -> Path:
    """Train here, without tracking and registry; returns the run's folder."""
    command = [sys.executable, "-m", "ray_jobs.train", "--data", str(data), "--run-name", "run"]
    values = {**OURS_ALWAYS, "output_dir": output, **settings}
    run([*command, *(f"{key}={value}" for key, value in values.items())])
    return output / "run"


def draw_phantoms(folder: Path, train: int = 75, val: int = 20, size: int = 256) -> Path:
    """A data set of phantom X-rays; returns its data.yaml."""
    command = [sys.executable, "-m", "ray_jobs.dataset.phantom", "--out", str(folder), "--size", str(size)]
    run([*command, "--train", str(train), "--val", str(val), "--test", str(val)])
    return folder / "data.yaml"
