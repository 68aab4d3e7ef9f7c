"""cluster/probe.py asks what a service is for: one that answers at its port and refuses its work is down."""

import base64
import os
import runpy
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from ray_jobs.telemetry import METRICS
from tests.cluster.engine import PROJECT, wait_for

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


class DeadDatabase(BaseHTTPRequestHandler):
    """As MLflow does when its database is gone: its health stays 200, its API fails."""

    logins: set[str | None] = set()  # noqa: RUF012 - what requests have shown

    def do_GET(self) -> None:
        self.logins.add(self.headers["Authorization"])
        self.send_response(200 if self.path == "/health" else 500)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])


@pytest.fixture
def store() -> Iterator[str]:
    """The address of an S3 server with a bucket."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for("the S3 server", lambda: bucket(url, "create"), timeout=60)
    yield url
    process.kill()
    process.wait(10)


def bucket(url: str, action: str) -> bool:
    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 0}),
    )
    try:
        getattr(client, f"{action}_bucket")(Bucket="xray-ray")
    except Exception:  # not there yet
        return False
    finally:
        client.close()
    return True


def probed(log: Path, **variables: str) -> dict[str, float]:
    """What a probe with these variables says once it has asked everything."""
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_", "S3_"))}
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, PROJECT / "cluster" / "probe.py", str(port)],
            env=clean | KEYS | variables,
            stdout=said,
            stderr=said,
        )

    def read() -> dict[str, float]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        found = {name: float(value) for name, value in (line.split() for line in lines if not line.startswith("#"))}
        return found if len(found) == 4 else {}

    try:
        return dict(wait_for("the probe's answers", read, timeout=60))
    finally:
        process.terminate()
        process.wait(10)


def test_what_works_is_up_and_what_only_answers_is_down(store: str, tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), DeadDatabase)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tracking = f"http://127.0.0.1:{server.server_address[1]}"
    addresses = {"AWS_ENDPOINT_URL": store, "S3_BUCKET": "xray-ray", "MLFLOW_TRACKING_URI": tracking}
    said = probed(tmp_path / "log", **addresses)
    assert said['xray_probe_up{service="object-store"}'] == 1
    assert said['xray_probe_up{service="mlflow"}'] == 0
    assert f"mlflow: HTTPError 500 at {tracking}" in (tmp_path / "log").read_text()
    assert urllib.request.urlopen(f"{tracking}/health", timeout=5).status == 200
    server.shutdown()
    server.server_close()

    assert bucket(store, "delete")  # the store answers as before, and takes nothing
    said = probed(tmp_path / "log", **addresses)
    assert said['xray_probe_up{service="object-store"}'] == 0
    assert f"object-store: NoSuchBucket PutObject at {store}" in (tmp_path / "log").read_text()
    assert {name.split("{")[0] for name in said} <= {metric.series for metric in METRICS.values()}


def test_a_password_in_the_address_is_sent_and_never_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    DeadDatabase.logins.clear()
    probe = runpy.run_path(str(PROJECT / "cluster" / "probe.py"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), DeadDatabase)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"127.0.0.1:{server.server_address[1]}"
    for host in (here, "127.0.0.1:hunter2port", f"127.0.0.1:{free_port()}"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:hunter2%40home@{host}")
        probe["Probe"]("mlflow", "MLFLOW_TRACKING_URI", probe["ask_mlflow"]).once()
    server.shutdown()
    server.server_close()
    said = capsys.readouterr().out
    assert f"mlflow: HTTPError 500 at http://{here}\n" in said
    assert "ann" not in said
    assert "hunter2%40" not in said
    assert "hunter2@" not in said
    assert DeadDatabase.logins == {"Basic " + base64.b64encode(b"ann:hunter2@home").decode()}
