"""A run whose data set lies in a bucket, stopped on one machine and continued on another that has no copy of it."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.s3_gate import gate_before

SMALL = ("epochs=3", "img_size=64", "batch_size=8", "pretrained=false", "device=cpu", "samples=0", "export.onnx=false")


def train(folder: Path, cache: str, *arguments: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.train", *arguments],
        cwd=folder,
        env=clean | {"CUDA_VISIBLE_DEVICES": "", "XRAY_DATA_CACHE": str(folder / cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_run_on_a_bucket_goes_on_elsewhere(
    xrays_mini: Path, tmp_path: Path, empty_s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    client: Any = boto3.client("s3", endpoint_url=empty_s3, region_name="us-east-1")
    client.create_bucket(Bucket="xrays")
    names = [str(file.relative_to(xrays_mini)) for file in sorted(xrays_mini.rglob("*")) if file.is_file()]
    for name in names:
        client.put_object(Bucket="xrays", Key=f"sets/mini/{name}", Body=(xrays_mini / name).read_bytes())
    each_once = Counter(f"xrays/sets/mini/{name}" for name in names)
    with gate_before(empty_s3) as gate:
        monkeypatch.setenv("AWS_ENDPOINT_URL", gate.url)

        def copied() -> Counter[str]:
            """What of the data set was asked for; the data.yaml is also read before anything is copied."""
            asked = Counter(name for name in gate.gets if name.startswith("xrays/sets/"))
            gate.gets.clear()
            return asked - Counter(["xrays/sets/mini/data.yaml"])

        place = ("--data", "s3://xrays/sets/mini/data.yaml", "cluster.num_workers=2")
        said = ""
        with train(tmp_path, "here", *place, "--run-name", "far", *SMALL, "tracking.uri=none") as run:
            assert run.stdout
            for line in run.stdout:
                said += line
                if line.startswith("epoch 1/3"):
                    run.send_signal(signal.SIGTERM)
        assert run.returncode == 128 + signal.SIGTERM, said
        assert copied() == each_once, "the driver and two workers on one node copy once"

        resumed = train(tmp_path, "there", "--resume", "far")
        said, _ = resumed.communicate(timeout=240)
        assert resumed.returncode == 0, said
        assert copied() == each_once
    summary = json.loads((tmp_path / "runs" / "far" / "summary.json").read_text())
    assert summary["epochs_run"] == 3
    assert summary["dataset"]["path"] == "s3://xrays/sets/mini"
    assert summary["dataset"]["counts"]["train"]["images"] == 54
