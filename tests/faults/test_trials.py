"""Trials of a real search that are hurt from the inside: each costs itself alone, and says why."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ray_jobs.tracking.client import connect
from tests.faults.drive import LONG_S, clean_environment
from tests.faults.test_numbers_and_memory import POISON

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = ["img_size=64", "batch_size=8", "pretrained=false", "device=cpu", "samples=0"]
SEARCH = {
    "space": {"optimizer": "AdamW", "lr0": {"loguniform": [2e-4, 1e-2]}},
    "budget": {"samples": 4, "epochs": 3},
    "scheduler": {"name": "none"},
    "searcher": {"name": "random"},
    "max_concurrent": 2,
}


def test_bad_numbers_and_too_little_memory_cost_one_trial_each(xrays_mini: Path, tmp_path: Path) -> None:
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(SEARCH))
    (tmp_path / "plan").mkdir()
    for dose in ("2-0-nan", "3-0-oom"):  # done once, to the first trial that comes so far
        (tmp_path / "plan" / dose).touch()
    python = os.pathsep.join([str(POISON), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "ray_jobs.tune", "--data", str(xrays_mini / "data.yaml"), "--run-name", "ill"]
    done = subprocess.run(
        [*command, "--tune", "tune.yaml", *SMALL],
        cwd=tmp_path,
        env=clean_environment(XRAY_POISON=str(tmp_path / "plan"), PYTHONPATH=python),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONG_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert list((tmp_path / "plan").iterdir()) == []
    run = tmp_path / "runs" / "ill"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["states"] == {"failed": 2, "finished": 2}
    nan, memory = sorted(summary["failures"].values())
    assert nan.startswith("epoch 2: the loss is not finite (box_loss nan")
    assert memory.startswith("rank 0: out of memory on cpu with batch_size 8")
    rows = {row["trial"]: row for row in csv.DictReader((run / "trials.csv").read_text().splitlines())}
    assert {number: rows[number]["reason"] for number in summary["failures"]} == summary["failures"]
    assert rows[str(summary["best"]["trial"])]["state"] == "finished"
    client = connect(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("xray-detector")
    failed = client.search_runs([experiment.experiment_id], "attributes.status = 'FAILED'")
    assert sorted(child.data.tags["reason"] for child in failed) == [nan, memory]
