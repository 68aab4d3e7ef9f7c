"""``python -m ray_jobs.read_server`` as its users run it: a process of its own, on Ray of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

TOKEN = "a token that nobody guesses"
START_S = 240


@dataclass
class ReadServerProcess:
    """A client that has the token; the process, and the folder in which it runs and logs."""

    client: httpx.Client
    pid: int
    folder: Path

    @property
    def url(self) -> str:
        """The server's address."""
        return str(self.client.base_url).rstrip("/")

    def ask(self, body: bytes, kind: str = "image/png", **query: object) -> httpx.Response:
        """``POST /v1/findings``."""
        return self.client.post("/v1/findings", content=body, headers={"Content-Type": kind}, params=query)


@contextmanager
def serving(folder: Path, registry: str, model: str, *options: str) -> Iterator[ReadServerProcess]:
    """A server that reads with ``model`` from a registry."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "ray_jobs.read_server", "--model", model, "--port", str(port), *options]
    environment = os.environ | {"XRAY_READ_TOKEN": TOKEN, "MLFLOW_TRACKING_URI": registry, "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("RAY_ADDRESS", None)
    said = folder / "server.log"
    with said.open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START_S
            while "reading with" not in said.read_text():
                assert process.poll() is None, said.read_text()
                assert time.monotonic() < deadline, said.read_text()
                time.sleep(0.2)
            url, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {TOKEN}"}
            with httpx.Client(base_url=url, timeout=60, headers=headers) as client:
                yield ReadServerProcess(client, process.pid, folder)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            finally:
                process.kill()
