"""The tracker: nothing is lost, nothing arrives twice, and nobody waits."""

import inspect
import logging
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from ray_jobs import sync_tracking
from ray_jobs.errors import RunExists
from ray_jobs.tracking.client import connect
from ray_jobs.tracking.registry import RegistryRequest
from ray_jobs.tracking.spool import read_spool, spool_path
from ray_jobs.tracking.tracker import NullTracker, Tracker, open_tracker

from .conftest import HungServer, MlflowServer, free_port
from .contents import assert_whole, contents, log_a_whole_run

TYPICAL_CALL_S = 0.05  # a call is an append to a file
LONGEST_CALL_S = 5.0  # and a busy machine may let it wait for its turn; a call that waits for the server takes 20 s


def open_quietly(run_dir: Path, uri: str | None = None, **options: object) -> Tracker:
    tracker = open_tracker(run_dir, run_dir.name, uri=uri, system_interval_s=None, **options)
    assert isinstance(tracker, Tracker)
    return tracker


def test_everything_arrives_in_the_default_database_and_no_mlruns_appears(
    run_dir: Path, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = open_quietly(run_dir, tags={"site": "north"})
    log_a_whole_run(tracker)
    outcome = tracker.finish(timeout_s=60)
    (run,) = contents(database)
    assert_whole(run)
    assert (run["status"], run["name"], run["tags"]["site"]) == ("FINISHED", "run-1", "north")
    assert (outcome.run_id, outcome.pending, outcome.error) == (run["id"], 0, None)
    assert database in (outcome.open_with or "")
    assert (run_dir.parent / "mlartifacts" / run["id"] / "artifacts" / "settings.yaml").is_file()
    assert not list(tmp_path.rglob("mlruns"))


def test_everything_arrives_at_a_server(run_dir: Path, mlflow_server: MlflowServer) -> None:
    tracker = open_quietly(run_dir, mlflow_server.url, experiment="arrives")
    log_a_whole_run(tracker)
    outcome = tracker.finish("FAILED", timeout_s=60)
    (run,) = contents(mlflow_server.url, "arrives")
    assert_whole(run)
    assert run["status"] == "FAILED"
    assert outcome.url is not None
    assert outcome.url.endswith(f"/runs/{run['id']}")


def test_a_server_that_is_down_is_said_once_and_sent_later(
    run_dir: Path, mlflow_server: MlflowServer, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    down = f"http://127.0.0.1:{free_port()}"
    with caplog.at_level(logging.WARNING, "ray_jobs"):
        tracker = open_quietly(run_dir, down, experiment="down")
        log_a_whole_run(tracker)
        outcome = tracker.finish(timeout_s=3)
    said = [record.getMessage() for record in caplog.records if "fails" in record.getMessage()]
    assert len(said) == 1
    assert "Connection refused" in said[0]
    assert f"python -m ray_jobs.sync_tracking {run_dir}" in said[0]
    assert outcome.pending == len(list(read_spool(spool_path(run_dir)))) > 5
    assert outcome.run_id is None
    assert sync_tracking.main([str(run_dir), "--uri", mlflow_server.url]) == 0
    (run,) = contents(mlflow_server.url, "down")
    assert_whole(run)
    assert run["status"] == "FINISHED"
    assert "sent" in capsys.readouterr().out


def test_a_hung_server_holds_nobody_up(run_dir: Path, hung_server: HungServer) -> None:
    tracker = open_quietly(run_dir, hung_server.url)
    wait_until(lambda: hung_server.accepted)
    taken = []
    for epoch in range(200):
        began = time.perf_counter()
        tracker.log_metrics({"train/box_loss": 1.0 / (epoch + 1)}, epoch)
        taken.append(time.perf_counter() - began)
    assert statistics.median(taken) < TYPICAL_CALL_S
    assert max(taken) < LONGEST_CALL_S
    began = time.perf_counter()
    outcome = tracker.finish(timeout_s=1)
    assert 0.9 < time.perf_counter() - began < 15
    assert outcome.pending == 202
    assert outcome.error == f"{hung_server.url} did not answer in time"


def test_a_server_that_hung_and_goes_on_has_one_run(
    run_dir: Path, mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What it was asked while it hung, and nobody waited for, it does later: the run must not be there twice."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    connect(mlflow_server.url).create_experiment("hung")
    mlflow_server.hang()
    try:
        tracker = open_quietly(run_dir, mlflow_server.url, experiment="hung")
        log_a_whole_run(tracker)
        wait_until(lambda: "fails: " in caplog.text)
    finally:
        mlflow_server.go_on()
    assert tracker.finish(timeout_s=60).pending == 0
    (run,) = contents(mlflow_server.url, "hung")
    assert_whole(run)
    assert "Read timed out" in caplog.text


def test_a_server_killed_in_the_middle_gets_the_rest_when_it_is_back(
    run_dir: Path, mlflow_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ray_jobs")
    tracker = open_quietly(run_dir, mlflow_server.url, experiment="killed")
    tracker.log_metrics({"metrics/mAP50(B)": 0.0, "train/box_loss": float("nan")}, 0)
    wait_until(lambda: tracker._delivery.cursor.records >= 2)
    mlflow_server.kill()
    try:
        log_a_whole_run(tracker)
        wait_until(lambda: "fails" in caplog.text)
    finally:
        mlflow_server.start()
    outcome = tracker.finish(timeout_s=60)
    (run,) = contents(mlflow_server.url, "killed")
    assert_whole(run)
    assert (outcome.pending, outcome.error, run["status"]) == (0, None, "FINISHED")
    assert "answers again" in caplog.text


def test_a_server_that_is_back_after_an_hour_gets_everything_with_its_own_times(
    run_dir: Path, mlflow_server: MlflowServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hour is the clock's, which is moved while the server is down."""
    mlflow_server.kill()
    try:
        tracker = open_quietly(run_dir, mlflow_server.url, experiment="hour")
        log_a_whole_run(tracker)
        wait_until(lambda: "fails" in caplog.text)
        said_by = time.time() * 1000
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600)
        monkeypatch.setattr("ray_jobs.tracking.tracker.time", later)
    finally:
        mlflow_server.start()
    wait_until(lambda: tracker._delivery.pending() == 0)  # by itself: nobody waits for its end
    tracker.finish(timeout_s=60)
    (run,) = contents(mlflow_server.url, "hour")
    assert_whole(run)
    assert all(at <= said_by for points in run["points"].values() for _, _, at in points)


def test_a_continued_run_is_the_same_run(run_dir: Path, database: str) -> None:
    first = open_quietly(run_dir)
    log_a_whole_run(first, epochs=2)
    assert first.finish("KILLED", timeout_s=60).pending == 0
    with pytest.raises(RunExists, match="run-1"):
        open_quietly(run_dir)
    second = open_quietly(run_dir, resume=True)
    second.log_metrics({"metrics/mAP50(B)": 0.1, "train/box_loss": float("nan")}, 1)  # the epoch is repeated, equal
    second.log_metrics({"metrics/mAP50(B)": 0.2, "train/box_loss": float("nan")}, 2)
    second.log_params({"epochs": 3, "lr0": 0.01})
    second.finish(timeout_s=60)
    (run,) = contents(database)
    assert run["status"] == "FINISHED"
    assert [(step, value) for step, value, _ in run["points"]["metrics/mAP50B"]] == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert run["params"]["epochs"] == "2"  # MLflow's parameters are written once
    assert run["tags"]["xray.changed.epochs"] == "3"


def test_a_driver_that_was_killed_left_nothing_behind_but_records(run_dir: Path, database: str) -> None:
    driver = """
import os, signal, sys
from pathlib import Path
from ray_jobs.tracking.tracker import open_tracker
tracker = open_tracker(Path(sys.argv[1]), "run-1", uri=sys.argv[2], system_interval_s=None)
tracker.log_metrics({"loss": 2.0}, 0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", driver, str(run_dir), database], check=False)
    assert killed.returncode == -signal.SIGKILL
    with spool_path(run_dir).open("ab") as file:
        file.write(b'{"kind":"metr')  # the record that it was writing
    tracker = open_quietly(run_dir, resume=True)
    tracker.log_metrics({"loss": 1.0}, 1)
    assert tracker.finish(timeout_s=60).pending == 0
    (run,) = contents(database)
    assert [(step, value) for step, value, _ in run["points"]["loss"]] == [(0, 2.0), (1, 1.0)]


def test_secrets_reach_neither_the_spool_nor_the_log(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "hunter2-hunter2"
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secret)
    caplog.set_level(logging.DEBUG, "ray_jobs")
    tracker = open_quietly(run_dir, f"http://anna:{secret}@127.0.0.1:{free_port()}")
    tracker.log_params({"storage.password": "abc", "url": f"s3://key:{secret}@bucket", "note": f"is {secret}"})
    tracker.set_tags({"token": "abcdef", "note": f"is {secret}"})
    tracker.log_dataset("d", "f" * 64, f"https://anna:{secret}@host/data", {})
    tracker.register(RegistryRequest("m", run_dir / "best.onnx", tags={"x": secret}, description=secret))
    outcome = tracker.finish(timeout_s=2)
    written = "".join(path.read_text() for path in spool_path(run_dir).parent.iterdir())
    for text in (written, caplog.text, str(outcome)):
        assert secret not in text
    assert "abc" not in written
    assert "fails" in caplog.text


def test_files_and_the_model_stay_at_home_where_artifacts_are_off(
    run_dir: Path, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = open_quietly(run_dir, artifacts=False)
    log_a_whole_run(tracker)
    tracker.register(RegistryRequest("never", run_dir / "best.onnx"))
    outcome = tracker.finish(timeout_s=60)
    (run,) = contents(database)
    assert run["files"] == []
    assert outcome.registered is None
    assert "'never' is not registered" in caplog.text
    assert connect(database).search_registered_models() == []


def test_system_metrics_are_points_of_the_run(run_dir: Path, database: str) -> None:
    tracker = open_tracker(run_dir, "run-1", system_interval_s=0.05)
    wait_until(lambda: "system/" in spool_path(run_dir).read_text())
    tracker.finish(timeout_s=60)
    (run,) = contents(database)
    assert run["points"]["system/system_memory_usage_percentage"]


def test_a_folder_that_cannot_hold_a_spool_is_known_at_once(tmp_path: Path) -> None:
    (tmp_path / "run-1").write_text("a file")
    with pytest.raises(OSError, match="run-1"):
        open_quietly(tmp_path / "run-1")


def test_no_tracking_is_a_twin_of_tracking(tmp_path: Path) -> None:
    tracker = open_tracker(tmp_path / "run-1", "run-1", uri="none")
    assert isinstance(tracker, NullTracker)
    public = [name for name, _ in inspect.getmembers(NullTracker, inspect.isfunction) if not name.startswith("_")]
    assert len(public) == 9
    for name in public:
        null, real = (inspect.signature(getattr(kind, name)) for kind in (NullTracker, Tracker))
        assert null.parameters == real.parameters, name
    tracker.log_metrics({"a": 1.0}, 0)
    assert tracker.finish().run_id is None
    assert list(tmp_path.iterdir()) == []


def wait_until(condition, limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
