"""A Ray cluster with an S3 server, the probe and a Prometheus that scrapes it, on this machine without containers.

Jobs join it as their users start them. Everything lies in ``folder`` and ends with ``close``.
"""

import json
import os
import pty
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.config import Config

from tests.cluster.engine import PROJECT, wait_for

HERE = Path(__file__).parent
BUCKET = "xray-ray"
RULES = sorted((PROJECT / "cluster" / "prometheus" / "rules").glob("*.yaml"))
TOKEN = "0123456789abcdef" * 4


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])


class Prometheus:
    """A Prometheus of its own, with the project's rules."""

    def __init__(self, folder: Path, jobs: list[dict[str, Any]], port: int | None = None) -> None:
        self.url = f"http://127.0.0.1:{port or free_port()}"
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules) for rules in RULES],
            "scrape_configs": jobs,
        }
        folder.mkdir(exist_ok=True)
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
        where = self.url.removeprefix("http://")
        command = ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/tsdb"]
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen([*command, f"--web.listen-address={where}"], stdout=self.log, stderr=self.log)
        wait_for("Prometheus", self.ready, timeout=60)

    def ready(self) -> bool:
        try:
            return bool(urllib.request.urlopen(f"{self.url}/-/ready", timeout=2).status == 200)
        except OSError:
            return False

    def between(self, query: str, start: float, end: float) -> list[dict[str, Any]]:
        """The series of a query over a time, two seconds apart."""
        asked = urllib.parse.urlencode({"query": query, "start": start, "end": end, "step": 2})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query_range?{asked}", timeout=30) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from None
        return found

    def now(self, query: str) -> list[dict[str, Any]]:
        """The series of a query at this moment."""
        return self.between(query, time.time() - 1, time.time())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


class LiveCluster:
    """Started by ``start``, which may fail half way; ``close`` ends whatever was started."""

    def __init__(self, folder: Path, **environment: str) -> None:
        """``environment``: more of it, for Ray and for jobs."""
        self.folder, self._prometheus_port = folder, free_port()
        self.store = f"http://127.0.0.1:{free_port()}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_", "AWS_"))}
        self.environment = {
            **clean,
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(PROJECT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_worker_niceness": "0",  # as jobs that start Ray themselves have it
            "XRAY_READ_TOKEN": TOKEN,
            "AWS_ENDPOINT_URL": self.store,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "S3_BUCKET": BUCKET,
            "RAY_PROMETHEUS_HOST": f"http://127.0.0.1:{self._prometheus_port}",
            **environment,
        }
        self._log = (folder / "processes.log").open("w")
        self._started: list[subprocess.Popen[Any]] = []
        self.prometheus: Prometheus | None = None

    def start(self) -> None:
        """Everything but the jobs."""
        self._run([sys.executable, "-m", "moto.server", "-p", self.store.rpartition(":")[2]])
        wait_for("the S3 server", self._make_bucket, timeout=60)
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.head = self._run([sys.executable, HERE / "ray_head.py"], **pipes)
        ready = next((line.split() for line in self.head.stdout if line.startswith("READY")), None)
        assert ready, self.said()
        _, self.environment["RAY_ADDRESS"], self.session, self.dashboard = ready
        discovery = f"{self.session}/prom_metrics_service_discovery.json"
        wait_for("the list of Ray's metrics ports", Path(discovery).is_file, timeout=60)
        probe = free_port()
        self._run([sys.executable, PROJECT / "cluster" / "probe.py", str(probe)])
        jobs = [
            {"job_name": "ray", "file_sd_configs": [{"files": [discovery], "refresh_interval": "1s"}]},
            {"job_name": "probe", "static_configs": [{"targets": [f"127.0.0.1:{probe}"]}]},
        ]
        self.prometheus = Prometheus(self.folder / "prometheus", jobs, self._prometheus_port)

    def client(self) -> Any:
        """A client of the object store."""
        return boto3.client(
            "s3",
            endpoint_url=self.store,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )

    def _make_bucket(self) -> bool:
        try:
            self.client().create_bucket(Bucket=BUCKET)
        except Exception:  # not there yet
            return False
        return True

    def put(self, source: Path, prefix: str) -> int:
        """Store a folder below a prefix; returns its bytes."""
        client, size = self.client(), 0
        for file in (each for each in sorted(source.rglob("*")) if each.is_file()):
            client.upload_file(str(file), BUCKET, f"{prefix}/{file.relative_to(source)}")
            size += file.stat().st_size
        return size

    def job(self, name: str, *arguments: object) -> subprocess.Popen[Any]:
        """Start a job as its user does on a node of the cluster; what it says goes into the log."""
        return self._run([sys.executable, "-m", f"ray_jobs.{name}", *map(str, arguments)])

    def in_a_terminal(self, name: str, *arguments: object) -> tuple[subprocess.Popen[Any], list[bytes]]:
        """Start a job on a pseudo-terminal; what it says is collected while it runs."""
        ours, theirs = pty.openpty()
        screen = {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
        command = [sys.executable, "-m", f"ray_jobs.{name}", *map(str, arguments)]
        process = self._run(command, env=self.environment | screen, stdout=theirs, stderr=theirs)
        os.close(theirs)
        said: list[bytes] = []

        def collect() -> None:
            while True:
                try:
                    said.append(os.read(ours, 65536))
                except OSError:  # the other end is closed
                    os.close(ours)
                    return

        threading.Thread(target=collect, daemon=True).start()
        return process, said

    def _run(self, command: list[Any], **how: Any) -> subprocess.Popen[Any]:
        given = {"cwd": self.folder, "env": self.environment, "stdout": self._log, "stderr": self._log, **how}
        self._started.append(subprocess.Popen(command, **given))
        return self._started[-1]

    def said(self) -> str:
        """What everything but jobs in a terminal has said."""
        return (self.folder / "processes.log").read_text()

    def close(self) -> None:
        """End everything, the jobs first."""
        for process in reversed(self._started):
            if process.stdin:  # the head ends with its input
                process.stdin.close()
                process.wait(60)
                process.stdout.close()
            process.kill()
            process.wait(30)
        if self.prometheus:
            self.prometheus.stop()
        self._log.close()
