"""A real Ray cluster that takes jobs, and the trigger service as its users run it: a process of its own."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

# Jobs are taken some time after the cluster is up.
TAKES_JOBS = """
import sys, time
from ray.job_submission import JobSubmissionClient
for _ in range(300):
    try:
        JobSubmissionClient(sys.argv[1]).submit_job(entrypoint="true")
        break
    except (RuntimeError, OSError):
        time.sleep(0.3)
else:
    sys.exit("the cluster takes no jobs")
"""
# A busy machine starves Ray's own processes, and Ray takes a slow one for a dead one. Its workers would give way to all
# that runs beside them (nice 15).
PATIENT = {
    "RAY_agent_register_timeout_ms": "240000",
    "RAY_health_check_timeout_ms": "120000",
    "RAY_worker_niceness": "0",
}
LIMIT_S = 120


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def environment(**more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_", "AWS_"))}
    return {**clean, "CUDA_VISIBLE_DEVICES": "", "RAY_AUTH_MODE": "token", **more}


@dataclass
class Cluster:
    """Where a Ray cluster takes jobs, and its token."""

    address: str
    token: str


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    """One Ray head with two CPUs, on ports of its own, so that it minds no other cluster of the machine."""
    token = secrets.token_hex(16)
    ports = {name: free_port() for name in ("", "dashboard-", "dashboard-agent-listen-", "ray-client-server-")}
    with tempfile.TemporaryDirectory(prefix="xr-", ignore_cleanup_errors=True) as folder:
        options = [f"--{name}port={port}" for name, port in ports.items()]
        options += ["--head", "--block", "--num-cpus=2", "--disable-usage-stats", f"--temp-dir={folder}"]
        head = subprocess.Popen(
            [Path(sys.executable).with_name("ray"), "start", *options],
            env=environment(RAY_AUTH_TOKEN=token, **PATIENT),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        address = f"http://127.0.0.1:{ports['dashboard-']}"
        try:
            command = [sys.executable, "-c", TAKES_JOBS, address]
            subprocess.run(command, env=environment(RAY_AUTH_TOKEN=token), check=True, timeout=240)
            yield Cluster(address, token)
        finally:
            head.terminate()  # takes the whole cluster along
            head.wait(timeout=60)


@dataclass
class Answer:
    status: int
    body: Any
    headers: dict[str, str]


@dataclass
class TriggerProcess:
    """``python -m ray_jobs.trigger`` in a folder of its own."""

    folder: Path
    cluster: Cluster
    options: dict[str, Any]
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = self.folder / "trigger.yaml"
        config.write_text(yaml.safe_dump({**self.options, "ray": self.cluster.address, "port": port}))
        with (self.folder / "trigger.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ray_jobs.trigger", "--config", str(config)],
                cwd=self.folder,
                env=environment(RAY_AUTH_TOKEN=self.cluster.token, XRAY_TRIGGER_TOKEN=self.token),
                stdout=log,
                stderr=log,
            )
        self.wait(lambda: self.ask("GET", "/config").status == 200, "the service answers")

    def kill(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)

    def ask(self, method: str, path: str, body: Any = None, token: str | None = "right") -> Answer:
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {self.token if token == 'right' else token}"
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, _parsed(answer.read()), dict(answer.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, _parsed(error.read()), dict(error.headers))
        except OSError as error:
            return Answer(0, str(error), {})

    def wait(self, done: Any, what: str, limit_s: float = LIMIT_S) -> None:
        deadline = time.monotonic() + limit_s
        while not done():
            assert time.monotonic() < deadline, f"waited {limit_s} s until {what}:\n{self.log()}"
            time.sleep(0.2)

    def state(self, job_id: str) -> str:
        return self.ask("GET", f"/jobs/{job_id}").body["state"]

    def log(self) -> str:
        return (self.folder / "trigger.log").read_text()[-3000:]


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()
