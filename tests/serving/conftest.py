"""A read server as a person starts it, following a champion in a registry of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from small_detector import small_detector

from ray_jobs.storage import sha256_of
from ray_jobs.tracking.client import connect
from ray_jobs.tracking.registered_model import ONNX_TAG
from ray_jobs.tracking.registry import RegistryRequest, register_model

TOKEN = "a token that nobody guesses"
NAME = "reader"


@dataclass
class ReadServer:
    """Its address, a client that has the token, and the registry that it follows."""

    url: str
    client: httpx.Client
    registry: str
    folder: Path
    process: subprocess.Popen[str]

    def register(self, onnx: Path) -> str:
        """Register a detector, make it the champion, and return its version."""
        client = connect(self.registry)
        found = client.get_experiment_by_name("reader")
        experiment = found.experiment_id if found else client.create_experiment("reader", str(self.folder / "models"))
        run_id = client.create_run(experiment).info.run_id
        client.log_artifact(run_id, str(onnx), "weights")
        request = RegistryRequest(NAME, onnx, alias="champion", tags={ONNX_TAG: sha256_of(onnx)})
        return register_model(client, run_id, request, self.folder).version

    def ask(self, body: bytes, kind: str = "image/png", **query: object) -> httpx.Response:
        """``POST /v1/findings``."""
        return self.client.post("/v1/findings", content=body, headers={"Content-Type": kind}, params=query)


@pytest.fixture(scope="module")
def read_server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[ReadServer]:
    """``python -m ray_jobs.read_server`` with the small detector as champion, on Ray of its own."""
    folder = tmp_path_factory.mktemp("reading")
    shutil.copy(empty_database, folder / "mlflow.db")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url, registry = f"http://127.0.0.1:{port}", f"sqlite:///{folder / 'mlflow.db'}"
    client = httpx.Client(base_url=url, timeout=60, headers={"Authorization": f"Bearer {TOKEN}"})
    server = ReadServer(url, client, registry, folder, None)  # type: ignore[arg-type]
    assert server.register(small_detector() / "best.onnx") == "1"
    command = [sys.executable, "-m", "ray_jobs.read_server", "--model", f"models:/{NAME}@champion", "--port", str(port)]
    command += ["--poll-s", "0.5", "--at-once", "8", "--waiting", "8", "--max-mb", "2"]
    environment = os.environ | {"XRAY_READ_TOKEN": TOKEN, "MLFLOW_TRACKING_URI": registry, "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("RAY_ADDRESS", None)
    log = (folder / "server.log").open("w")
    server.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, text=True)
    try:
        deadline = time.monotonic() + 240
        while "reading with" not in (folder / "server.log").read_text():
            text = (folder / "server.log").read_text()
            assert server.process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.2)
        yield server
    finally:
        client.close()
        server.process.send_signal(signal.SIGTERM)
        try:
            server.process.wait(timeout=60)
        finally:
            server.process.kill()
            log.close()
