"""Workers that are killed or stand still: the run goes on by itself and ends with the same bits."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ray_jobs.storage import FolderStorage
from tests.faults.drive import SMALL, Drive, epochs, journal, stored_checkpoints, verify_checkpoints, wait_until

pytestmark = pytest.mark.slow
SEED = 5


def back_at_work(drive: Drive, run: Path, before: set[int]) -> float:
    """Wait until a new worker group trains; returns when."""

    def trains() -> bool:
        states = [line for line in journal(run) if line["kind"] in ("state", "failure")]
        return bool(states) and states[-1].get("state") == "running" and not before & set(drive.workers())

    wait_until(trains, "the workers are running again")
    return time.monotonic()


@pytest.mark.timeout(600)
def test_killed_and_hung_workers_cost_seconds_and_no_bit(
    xrays_mini: Path, tmp_path: Path, reference: dict[int, str], timing: Callable[[str], None]
) -> None:
    """SIGKILL at a random moment, SIGKILL while a checkpoint is written, and SIGSTOP, all in one run."""
    chance = random.Random(SEED)
    run = tmp_path / "runs" / "hurt"
    options = [*SMALL, "cluster.hang_timeout_s=15", "cluster.max_failures=3"]
    with Drive(tmp_path, "--data", xrays_mini / "data.yaml", "--run-name", "hurt", *options) as drive:
        drive.wait_for("epoch 2/")
        time.sleep(chance.uniform(0, 1))
        first = set(drive.workers())
        assert len(first) == 2
        killed = time.monotonic()
        os.kill(chance.choice(sorted(first)), signal.SIGKILL)
        said = drive.wait_for("its process died (killed, or out of memory); they are started again (failure 1 of 3)")
        assert "gloo" not in drive.lines[said - 1]  # the cause, and not what came of it
        timing(f"SIGKILL of a worker: running again after {back_at_work(drive, run, first) - killed:.1f} s")

        said = drive.wait_for("epoch 4/", after=said)
        second = set(drive.workers())
        writing = wait_until(lambda: list((run / "checkpoints").glob(".epoch_*.partial")), "a checkpoint is written")
        for worker in second:
            os.kill(worker, signal.SIGKILL)
        assert writing
        said = drive.wait_for("(failure 2 of 3)", after=said)
        back_at_work(drive, run, second)

        said = drive.wait_for("epoch 6/", after=said)
        third = set(drive.workers())
        stopped = time.monotonic()
        hung = chance.choice(sorted(third))
        os.kill(hung, signal.SIGSTOP)
        said = drive.wait_for("did not answer for longer than cluster.hang_timeout_s", after=said)
        seconds = back_at_work(drive, run, third) - stopped
        timing(f"SIGSTOP of a worker, hang_timeout_s=15: running again after {seconds:.1f} s")
        assert not Path(f"/proc/{hung}").exists()
        drive.end()
    assert epochs(run) == reference
    verify_checkpoints(FolderStorage(run), stored_checkpoints(run), tmp_path / "back")
