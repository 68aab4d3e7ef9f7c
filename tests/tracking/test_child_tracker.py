"""Runs inside a run: sent through one spool, once each, also after an interruption."""

import json
import shutil
from pathlib import Path

from ray_jobs.tracking.client import connect
from ray_jobs.tracking.null_tracker import NullTracker
from ray_jobs.tracking.spool import spool_path
from ray_jobs.tracking.tracker import Tracker, open_tracker

from .contents import contents


def open_one(run_dir: Path, uri: str, resume: bool = False) -> Tracker:
    tracker = open_tracker(run_dir, "search-1", uri=uri, system_interval_s=None, resume=resume)
    assert isinstance(tracker, Tracker)
    return tracker


def log_trials(tracker: Tracker, epochs: int) -> None:
    for number in (1, 2):
        child = tracker.child(f"000{number}", f"search-1-000{number}", {"lr0": 0.01 * number})
        for epoch in range(1, epochs + 1):
            child.log_metrics({"val/map50_95": 0.1 * epoch * number}, epoch)
    tracker.log_metrics({"best_score": 0.2}, 1)


def test_children_stand_under_their_parent_once_each(run_dir: Path, database: str) -> None:
    tracker = open_one(run_dir, database)
    log_trials(tracker, 2)
    tracker.child("0001", "", {}).finish("KILLED", {"reason": "not among the best"})
    assert tracker.finish("KILLED").pending == 0

    tracker = open_one(run_dir, database, resume=True)
    log_trials(tracker, 3)  # two epochs of which were sent before
    tracker.child("0001", "", {}).finish("KILLED", {"reason": "again"})
    tracker.child("0002", "", {}).finish("FINISHED", {"reason": ""})
    outcome = tracker.finish()
    assert outcome.pending == 0

    runs = {run["name"]: run for run in contents(database)}
    assert set(runs) == {"search-1", "search-1-0001", "search-1-0002"}
    first, second = runs["search-1-0001"], runs["search-1-0002"]
    assert (first["status"], second["status"], runs["search-1"]["status"]) == ("KILLED", "FINISHED", "FINISHED")
    assert first["tags"]["reason"] == "not among the best"
    assert first["params"] == {"lr0": "0.01"}
    assert [(step, value) for step, value, _ in second["points"]["val/map50_95"]] == [(1, 0.2), (2, 0.4), (3, 0.6)]
    client = connect(database)
    parents = {client.get_run(run["id"]).data.tags["mlflow.parentRunId"] for run in (first, second)}
    assert parents == {outcome.run_id}


def test_a_lost_cursor_doubles_nothing(run_dir: Path, database: str) -> None:
    tracker = open_one(run_dir, database)
    log_trials(tracker, 2)
    tracker.finish()
    before = contents(database)
    (run_dir / "tracking" / "cursor.json").unlink()
    again = open_one(run_dir, database, resume=True)
    again.finish()
    assert [{**run, "tags": 0} for run in contents(database)] == [{**run, "tags": 0} for run in before]
    assert len(before) == 3


def test_a_child_that_goes_on_runs_again(run_dir: Path, database: str) -> None:
    tracker = open_one(run_dir, database)
    log_trials(tracker, 1)
    tracker.child("0001", "", {}).finish("KILLED", {"reason": "the search was stopped"})
    tracker.finish("KILLED")
    tracker = open_one(run_dir, database, resume=True)
    child = tracker.child("0001", "", {})
    child.resume()
    child.resume()
    child.finish("FINISHED", {"reason": ""})
    tracker.finish()
    kinds = [json.loads(line)["kind"] for line in spool_path(run_dir).read_text().splitlines()]
    assert kinds.count("child") == 2
    assert kinds.count("resume") == 2, "one of the parent, one of the child"
    status = {run["name"]: run["status"] for run in contents(database)}
    assert status["search-1-0001"] == "FINISHED"


def test_without_tracking_children_do_nothing(run_dir: Path) -> None:
    shutil.rmtree(run_dir)
    child = NullTracker().child("0001", "a", {})
    child.log_metrics({"a": 1.0}, 1)
    child.finish("FINISHED", {})
    assert not run_dir.exists()
