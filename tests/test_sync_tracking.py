"""The job that sends what waits: what it prints, its exit codes, and that it can be repeated."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ray_jobs import sync_tracking
from ray_jobs.errors import BadInput
from ray_jobs.tracking.spool import spool_path
from ray_jobs.tracking.tracker import open_tracker


@pytest.fixture
def run_dir(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was tracked at an address where nothing listens."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    folder = tmp_path / "run-1"
    folder.mkdir()
    tracker = open_tracker(folder, "run-1", uri="http://anna:secret@127.0.0.1:9", system_interval_s=None)
    tracker.log_metrics({"loss": 1.0}, 0)
    tracker.finish(timeout_s=0)
    tracker._thread.join(timeout=30)
    return folder


@pytest.fixture
def database(run_dir: Path) -> str:
    return f"sqlite:///{run_dir.parent / 'mlflow.db'}"


def test_it_sends_once_and_says_what(run_dir: Path, database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sync_tracking.main([str(run_dir), "--uri", database]) == 0
    assert "run-1: sent 3 records (start 1, metrics 1, finish 1)" in capsys.readouterr().out
    assert sync_tracking.main([str(run_dir), "--uri", database]) == 0
    assert "run-1: nothing left to send" in capsys.readouterr().out


def test_a_server_that_still_fails_is_exit_code_1_and_says_how_much_waits(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sync_tracking.main([str(run_dir), "--uri", "http://127.0.0.1:9", "--timeout", "0"]) == 1
    printed = capsys.readouterr().out
    assert "http://127.0.0.1:9 fails: " in printed
    assert "3 records wait; run this again" in printed


def test_an_address_whose_password_was_not_kept_is_asked_for(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"http://\*\*\*@127.0.0.1:9, whose password is not kept; .*--uri"):
        sync_tracking.main([str(run_dir)])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://anna:secret@127.0.0.1:9")
    assert sync_tracking.main([str(run_dir), "--timeout", "0"]) == 1


def test_every_folder_that_is_no_run_is_named(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        sync_tracking.main([str(run_dir), str(tmp_path), str(tmp_path / "none")])
    assert caught.value.problems == [
        f"{tmp_path}: holds no tracked run (no tracking/spool.jsonl); was tracking off?",
        f"{tmp_path / 'none'}: no such folder",
    ]


def test_a_damaged_spool_is_bad_input(run_dir: Path, database: str) -> None:
    text = spool_path(run_dir).read_text()
    spool_path(run_dir).write_text(text.replace('{"kind":"metrics"', "rubbish", 1))
    with pytest.raises(BadInput, match=r"spool\.jsonl: damaged at byte \d+"):
        sync_tracking.main([str(run_dir), "--uri", database])


def test_the_command_itself(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ray_jobs.sync_tracking"]
    explained = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    assert "Exit codes: 0 everything is sent, 1 the server still fails" in explained
    missing = subprocess.run([*command, str(tmp_path / "none")], capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert "no such folder" in missing.stderr
    assert "Traceback" not in missing.stderr
