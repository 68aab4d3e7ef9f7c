"""A server that is down when a run ends: the decision waits in the run's folder, and is made when it is back."""

import json
import shutil
from pathlib import Path

import pytest
from model_shop import shapes_data
from small_detector import small_detector

from ray_jobs import promote as promote_job
from ray_jobs.dataset.source import describe_data
from ray_jobs.errors import TrackingError
from ray_jobs.flows.preparation import check_data
from ray_jobs.flows.promotion import promote_run
from ray_jobs.flows.run_folder import RunFolder
from ray_jobs.settings import load_config_with_defaults
from ray_jobs.tracking.promotion import Registry
from ray_jobs.tracking.registry import RegistryRequest
from ray_jobs.tracking.tracker import open_tracker

from .conftest import MlflowServer


@pytest.mark.slow
def test_the_decision_waits_for_the_server(tmp_path: Path, mlflow_server: MlflowServer) -> None:
    keys = {"data": shapes_data(tmp_path / "data"), "output_dir": tmp_path / "runs", "device": "cpu"}
    keys |= {"tracking.uri": mlflow_server.url, "tracking.registry": "waits", "weights_dir": tmp_path / "weights"}
    settings = load_config_with_defaults(None, [f"{key}={value}" for key, value in keys.items()])
    report = check_data(settings, describe_data(settings.data or ""))
    run = RunFolder(tmp_path / "runs" / "run").claim(settings, report.fingerprint)
    for name in ("best.pt", "best.onnx"):
        shutil.copy(small_detector() / name, run.weights)
    run.write_summary({})
    run.write_state(status="finished")
    said: list[str] = []

    mlflow_server.kill()
    try:
        tracker = open_tracker(run.path, run.name, uri=mlflow_server.url, system_interval_s=None)
        tracker.register(RegistryRequest("waits", run.weights / "best.onnx"))
        outcome = tracker.finish(timeout_s=0.5)
        assert outcome.pending
        decided = promote_run(settings, report.index, run, None, said.append)
        assert decided["state"] == "waiting"
        assert json.loads((run.path / "promotion.json").read_text())["state"] == "waiting"
        assert f"-m ray_jobs.promote --run {run.path}" in "\n".join(said)
        with pytest.raises(TrackingError, match="still fails"):
            promote_job.main(["--run", str(run.path)])
        known = {"name": "waits", "version": "1"}  # the server went away after it had registered the model
        assert promote_run(settings, report.index, run, known, said.append)["state"] == "waiting"
    finally:
        mlflow_server.start()
    assert promote_job.main(["--run", str(run.path)]) == 0
    assert json.loads((run.path / "promotion.json").read_text())["state"] == "promoted"
    assert Registry(mlflow_server.url, "waits").champion().version == "1"
    assert promote_job.main(["--run", str(run.path)]) == 0  # again: it is the champion already
    run.release()
