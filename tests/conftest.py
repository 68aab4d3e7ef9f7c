"""Fixtures that every test may use: the real X-rays beside the project, and a quiet environment."""

import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# Test networks are tiny: more threads only wait for each other, for minutes where another process is busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A machine that stands still for a moment is no bug in what was tried in it; pytest's own limit catches what hangs.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

PROJECT = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("XRAY_DATA_DIR", PROJECT.parent / "shared" / "data"))


def _real_xrays(name: str) -> Path:
    folder = DATA_DIR / name
    if not (folder / "data.yaml").is_file():
        # They are not part of the project, so a user's machine may lack them; a change is never accepted without them.
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"real X-rays not found at {folder}; set XRAY_DATA_DIR to the folder that holds {name}")
    return folder


@pytest.fixture(scope="session")
def xrays_mini() -> Path:
    """92 real chest X-rays (NIH ChestX-ray8, 320 px) with 8 findings, split by patient."""
    return _real_xrays("nih-cxr8-boxes-mini")


@pytest.fixture(scope="session")
def xrays_full() -> Path:
    """1060 real chest X-rays (NIH ChestX-ray8, 512 px) with 8 findings, split by patient."""
    return _real_xrays("nih-cxr8-boxes")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables in it; making one takes seconds, copying it does not."""
    from ray_jobs.tracking.client import connect

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    connect(f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """moto's S3 server in a process of its own. It takes any key: refusals are tested in tests/cluster."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    address = next(line.split()[-1] for line in process.stderr if "Running on" in line)
    threading.Thread(target=process.stderr.read, daemon=True).start()
    yield address
    process.terminate()
    process.wait(10)
    process.stderr.close()


@pytest.fixture
def empty_s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server, without a bucket; the environment has its address and keys."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "any")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    urllib.request.urlopen(f"{s3_server}/moto-api/reset", data=b"").close()
    return s3_server


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of one class with one box, in the middle, whose score is the mean brightness of the picture."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    box = np.array([[[32.0], [32.0], [20.0], [10.0]]], np.float32)  # x, y, width, height at 64 pixels
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images"], ["mean4"], axes=[1, 2, 3], keepdims=1),
            helper.make_node("Reshape", ["mean4", "shape"], ["mean"]),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Add", ["box", "nothing"], ["boxes"]),
            helper.make_node("Concat", ["boxes", "mean"], ["output0"], axis=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 64, 64])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 5, 1])],
        [
            numpy_helper.from_array(box, "box"),
            numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
            numpy_helper.from_array(np.array([-1, 1, 1], np.int64), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    helper.set_model_props(model, {"names": '{"0": "Nodule"}', "imgsz": "[64, 64]"})
    onnx.checker.check_model(model)
    path = tmp_path_factory.mktemp("onnx") / "best.onnx"
    onnx.save(model, path)
    return path
