"""Two drivers of one run: one wins, the other says so; a dead one is followed at once."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ray_jobs.errors import RunExists
from ray_jobs.flows.ownership import OWNER, Lease, Pace
from ray_jobs.storage import FolderStorage, S3Storage
from tests.faults.drive import clean_environment, wait_until

PACE = Pace(heartbeat_s=1.0, settle_s=1.0)
HOLD = """
import sys, time
from pathlib import Path
from ray_jobs.flows.ownership import Lease, Pace
from ray_jobs.storage import FolderStorage
Lease(FolderStorage(Path(sys.argv[1])), "run", Pace(1.0, 0.1))
print("HELD", flush=True)
time.sleep(1000)
"""


def test_of_drivers_that_start_together_one_wins(tmp_path: Path) -> None:
    for turn in range(3):
        storage = FolderStorage(tmp_path / str(turn))
        won: list[Lease] = []
        lost: list[str] = []

        def take(storage: FolderStorage = storage, won: list = won, lost: list = lost) -> None:
            try:
                won.append(Lease(storage, "run", PACE))
            except RunExists as error:
                lost.append(str(error))

        threads = [threading.Thread(target=take) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert (len(won), len(lost)) == (1, 1)
        assert f"process {os.getpid()}" in lost[0]
        assert won[0].lost_to is None
        won[0].release()


def test_a_living_driver_is_left_alone_and_a_dead_one_followed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, env=clean_environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "HELD\n"
    with pytest.raises(RunExists, match=f"driven from .*, process {process.pid} now"):
        Lease(FolderStorage(tmp_path), "run", PACE)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    Lease(FolderStorage(tmp_path), "run", PACE).release()


def test_a_driver_of_another_host_that_says_nothing_any_more_is_followed(tmp_path: Path) -> None:
    owner = {"run": "run", "driver": "x", "host": "elsewhere", "pid": 1, "beat": 7}
    (tmp_path / OWNER).write_text(json.dumps(owner))
    lease = Lease(FolderStorage(tmp_path), "run", PACE)
    assert json.loads((tmp_path / OWNER).read_text())["driver"] != "x"
    lease.release()
    assert json.loads((tmp_path / OWNER).read_text()) == {"run": "run"}


def test_a_driver_that_was_replaced_notices(tmp_path: Path) -> None:
    lease = Lease(FolderStorage(tmp_path), "run", PACE)
    owner = {"run": "run", "driver": "x", "host": "elsewhere", "pid": 1, "beat": 7}
    (tmp_path / OWNER).write_text(json.dumps(owner))
    wait_until(lambda: lease.lost_to, "it sees the other's name", timeout=30)
    assert lease.lost_to == "elsewhere, process 1"
    lease.release()
    assert json.loads((tmp_path / OWNER).read_text()) == owner


def test_a_driver_that_ends_does_not_wait_for_a_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        for name, value in {**keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}.items():
            monkeypatch.setenv(name, value)
        lease = Lease(FolderStorage(tmp_path), "run", Pace(heartbeat_s=1000.0, settle_s=0.1))
        lease._storage = S3Storage("xrays", "run")  # the store goes away, and is waited for 900 s elsewhere
        started = time.monotonic()
        lease.release()
        assert time.monotonic() - started < 30
