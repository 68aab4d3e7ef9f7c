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
from typing import IO

import httpx

TOKEN = "a token that nobody guesses"
START_S = 240
TOO_BUSY = "Ray could not be started on this machine"  # which it gives half a minute for, and says: try again


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
    with (folder / "server.log").open("a") as log:
        process = _start(command, folder, environment, log)
        try:
            url, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {TOKEN}"}
            with httpx.Client(base_url=url, timeout=60, headers=headers) as client:
                yield ReadServerProcess(client, process.pid, folder)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            finally:
                process.kill()


def _start(command: list[str], folder: Path, environment: dict[str, str], log: IO[str]) -> subprocess.Popen[bytes]:
    """The process as soon as it serves."""
    deadline, said = time.monotonic() + START_S, Path(log.name)
    for _ in range(3):
        log.truncate(0)
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        while process.poll() is None and "reading with" not in said.read_text():
            if time.monotonic() > deadline:
                process.kill()
                process.wait()
            time.sleep(0.2)
        if process.poll() is None:
            return process
        if TOO_BUSY not in said.read_text():
            break
    raise AssertionError(said.read_text())
