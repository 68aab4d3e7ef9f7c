"""A whole search on real X-rays, as its users run it: its driver is killed in the middle, and it goes on."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_jobs.errors import BadInput
from ray_jobs.flows.search.preparation import earlier_trials
from ray_jobs.search.settings import SearchSettings
from ray_jobs.search.space import parse_space
from ray_jobs.settings import Settings
from ray_jobs.tracking.client import connect

pytestmark = pytest.mark.timeout(600)
SMALL = ["img_size=64", "batch_size=8", "pretrained=false", "device=cpu", "samples=0", "epochs=1"]
TRIALS = 8
KINDS = ("best", "defaults")
SEARCH: dict[str, Any] = {
    "space": {"optimizer": "AdamW", "lr0": {"loguniform": [2e-4, 1e-2]}, "mosaic": {"choice": [0.0, 1.0]}},
    "budget": {"samples": TRIALS, "epochs": 3},
    "scheduler": {"grace_epochs": 1, "reduction_factor": 2.0},
    "searcher": {"startup": 3, "points": [{"lr0": 0.002}]},
    "checkpoint_s": 0.0,
    "max_concurrent": 2,
}


def environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    return {**clean, "CUDA_VISIBLE_DEVICES": ""}


def job(folder: Path, *arguments: str | Path, job: str = "tune") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"ray_jobs.{job}", *map(str, arguments)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment(), **pipes)


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=500)
    assert process.returncode == 0, said
    return said


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    journal = folder / "runs" / "first" / "trials.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


@pytest.fixture(scope="module")
def found(xrays_mini: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[int]]:
    """A finished search: its folder's parent, what it said after its driver was killed, and the trials ended before."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "tune.yaml").write_text(yaml.safe_dump(SEARCH, sort_keys=False))
    process = job(folder, "--data", xrays_mini / "data.yaml", "--tune", "tune.yaml", "--run-name", "first", *SMALL)
    while len(events(folder, "ended")) < 3:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    ended = [event["trial"] for event in events(folder, "ended")]
    return folder, finish(job(folder, "--resume", "first")), ended


@pytest.mark.slow
def test_a_killed_search_goes_on_and_repeats_no_trial(found: tuple[Path, str, list[int]]) -> None:
    folder, said, before = found
    assert f"going on with first: {len(before)} of {TRIALS} trials ended before" in said
    assert Counter(event["trial"] for event in events(folder, "ended")) == dict.fromkeys(range(1, TRIALS + 1), 1)
    started = Counter(event["trial"] for event in events(folder, "started"))
    assert all(started[trial] == 1 for trial in before)
    assert [event["trial"] for event in events(folder, "suggested")] == list(range(1, TRIALS + 1))
    assert events(folder, "suggested")[0]["parameters"]["lr0"] == 0.002


@pytest.mark.slow
def test_the_result_is_a_table_a_summary_and_a_report(found: tuple[Path, str, list[int]]) -> None:
    folder, said, _ = found
    run = folder / "runs" / "first"
    rows = list(csv.DictReader((run / "trials.csv").read_text().splitlines()))
    assert [int(row["trial"]) for row in rows] == list(range(1, TRIALS + 1))
    assert {row["state"] for row in rows} == {"finished", "stopped"}
    summary = json.loads((run / "summary.json").read_text())
    assert summary["trials"] == TRIALS
    assert summary["epochs_run"] + summary["epochs_saved"] == 3 * TRIALS
    assert summary["epochs_saved"] > 0
    assert summary["cpu_hours"] > 0
    best = max(rows, key=lambda row: float(row["score"]))
    assert summary["best"]["trial"] == int(best["trial"])
    assert "<html" in (run / "report.html").read_text()
    assert not list((run / "trials").iterdir()), "checkpoints of trials that ended are removed"
    assert f"best: trial {best['trial']}" in said


@pytest.mark.slow
def test_the_best_settings_feed_a_training_at_once(found: tuple[Path, str, list[int]]) -> None:
    folder = found[0]
    best = yaml.safe_load((folder / "runs" / "first" / "best_config.yaml").read_text())
    summary = json.loads((folder / "runs" / "first" / "summary.json").read_text())
    assert {key: best[key] for key in ("optimizer", "lr0", "mosaic")} == summary["best"]["parameters"]
    assert (best["epochs"], best["run_name"]) == (1, None)
    said = finish(job(folder, "--config", "runs/first/best_config.yaml", "--run-name", "full", job="train"))
    assert "epoch 1/1" in said
    written = yaml.safe_load((folder / "runs" / "full" / "settings.yaml").read_text())
    assert written["lr0"] == best["lr0"]


