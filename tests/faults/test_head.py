"""The head dies and is started again: with its state in Redis, workers and what runs on them stay."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.drive import clean_environment
from tests.tracking.conftest import free_port

pytestmark = [pytest.mark.slow, pytest.mark.long]
ASK = """
import ray, sys
ray.init(address=sys.argv[1], namespace="kept", logging_level="error")

@ray.remote(num_cpus=1)
class Counter:
    def __init__(self):
        self.count = 0

    def next(self):
        import os
        self.count += 1
        return os.getpid(), self.count

counter = Counter.options(name="counter", lifetime="detached", get_if_exists=True).remote()
print("COUNTED", *ray.get(counter.next.remote(), timeout=120))
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts processes that end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*command: str, **environment: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{len(started)}.log").open("wb") as output:
            process = subprocess.Popen(
                command, env=clean_environment(**environment), stdout=output, stderr=output, start_new_session=True
            )
        started.append(process)
        return process

    yield run
    for process in started:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to it and all it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


@pytest.mark.timeout(600)
def test_a_head_with_its_state_in_redis_keeps_the_cluster(
    tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]], timing: Callable[[str], None]
) -> None:
    server = shutil.which("redis-server")
    if server is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("redis-server is missing: install your distribution's package of that name")
    assert server
    redis, gcs = free_port(), free_port()
    start(server, "--port", str(redis), "--requirepass", "secret", "--save", "", "--dir", str(tmp_path))
    short = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--object-store-memory=100000000"]
    head = [*ray, "--head", f"--port={gcs}", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={short}"]
    head += ["--redis-password=secret"]
    kept = {**token, "RAY_REDIS_ADDRESS": f"127.0.0.1:{redis}", "RAY_external_storage_namespace": "test"}

    def ask() -> tuple[str, int]:
        command = [sys.executable, "-c", ASK, f"127.0.0.1:{gcs}"]
        deadline = time.monotonic() + 240
        while True:
            done = subprocess.run(command, env=clean_environment(**token), capture_output=True, text=True)
            if (line := done.stdout.partition("COUNTED ")[2]) or time.monotonic() > deadline:
                assert line, done.stderr
                pid, count = line.split()[:2]
                return pid, int(count)
            time.sleep(2)

    try:
        first = start(*head, **kept)
        time.sleep(8)
        start(*ray, f"--address=127.0.0.1:{gcs}", "--num-cpus=1", "--node-ip-address=127.0.0.2", **token)
        pid, count = ask()
        assert count == 1
        end(first)
        began = time.monotonic()
        start(*head, **kept)
        again, count = ask()
        timing(f"head killed and started again: its worker answers after {time.monotonic() - began:.1f} s")
        assert (again, count) == (pid, 2)  # the same process on the worker, with what it knew
    finally:
        shutil.rmtree(short, ignore_errors=True)
