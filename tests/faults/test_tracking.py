"""MLflow hangs, dies and comes back in mid-run: training is not held up, and MLflow ends up with everything, once."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.drive import EPOCHS, SMALL, Drive, clean_environment, epochs, journal
from tests.tracking.conftest import MlflowServer
from tests.tracking.contents import contents

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowServer]:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    server = MlflowServer(folder)
    server.start()
    yield server
    server.kill()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_server_that_hangs_and_dies_misses_nothing(
    xrays_mini: Path, tmp_path: Path, server: MlflowServer, reference: dict[int, str], timing: Callable[[str], None]
) -> None:
    options = [*SMALL, f"tracking.uri={server.url}", "export.onnx=true"]
    run = tmp_path / "runs" / "tracked"
    arguments = ["--data", xrays_mini / "data.yaml", "--run-name", "tracked", *options]
    with Drive(tmp_path, *arguments, tracking=True) as drive:
        drive.wait_for("epoch 2/")
        server.hang()
        drive.wait_for("epoch 4/")
        os.kill(drive.workers()[0], signal.SIGKILL)
        drive.wait_for("workers were lost: ")
        server.go_on()
        drive.wait_for("epoch 5/")
        server.kill()
        said = drive.end()
    assert "tracking: " in said
    assert " fails: " in said
    summary = json.loads((run / "summary.json").read_text())
    assert summary["tracking"]["pending"] > 0
    assert epochs(run) == reference
    lines = [line["metrics"] for line in journal(run) if line["kind"] == "epoch"]
    timing(f"MLflow hung and killed: longest epoch {max(line['train_seconds'] for line in lines):.1f} s of training")

    server.start()
    for _ in range(2):  # the second finds nothing to do
        command = [sys.executable, "-m", "ray_jobs.sync_tracking", str(run)]
        done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
    (found,) = contents(server.url)
    assert found["status"] == "FINISHED"
    assert "rank 0: its process died" in found["tags"]["faults"] or "rank 1: its" in found["tags"]["faults"]
    assert found["tags"]["fault_count"] == "1"
    for name in ("train/box_loss", "val/map50", "images_per_second"):
        assert [step for step, _, _ in found["points"][name]] == list(range(1, EPOCHS + 1)), name
    assert {"settings.yaml", "results.csv", "weights/best.pt", "weights/best.onnx"} <= set(found["files"])
    assert len(found["files"]) == len(set(found["files"]))
    from ray_jobs.tracking.client import connect

    versions = connect(server.url).search_model_versions("name='xray-detector'")
    assert [version.version for version in versions] in (["1"], [1])