@pytest.mark.slow
def test_the_winner_is_trained_registered_and_compared_with_the_defaults(found: tuple[Path, str, list[int]]) -> None:
    runs = found[0] / "runs"
    said = finish(job(found[0], "--resume", "first", "--train-best"))
    summary = json.loads((runs / "first" / "summary.json").read_text())
    written = {kind: yaml.safe_load((runs / f"first-{kind}" / "settings.yaml").read_text()) for kind in KINDS}
    assert written["best"]["lr0"] == summary["best"]["parameters"]["lr0"]
    assert written["defaults"]["lr0"] == Settings().lr0
    trained = summary["trained"]
    assert trained["split"] == "test"
    difference, images = trained["comparison"]["map50_95"], trained["comparison"]
    assert (images["drawn"], images["over"]) == (19, "images")
    assert difference["low"] <= difference["value"] <= difference["high"]
    best, defaults = (trained[f"{kind}_run"]["map50_95"] for kind in KINDS)
    assert difference["value"] == pytest.approx(best - defaults)
    assert f"difference  {difference['value']:+.3f} (95 % interval {difference['low']:+.3f} to " in said
    registered = trained["registry"]
    assert f"registered  xray-detector version {registered['version']} @challenger" in said
    client = connect(f"sqlite:///{runs / 'mlflow.db'}")
    versions = client.search_model_versions("name = 'xray-detector'")
    of_runs = {client.get_run(version.run_id).info.run_name for version in versions}
    assert "first-best" in of_runs
    assert "first-defaults" not in of_runs
    assert "On the test split it" in (runs / "first" / "report.html").read_text()


@pytest.mark.slow
def test_mlflow_has_the_search_and_each_trial_once(found: tuple[Path, str, list[int]]) -> None:
    client = connect(f"sqlite:///{found[0] / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("xray-detector")
    assert experiment
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    parent = runs["first"]
    assert parent.info.status == "FINISHED"
    assert "space.lr0" in parent.data.params
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"report.html", "best_config.yaml", "trials.csv"} <= files
    children = [run for run in runs.values() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == TRIALS
    for child in children:
        state = child.data.tags["state"]
        assert child.info.status == {"finished": "FINISHED", "stopped": "KILLED"}[state]
        assert (child.data.tags["reason"] != "") == (state == "stopped")
        assert {"lr0", "mosaic", "optimizer"} == set(child.data.params)
        steps = [point.step for point in client.get_metric_history(child.info.run_id, "val/map50_95")]
        assert steps == sorted(set(steps)), "no epoch twice"


@pytest.mark.slow
def test_a_later_search_learns_from_it(found: tuple[Path, str, list[int]]) -> None:
    later = {
        **SEARCH,
        "space": {**SEARCH["space"], "lr0": {"loguniform": [2e-4, 5e-3]}},
        "searcher": {"earlier": ["first"]},
    }
    search = SearchSettings.model_validate(later)
    space, _ = parse_space(search.space)
    rows = csv.DictReader((found[0] / "runs" / "first" / "trials.csv").read_text().splitlines())
    inside = [row for row in rows if float(row["lr0"]) <= 5e-3]
    earlier = earlier_trials(search, space, found[0] / "runs")
    assert [score for _, score in earlier] == pytest.approx([float(row["score"]) for row in inside], rel=1e-5)
    other = search.model_copy(update={"metric": "val/map50"})
    with pytest.raises(BadInput, match="their trials do not compare"):
        earlier_trials(other, space, found[0] / "runs")


@pytest.mark.slow
def test_what_would_fail_everywhere_fails_before_the_first_trial(found: tuple[Path, str, list[int]]) -> None:
    folder = found[0]
    (folder / "frozen.yaml").write_text(yaml.safe_dump({**SEARCH, "space": {**SEARCH["space"], "freeze": 30}}))
    data = yaml.safe_load((folder / "runs" / "first" / "settings.yaml").read_text())["data"]
    process = job(folder, "--data", data, "--tune", "frozen.yaml", "--run-name", "frozen", *SMALL)
    said, _ = process.communicate(timeout=500)
    assert process.returncode == 2, said
    assert "model_name yolo12n, img_size 64, batch_size 8: RuntimeError: 'freeze=30' froze the entire model" in said
    assert not (folder / "runs" / "frozen").exists()


@pytest.mark.slow
def test_a_finished_search_is_not_run_again(found: tuple[Path, str, list[int]]) -> None:
    folder = found[0]
    before = (folder / "runs" / "first" / "trials.jsonl").read_bytes()
    assert "first is finished" in finish(job(folder, "--resume", "first"))
    assert (folder / "runs" / "first" / "trials.jsonl").read_bytes() == before
