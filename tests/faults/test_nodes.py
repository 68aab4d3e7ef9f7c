"""A node that is lost, comes back, or is announced to go: a run shrinks and grows, or waits and says for what."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ray_jobs.storage import FolderStorage
from tests.faults.drive import (
    EPOCHS,
    SMALL,
    Drive,
    clean_environment,
    epochs,
    journal,
    stored_checkpoints,
    verify_checkpoints,
    wait_until,
)

pytestmark = pytest.mark.slow
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}


class TwoNodes:
    """``two_nodes.py`` in a process of its own."""

    def __init__(self, errors: Path) -> None:
        self._errors = errors.open("w")
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("two_nodes.py"))],
            env=clean_environment(**TOKEN),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        self.environment = {**TOKEN, "RAY_ADDRESS": self._answer("READY").split()[1]}

    def do(self, command: str) -> None:
        """Have it done; returns when it is."""
        assert self._process.stdin
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        self._answer("DONE")

    def _answer(self, word: str) -> str:
        assert self._process.stdout
        line = next((line for line in self._process.stdout if line.startswith(word)), None)
        assert line, Path(self._errors.name).read_text()
        return line

    def close(self) -> None:
        """Shut the cluster down."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
        self._process.stdout.close()
        self._errors.close()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    nodes = TwoNodes(tmp_path_factory.mktemp("nodes") / "errors")
    yield nodes
    nodes.close()


@pytest.mark.timeout(900)
def test_without_a_range_a_run_waits_for_its_node_and_ends_with_the_same_bits(
    xrays_mini: Path, tmp_path: Path, nodes: TwoNodes, reference: dict[int, str]
) -> None:
    run = tmp_path / "runs" / "fixed"
    arguments = ["--data", xrays_mini / "data.yaml", "--run-name", "fixed", *SMALL]
    with Drive(tmp_path, *arguments, **nodes.environment) as drive:
        drive.wait_for("epoch 3/")
        nodes.do("kill")
        try:
            said = drive.wait_for("workers were lost: rank ")
            said = drive.wait_for("waiting for 2 workers with 1 CPU each: the cluster has 1 CPUs", after=said)
            assert "room for 1" in drive.lines[said - 1]
        finally:
            nodes.do("add")
        drive.wait_for(f"/{EPOCHS}  loss", after=said)  # a worker may have ended one more before it missed its node
        drive.end()
    assert epochs(run) == reference


@pytest.mark.long
@pytest.mark.timeout(900)
def test_in_a_range_a_run_shrinks_and_grows_and_takes_a_notice(
    xrays_mini: Path, tmp_path: Path, nodes: TwoNodes, timing: Callable[[str], None]
) -> None:
    run = tmp_path / "runs" / "elastic"
    options = [*SMALL, "epochs=60", "keep=100", "cluster.num_workers=[1,2]"]
    arguments = ["--data", xrays_mini / "data.yaml", "--run-name", "elastic", *options]

    def world_size() -> int:
        lines = [line for line in journal(run) if line["kind"] == "epoch"]
        return len(lines[-1]["weights_digests"]) if lines else 0

    with Drive(tmp_path, *arguments, **nodes.environment) as drive:
        drive.wait_for("epoch  3/")
        assert world_size() == 2
        nodes.do("kill")
        lost = time.monotonic()
        said = drive.wait_for("going on with 1 worker(s) in place of 2")
        timing(f"node lost in an elastic range: one worker is started after {time.monotonic() - lost:.1f} s")
        wait_until(lambda: world_size() == 1, "an epoch of one worker")
        timing(f"node lost in an elastic range: one worker has ended an epoch after {time.monotonic() - lost:.1f} s")

        nodes.do("add")
        added = time.monotonic()
        said = drive.wait_for("going on with 2 worker(s) in place of 1", after=said)
        wait_until(lambda: world_size() == 2, "an epoch of two workers")
        timing(f"node back: two workers have ended an epoch after {time.monotonic() - added:.1f} s")

        deadline_s = 20.0
        nodes.do(f"drain {deadline_s}")
        noticed = time.time()
        said = drive.wait_for("a node of this run is being taken away", after=said)
        drive.wait_for("going on with 1 worker(s) in place of 2", after=said)
        lines = journal(run)
        before = [
            line for line in lines if line["kind"] == "epoch" and noticed < line["time"] < noticed + deadline_s + 1
        ]
        assert any(line["checkpoint"] for line in before)  # a checkpoint after the notice, before the deadline
        failures = [line for line in lines if line["kind"] == "failure"]
        wait_until(lambda: world_size() == 1, "an epoch of one worker")
        drive.process.send_signal(signal.SIGTERM)
        drive.end(code=128 + signal.SIGTERM)
    assert len(failures) == 1  # the lost node; the announced one is not charged to max_failures
    found = sorted(epochs(run))
    assert found == list(range(1, found[-1] + 1))  # grows and shrinks repeat epochs, and skip none
    verify_checkpoints(FolderStorage(run), stored_checkpoints(run)[-3:], tmp_path / "back")
