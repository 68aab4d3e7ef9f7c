"""A whole benchmark on real X-rays, as its users run it: a tiny sweep, what it leaves, and bad input."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_jobs import benchmark
from ray_jobs.entry import run_job
from ray_jobs.settings import load_config_with_defaults

SMALL = ["img_size=64", "batch_size=8", "device=cpu", "cluster.num_workers=1"]


@pytest.fixture(scope="module")
def measured(xrays_mini: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished benchmark of one worker and of two: its folder, and what it said. Each point is a whole training."""
    folder = tmp_path_factory.mktemp("benchmark")
    asked = ["--batch-sizes", "16", "--num-workers", "1,2", "--precisions", "fp32", "--seconds", "1"]
    command = [sys.executable, "-m", "ray_jobs.benchmark", "--data", str(xrays_mini / "data.yaml"), *asked]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    done = subprocess.run(
        [*command, "--run-name", "first", *SMALL],
        cwd=folder,
        env={**clean, "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout
    return folder / "runs" / "first", done.stdout


@pytest.fixture(scope="module")
def result(measured: tuple[Path, str]) -> dict[str, Any]:
    return json.loads((measured[0] / "benchmark.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_point_is_measured_in_full(result: dict[str, Any]) -> None:
    tried = [(point["setting"]["batch_size"], point["setting"]["num_workers"]) for point in result["points"]]
    assert tried == [(16, 1), (16, 2)]
    for point in result["points"]:
        assert point["error"] is None
        assert len(point["epochs"]) == result["epochs"] - 1
        assert point["images_per_second"] > 0
        assert 0 <= point["data_wait"] <= 1
        assert point["val_seconds"] > 0
        assert point["startup_seconds"] > 0
        assert point["memory_bytes"] > 2**27, "a worker with PyTorch in it holds more"
        assert point["step_seconds"] * min(point["epochs"]) <= 1.05 * point["setting"]["batch_size"]
    assert result["images"] == {"train": 54, "val": 19}  # 4 steps of a batch are more than there are
    assert result["startup_seconds"] > result["points"][0]["startup_seconds"]
    assert result["environment"]["packages"]["ultralytics"]


@pytest.mark.slow
def test_the_recommendation_is_the_fastest_and_can_be_trained_with(
    measured: tuple[Path, str], result: dict[str, Any]
) -> None:
    run, said = measured
    recommended = yaml.safe_load((run / "recommended.yaml").read_text())
    speeds = [point["images_per_second"] for point in result["points"]]
    assert result["best"]["images_per_second"] * 1.03 >= max(speeds)
    assert recommended == result["recommended"]
    settings = load_config_with_defaults(run / "recommended.yaml")
    assert settings.batch_size == result["best"]["setting"]["batch_size"]
    assert yaml.safe_dump(recommended, sort_keys=False) in said


@pytest.mark.slow
def test_nothing_is_left_but_the_result(measured: tuple[Path, str]) -> None:
    run, said = measured
    files = {file.name for file in run.iterdir() if not file.name.startswith(".")}
    assert files == {"settings.yaml", "sweep.json", "benchmark.json", "recommended.yaml", "report.html"}
    assert not (run.parent / "mlflow.db").exists()
    assert "point 2: " in said
    assert "<script" not in (run / "report.html").read_text()


@pytest.fixture
def run(xrays_mini: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the job with bad input; what it said. It must end with 2 and leave nothing."""

    def call(*arguments: str) -> str:
        always = [f"output_dir={tmp_path / 'runs'}", "device=cpu"]
        with pytest.raises(SystemExit) as left:
            run_job(benchmark.main, [*always, "--data", str(xrays_mini / "data.yaml"), *arguments])
        said = capfd.readouterr().err
        assert left.value.code == 2, said
        assert "Traceback" not in said
        assert not (tmp_path / "runs").exists()
        return said

    return call


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch-sizes", "8,many"], "must be whole numbers of at least 1, such as 8,16; got '8,many'"),
        (["--num-workers", "0"], "must be whole numbers of at least 1"),
        (["--precisions", "fp8"], "must be of fp32, bf16, fp16"),
        (["--seconds", "0"], "must be 1 to 3600 seconds"),
        (["epoch=3"], "epoch: unknown key; did you mean epochs?"),
        (["--data", "none/data.yaml"], "no such file"),
    ],
)
def test_bad_input_is_said_at_once(run: Callable[..., str], arguments: list[str], words: str) -> None:
    assert words in run(*arguments)
