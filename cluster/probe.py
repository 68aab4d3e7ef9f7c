"""Ask the object store and MLflow, every 15 seconds, to do what they are there for, and tell Prometheus how it went.

A port that answers proves little: MLflow's /health stays 200 with its database dead, and a store may answer and refuse
every write. So a small object is put, read back, compared and deleted with the key that jobs have, and experiments are
searched for as the user that jobs are. In: the addresses and secrets of a job. Out: /metrics on port 9115. What is not
configured is not asked.
"""

import base64
import contextlib
import os
import signal
import sys
import threading
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

INTERVAL_S = 15.0
TIMEOUT_S = 5.0
PORT = 9115


def ask_object_store() -> None:
    """Raise where a small object cannot be put, read back unchanged and deleted."""
    import boto3
    from botocore.config import Config

    once = Config(
        s3={"addressing_style": "path"},
        connect_timeout=TIMEOUT_S,
        read_timeout=TIMEOUT_S,
        retries={"max_attempts": 0},
        request_checksum_calculation="when_required",
    )
    store, bucket, key = boto3.client("s3", config=once), os.environ["S3_BUCKET"], f"probe/{uuid.uuid4().hex}"
    written = uuid.uuid4().bytes
    store.put_object(Bucket=bucket, Key=key, Body=written)
    try:
        if store.get_object(Bucket=bucket, Key=key)["Body"].read() != written:
            raise ValueError(f"{bucket}/{key}: what was read is not what was written")
    finally:
        store.delete_object(Bucket=bucket, Key=key)


def ask_mlflow() -> None:
    """Raise where a search for experiments is not answered."""
    url, user, password = without_login(os.environ["MLFLOW_TRACKING_URI"])
    request = urllib.request.Request(url.rstrip("/") + "/api/2.0/mlflow/experiments/search?max_results=1")
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", user)
    if user:
        credentials = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', password)}"
        request.add_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        answer.read()


def without_login(url: str) -> tuple[str, str, str]:
    """An address without ``user:password@``, the user and the password; "" where it has none."""
    parts = urllib.parse.urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":") if at else ("", "", "")
    return parts._replace(netloc=host).geturl(), urllib.parse.unquote(user), urllib.parse.unquote(password)


def describe(error: Exception, variable: str) -> str:
    """An error's type, what the service said by its code, and the address; its message may hold a password."""
    said = getattr(error, "response", None)
    code = said.get("Error", {}).get("Code") if isinstance(said, dict) else getattr(error, "code", None)
    words = [type(error).__name__, code, getattr(error, "operation_name", None)]
    address = without_login(os.environ.get(variable, ""))[0]
    return " ".join(str(word) for word in dict.fromkeys(words) if word) + (f" at {address}" if address else "")


SERVICES: dict[str, tuple[str, str, Callable[[], None]]] = {  # the variables that say: ask it, and where it is
    "object-store": ("S3_BUCKET", "AWS_ENDPOINT_URL", ask_object_store),
    "mlflow": ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI", ask_mlflow),
}


class Probe:
    """Asks one service again and again, and remembers the last answer."""

    def __init__(self, service: str, address: str, ask: Callable[[], None]) -> None:
        """``address`` is the variable that holds the service's address."""
        self.service, self.address, self.ask = service, address, ask
        self.up: bool | None = None
        self.seconds = 0.0

    def once(self) -> None:
        """Ask, and print when the answer is another one than before."""
        started = time.perf_counter()
        try:
            self.ask()
            problem = None
        except Exception as error:  # whatever is wrong with it, it is not up
            problem = describe(error, self.address)
        self.seconds = time.perf_counter() - started
        if self.up != (problem is None):
            print(f"{self.service}: {problem or 'answers'}", flush=True)
        self.up = problem is None

    def forever(self) -> None:
        """Ask, wait, ask."""
        while True:
            self.once()
            time.sleep(INTERVAL_S)

    def lines(self) -> list[str]:
        """In Prometheus' text format; nothing before the first answer."""
        if self.up is None:
            return []
        label = f'{{service="{self.service}"}}'
        return [f"xray_probe_up{label} {int(self.up)}", f"xray_probe_seconds{label} {self.seconds:.6f}"]


class Handler(BaseHTTPRequestHandler):
    """GET /metrics."""

    probes: list[Probe] = []  # noqa: RUF012 - set once, before the server starts

    def do_GET(self) -> None:
        """Answer with what is known now; asks nobody."""
        kinds = ["# TYPE xray_probe_up gauge", "# TYPE xray_probe_seconds gauge"]
        body = "\n".join([*kinds, *(line for probe in self.probes for line in probe.lines()), ""]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        with contextlib.suppress(ConnectionError):  # who asked has gone meanwhile
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Every scrape is not worth a line."""


def main(port: int) -> None:
    """Serve until told to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    Handler.probes = [Probe(name, at, ask) for name, (needs, at, ask) in SERVICES.items() if os.environ.get(needs)]
    for probe in Handler.probes:
        threading.Thread(target=probe.forever, name=probe.service, daemon=True).start()
    server = ThreadingHTTPServer(("0.0.0.0", port), Handler)
    print(f"listening on {server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else PORT)
