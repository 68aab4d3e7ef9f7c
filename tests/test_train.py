"""The whole job on real X-rays, as its users run it: real Ray, real MLflow, a process of its own."""

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SMALL = ["epochs=2", "img_size=96", "batch_size=8", "pretrained=false", "device=cpu", "samples=4", "close_mosaic=1"]


def environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    return {**clean, "CUDA_VISIBLE_DEVICES": ""}


def job(folder: Path, *arguments: str | Path, job: str = "train", **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"ray_jobs.{job}", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment(), **pipes, **options)


def finish(process: subprocess.Popen[str], code: int = 0, timeout: float = 240) -> str:
    said, _ = process.communicate(timeout=timeout)
    assert process.returncode == code, said
    return said


def read_results(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "results.csv").read_text().splitlines()))


@pytest.fixture(scope="module")
def finished(xrays_mini: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run of two workers: the folder it was started in, and what it said."""
    folder = tmp_path_factory.mktemp("job")
    arguments = ["--data", xrays_mini / "data.yaml", "--run-name", "first", *SMALL, "cluster.num_workers=2"]
    return folder, finish(job(folder, *arguments, "data_check.patient_id_pattern=^(\\d{8})_"))


@pytest.fixture(scope="module")
def summary(finished: tuple[Path, str]) -> dict[str, Any]:
    return json.loads((finished[0] / "runs" / "first" / "summary.json").read_text())


@pytest.mark.slow
def test_the_summary_tells_all(summary: dict[str, Any]) -> None:
    assert summary["run_name"] == "first"
    assert (summary["world_size"], summary["epochs_run"]) == (2, 2)
    assert summary["best_epoch"] in (1, 2)
    assert len(summary["dataset"]["fingerprint"]) == 64
    assert summary["dataset"]["counts"]["train"]["images"] == 54
    for split in ("val", "test"):
        assert 0 <= summary[split]["map50_95"] <= summary[split]["map50"] <= 1
    assert len(summary["test"]["per_class"]) == 8
    assert set(summary["test"]["froc"]["sensitivity"]) == {"0.125", "0.25", "0.5", "1", "2", "4", "8", "mean"}
    low, high = summary["test"]["map50_ci"]
    assert 0 <= low <= summary["test"]["map50"] <= high <= 1
    assert summary["test"]["ci"] == {"level": 0.95, "resamples": 1000, "over": "patients", "drawn": 19}
    assert summary["onnx"]["map50_difference"] <= 0.002
    assert summary["registry"] == {"name": "xray-detector", "version": "1", "alias": "challenger"}
    assert summary["images_per_second"] > 0
    stages = ("check", "startup", "train", "evaluate", "export", "log")
    assert sum(summary["timings"][stage] for stage in stages) == pytest.approx(summary["timings"]["total"], abs=2)


@pytest.mark.slow
def test_the_run_folder_holds_what_a_user_needs(finished: tuple[Path, str]) -> None:
    run = finished[0] / "runs" / "first"
    for name in (
        "settings.yaml",
        "data.yaml",
        "results.csv",
        "weights/best.pt",
        "weights/last.pt",
        "weights/best.onnx",
        "detections.npz",
        "report.html",
    ):
        assert (run / name).stat().st_size > 0, name
    assert len(list((run / "samples").glob("*.png"))) == 4
    assert {"confusion_matrix.png", "pr_curve.png", "froc.png"} <= {file.name for file in (run / "plots").iterdir()}
    rows = read_results(run)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"train/box_loss", "metrics/mAP50(B)", "metrics/mAP50-95(B)", "val/cls_loss", "lr/pg0"} <= set(rows[0])
    kept = sorted(folder.name for folder in (run / "checkpoints").glob("epoch_*"))
    assert kept[-1] == "epoch_00002"
    assert len(kept) <= 2  # the last and keep=1 more
    assert not (finished[0] / "mlruns").exists()


@pytest.mark.slow
def test_both_ranks_trained_one_model(finished: tuple[Path, str]) -> None:
    lines = map(json.loads, (finished[0] / "runs" / "first" / "journal.jsonl").read_text().splitlines())
    journal = [line for line in lines if line["kind"] == "epoch"]
    for line in journal:
        assert len(line["weights_digests"]) == 2
        assert len(set(line["weights_digests"])) == 1
    rows = read_results(finished[0] / "runs" / "first")
    assert float(rows[0]["train/box_loss"]) == pytest.approx(journal[0]["metrics"]["train/box_loss"], rel=1e-3)


@pytest.mark.slow
def test_mlflow_has_one_run_with_everything(finished: tuple[Path, str], summary: dict[str, Any]) -> None:
    with sqlite3.connect(finished[0] / "runs" / "mlflow.db") as database:

        def ask(question: str) -> list[tuple]:
            return database.execute(question).fetchall()

        assert ask("select run_uuid, status from runs") == [(summary["mlflow_run_id"], "FINISHED")]
        assert ask("select step from metrics where key = 'val/map50' order by step") == [(1,), (2,)]
        params = dict(ask("select key, value from params"))
        assert (params["epochs"], params["cluster.num_workers"], params["world_size"]) == ("2", "2", "2")
        ((logged,),) = ask("select value from latest_metrics where key = 'test/map50'")
        assert logged == pytest.approx(summary["test"]["map50"])
        assert ask("select count(*) from latest_metrics where key in ('test/map50_ci_low', 'test/map50_ci_high')") == [
            (2,)
        ]
        assert ask("select count(*) from latest_metrics where key like 'system/%'")[0][0] > 0
        assert ask("select digest from datasets")[0][0] in summary["dataset"]["fingerprint"]
    database.close()
    artifacts = {file.name for file in (finished[0] / "runs" / "mlartifacts").rglob("*") if file.is_file()}
    assert {
        "best.pt",
        "best.onnx",
        "settings.yaml",
        "data.yaml",
        "environment.json",
        "froc.png",
        "report.html",
        "MLmodel",
    } <= artifacts
    assert "detections.npz" not in artifacts  # it names the patients' files


@pytest.mark.slow
def test_the_registered_model_reads_an_x_ray(finished: tuple[Path, str], xrays_mini: Path) -> None:
    """In a process that cannot import PyTorch, Ultralytics, Ray or this project."""
    image = next((xrays_mini / "images" / "test").iterdir())
    code = f"""
import sys, warnings
warnings.simplefilter("ignore")
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "ultralytics", "ray", "ray_jobs"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import cv2, mlflow
mlflow.set_tracking_uri("sqlite:///{finished[0]}/runs/mlflow.db")
model = mlflow.pyfunc.load_model("models:/xray-detector@challenger", model_config={{"threshold": 0.0001}})
findings = model.predict(cv2.imread({str(image)!r}, cv2.IMREAD_GRAYSCALE))
print("FOUND", len(findings), sorted(findings[0][0]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=finished[0], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert "FOUND 1 ['box', 'label', 'score']" in done.stdout, done.stderr


@pytest.mark.slow
def test_predict_reads_an_image_as_the_summary_says(finished: tuple[Path, str], xrays_mini: Path) -> None:
    image = next((xrays_mini / "images" / "test").iterdir())
    weights = finished[0] / "runs" / "first" / "weights" / "best.onnx"
    said = finish(job(finished[0], image, "--model", weights, "--out", "findings", job="predict"))
    assert json.loads(said.splitlines()[0])["width"] == 320
    assert len(list((finished[0] / "findings").glob("*.png"))) == 1


@pytest.mark.slow
def test_a_finished_run_is_never_overwritten(finished: tuple[Path, str]) -> None:
    run = finished[0] / "runs" / "first"
    before = (run / "summary.json").read_bytes()
    said = finish(job(finished[0], "--config", run / "settings.yaml"), code=2)
    assert "this run is finished; choose another run_name" in said
    assert (run / "summary.json").read_bytes() == before


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_a_dry_run_leaves_nothing(xrays_mini: Path, tmp_path: Path) -> None:
    arguments = ["--data", xrays_mini / "data.yaml", "--run-name", "long", *SMALL, "epochs=4", "export.onnx=false"]
    said = finish(job(tmp_path, *arguments, "--dry-run"))
    assert "dry run: everything is in place" in said
    assert "would train yolo12n for 4 epochs on 1 worker with" in said
    assert "would log to sqlite:///" in said
    assert not (tmp_path / "runs").exists()

    process = job(tmp_path, *arguments)
    assert process.stdout
    for line in process.stdout:
        if line.startswith("epoch 2/4"):
            process.send_signal(signal.SIGTERM)
            break
    started = time.monotonic()
    said = finish(process, code=128 + signal.SIGTERM)
    assert time.monotonic() - started < 30
    assert "stopped by SIGTERM; go on with: " in said
    assert "-m ray_jobs.train --resume long" in said
    assert "Traceback" not in said

    said = finish(job(tmp_path, "--resume", "long"))
    assert "going on with long after epoch " in said
    assert "epoch 4/4" in said
    assert "epoch 1/4" not in said
    result = json.loads((tmp_path / "runs" / "long" / "summary.json").read_text())
    assert result["epochs_run"] == 4
    assert "4 epochs; best.pt is from epoch" in (tmp_path / "runs" / "long" / "report.html").read_text()
    with sqlite3.connect(tmp_path / "runs" / "mlflow.db") as database:
        steps = database.execute("select step from metrics where key = 'train/box_loss' order by step").fetchall()
        assert steps == [(1,), (2,), (3,), (4,)]
        assert database.execute("select count(*), min(status) from runs").fetchall() == [(1, "FINISHED")]
    database.close()
