"""A champion is followed for as long as the server runs, whatever a registry or a version comes up with."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ray_jobs.serving import champion as champion_module
from ray_jobs.serving.champion import Champion
from ray_jobs.tracking.client import connect

NAME = "followed"


@pytest.fixture
def registry(tmp_path: Path, empty_database: Path) -> str:
    uri = f"sqlite:///{shutil.copy(empty_database, tmp_path / 'mlflow.db')}"
    client = connect(uri)
    client.create_experiment("followed", (tmp_path / "artifacts").as_uri())
    client.create_registered_model(NAME)
    return uri


def crown(uri: str, onnx: Path) -> None:
    """Make this file the newest version, and the champion."""
    client = connect(uri)
    run = client.create_run(client.get_experiment_by_name("followed").experiment_id).info
    client.log_artifact(run.run_id, str(onnx), "weights")
    version = client.create_model_version(NAME, f"{run.artifact_uri}/weights", run.run_id).version
    client.set_registered_model_alias(NAME, "champion", version)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_error_ends_the_following(
    registry: str, tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    crown(registry, tiny_onnx)
    followed = Champion(f"models:/{NAME}@champion", None, registry, threads=1, poll_s=0.05)
    followed.start()
    try:
        assert (followed.current.version, followed.registry) == ("1", "ok")
        with monkeypatch.context() as patch:
            patch.setattr(champion_module, "find_version", lambda *_: [][1])
            wait_for(lambda: "cannot be taken over (IndexError) since 20" in followed.registry)
        assert "keeping version 1" in caplog.text
        wait_for(lambda: followed.registry == "ok")
        broken = tmp_path / "best.onnx"
        broken.write_bytes(b"no detector")
        crown(registry, broken)
        wait_for(lambda: "cannot be taken over (WeightsError) since 20" in followed.registry)
        assert followed.current.version == "1"
        crown(registry, tiny_onnx)
        wait_for(lambda: followed.current.version == "3" and followed.registry == "ok")
    finally:
        followed.stop()
