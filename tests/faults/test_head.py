"""The head dies and is started again: with its state in Redis, workers and what runs on them stay."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.drive import MARK, clean_environment, marked, wait_until
from tests.tracking.conftest import free_port

pytestmark = [pytest.mark.slow, pytest.mark.long]
ASK = Path(__file__).with_name("counting_actor.py")


class Process:
    """A command with all that it starts, wherever that goes: Ray gives its servers groups of their own."""

    def __init__(self, log: Path, *command: str, **environment: str) -> None:
        self._mark = uuid.uuid4().hex
        with log.open("wb") as output:
            environment = clean_environment(**{MARK: self._mark}, **environment)
            self._process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)

    def end(self) -> None:
        """SIGKILL to all of it."""
        for pid in marked(self._mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.kill()  # Redis writes its title over its environment
        self._process.wait(10)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts processes that end with the test."""
    started: list[Process] = []

    def run(*command: str, **environment: str) -> Process:
        started.append(Process(tmp_path / f"{len(started)}.log", *command, **environment))
        return started[-1]

    yield run
    for process in started:
        process.end()


@pytest.mark.timeout(600)
def test_a_head_with_its_state_in_redis_keeps_the_cluster(
    tmp_path: Path, start: Callable[..., Process], timing: Callable[[str], None]
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
    # A machine of its own, as far as processes go: Ray refuses a head where a raylet of the same address runs.
    alone = ["unshare", "--pid", "--fork", "--mount-proc"]
    head = [*alone, *ray, "--head", f"--port={gcs}", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={short}"]
    head += ["--redis-password=secret"]
    kept = {**token, "RAY_REDIS_ADDRESS": f"127.0.0.1:{redis}", "RAY_external_storage_namespace": "test"}

    def ask() -> tuple[str, int]:
        command = [sys.executable, str(ASK), f"127.0.0.1:{gcs}"]
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
        wait_until(lambda: "This command will now block" in (tmp_path / "1.log").read_text(), "the head is up")
        start(*ray, f"--address=127.0.0.1:{gcs}", "--num-cpus=1", "--node-ip-address=127.0.0.2", **token)
        pid, count = ask()
        assert count == 1
        first.end()
        began = time.monotonic()
        start(*head, **kept)
        again, count = ask()
        timing(f"head killed and started again: its worker answers after {time.monotonic() - began:.1f} s")
        assert (again, count) == (pid, 2)  # the same process on the worker, with what it knew
    finally:
        shutil.rmtree(short, ignore_errors=True)
