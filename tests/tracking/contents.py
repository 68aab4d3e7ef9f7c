"""What a server knows of a run, as plain values that tests compare."""

from typing import Any

from ray_jobs.tracking.client import connect
from ray_jobs.tracking.tracker import Tracker


def log_a_whole_run(tracker: Tracker, epochs: int = 3) -> None:
    """Everything but the registered model and the end."""
    run_dir = tracker._run_dir
    (run_dir / "settings.yaml").write_text("epochs: 3\n")
    (run_dir / "plots").mkdir(exist_ok=True)
    (run_dir / "plots" / "curve.txt").write_text("curve")
    tracker.log_params({"epochs": epochs, "lr0": 0.01})
    tracker.log_dataset("phantoms", "f" * 64, "/data/phantoms", {"train": {"images": 7, "boxes": 9}})
    for epoch in range(epochs):
        tracker.log_metrics({"metrics/mAP50(B)": 0.1 * epoch, "train/box_loss": float("nan")}, epoch)
    tracker.set_tags({"cause": "none"})
    tracker.log_artifact(run_dir / "settings.yaml")
    tracker.log_artifact(run_dir / "plots", "plots")


def contents(uri: str, experiment: str = "xray-detector", run_name: str | None = None) -> list[dict[str, Any]]:
    """Every run of the experiment (of that name) with all its points, parameters, tags of ours, files, inputs and
    status."""
    client = connect(uri)
    found = client.get_experiment_by_name(experiment)
    named = f"attributes.run_name = '{run_name}'" if run_name else ""
    runs = client.search_runs([found.experiment_id], named) if found else []
    return [_run(client, run.info.run_id) for run in runs]


def _run(client: Any, run_id: str) -> dict[str, Any]:
    run = client.get_run(run_id)
    points = {
        key: [
            (point.step, round(point.value, 6) if point.value == point.value else "nan", point.timestamp)
            for point in client.get_metric_history(run_id, key)
        ]
        for key in run.data.metrics
    }
    return {
        "id": run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "points": points,
        "params": dict(run.data.params),
        "tags": {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")},
        "files": sorted(_files(client, run_id, None)),
        "inputs": [(found.dataset.name, found.dataset.digest) for found in run.inputs.dataset_inputs],
    }


def _files(client: Any, run_id: str, folder: str | None) -> list[str]:
    found: list[str] = []
    for file in client.list_artifacts(run_id, folder):
        found += _files(client, run_id, file.path) if file.is_dir else [file.path]
    return found


def assert_whole(run: dict[str, Any], epochs: int = 3) -> None:
    """Everything of ``log_a_whole_run`` is there, once."""
    assert run["params"] == {"epochs": str(epochs), "lr0": "0.01"}
    points = run["points"]["metrics/mAP50B"]
    assert [(step, value) for step, value, _ in points] == [(epoch, round(0.1 * epoch, 6)) for epoch in range(epochs)]
    assert [(step, value) for step, value, _ in run["points"]["train/box_loss"]] == [(e, "nan") for e in range(epochs)]
    assert run["files"] == ["plots/curve.txt", "settings.yaml"]
    assert run["inputs"] == [("phantoms", "f" * 36)]
    assert run["tags"]["cause"] == "none"
