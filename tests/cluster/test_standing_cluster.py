"""Environment 1, up for real: a cluster that stands, takes jobs, changes its size, and is saved and put back.

The tests of this module are steps in one order: a running environment costs most of a minute, so they share it.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.clients import Outside
from tests.cluster.engine import PARTS, PROJECT, Environment, healthy, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def standing(new_environment: Callable[..., Environment]) -> Environment:
    """Environment 1, up with two workers by --scale."""
    environment = new_environment("docker-compose-ray-cuda.yaml", jobs=("trigger",), RAY_WORKERS="1")
    environment.up("--scale", "ray-worker=2", *PARTS)
    return environment


def backup(action: str, environment: Environment, folder: Path) -> None:
    """Run cluster/backup.sh, which must succeed."""
    done = subprocess.run(
        [PROJECT / "cluster" / "backup.sh", action, environment.project, folder],
        env=os.environ | {"XRAY_IMAGE": environment.variables["XRAY_IMAGE"]},
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_the_standing_cluster_scales_and_takes_jobs(standing: Environment) -> None:
    outside = Outside(standing, digit="")
    assert healthy(standing)["ray-worker"] == 2
    done = outside.submit("output_dir=/app/runs", "weights_dir=/app/weights")
    assert done.returncode == 0, done.stdout[-4000:]
    assert len(outside.finished_runs()) == 1


@pytest.mark.long
def test_the_trigger_service_starts_a_job_on_request(standing: Environment) -> None:
    outside = Outside(standing, digit="")
    standing.up("trigger")
    assert healthy(standing)["trigger"] == 1
    assert outside.status(8090, "/jobs") == 401
    status, job = outside.trigger("/trigger-training", {"run_name": "asked", "settings": {"epochs": 1}})
    assert status == 202, job

    def ended() -> dict | None:
        known = outside.trigger(job["links"]["self"])[1]
        return None if known["state"] in ("PENDING", "RUNNING") else known

    known = wait_for("the job's end", ended, timeout=240)
    assert (known["state"], known["epoch"]) == ("SUCCEEDED", 1), known["log_tail"]
    assert "asked" in {run["info"]["run_name"] for run in outside.finished_runs()}


def test_a_worker_that_is_taken_away_drains_first(standing: Environment) -> None:
    fewer = ("up", "--detach", "--no-recreate", "--scale", "ray-worker=1", "ray-worker")
    assert standing.compose(*fewer, timeout=120).returncode == 0
    nodes = Outside(standing, digit="").dashboard("/api/v0/nodes?detail=1&limit=100")["data"]["result"]["result"]
    [gone] = [node for node in nodes if node["state"] == "DEAD"]
    assert "draining before shutdown" in gone["state_message"]


@pytest.mark.long
def test_what_was_saved_can_be_put_back(standing: Environment, tmp_path: Path) -> None:
    outside = Outside(standing, digit="")
    runs = outside.finished_runs()
    run = runs[0]
    artifacts, objects = outside.artifacts(run), outside.objects()
    standing.down(volumes=False)
    backup("save", standing, tmp_path)
    standing.down(volumes=True)
    assert standing.left_behind() == []
    backup("restore", standing, tmp_path)
    standing.up("mlflow")
    assert [each["info"]["run_id"] for each in outside.finished_runs()] == [each["info"]["run_id"] for each in runs]
    assert outside.artifacts(run) == artifacts
    assert outside.objects() == objects
    standing.down(volumes=True)
    assert standing.left_behind() == []
