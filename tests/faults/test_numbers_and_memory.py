"""What goes wrong inside a worker: numbers that are none, a thread that stands still, memory that is not there."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.drive import EPOCHS, SMALL, Drive, epochs, journal

pytestmark = pytest.mark.slow
POISON = Path(__file__).with_name("poison")


@pytest.mark.timeout(900)
def test_nan_is_rolled_back_a_hang_is_ended_and_too_little_memory_stops_the_run(
    xrays_mini: Path, tmp_path: Path, reference: dict[int, str], timing: Callable[[str], None]
) -> None:
    plan = tmp_path / "plan"
    plan.mkdir()
    run = tmp_path / "runs" / "ill"
    environment = {
        "XRAY_POISON": str(plan),
        "PYTHONPATH": os.pathsep.join([str(POISON), os.environ.get("PYTHONPATH", "")]),
    }
    (plan / "3-1-nan").touch()
    (plan / "5-0-hang").touch()
    (plan / "7-1-oom").touch()
    options = [*SMALL, "cluster.hang_timeout_s=15", "cluster.max_rollbacks=1"]
    with Drive(tmp_path, "--data", xrays_mini / "data.yaml", "--run-name", "ill", *options, **environment) as drive:
        said = drive.wait_for("rolled back: epoch 3: the loss is not finite")
        assert "going on from the last good checkpoint with half the learning rate" in drive.lines[said - 1]
        said = drive.wait_for("made no progress for longer than cluster.hang_timeout_s", after=said)
        said = drive.wait_for("epoch 6/", after=said)
        began = time.monotonic()
        said_all = drive.end(code=1)
        timing(f"out of memory on one rank: all ended after {time.monotonic() - began:.1f} s, an epoch included")
    assert "rank 1: out of memory on cpu with batch_size 18 (9 per worker) at 64 px; try batch_size=8" in said_all
    assert list(plan.iterdir()) == []
    found = epochs(run)
    assert sorted(found) == list(range(1, EPOCHS - 1))
    assert [found[n] for n in (1, 2)] == [reference[n] for n in (1, 2)]
    assert found[3] != reference[3]  # half the learning rate
    for line in journal(run):
        if line["kind"] == "epoch":
            assert all(math.isfinite(v) for k, v in line["metrics"].items() if k.startswith("train/"))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_numbers_that_stay_bad_stop_the_run(xrays_mini: Path, tmp_path: Path) -> None:
    """A learning rate that no halving saves; after one roll-back there is a clear end."""
    options = [
        *SMALL,
        "optimizer=SGD",
        "lr0=1e12",
        "warmup_epochs=0",
        "cluster.max_rollbacks=1",
        "cluster.num_workers=1",
    ]
    with Drive(tmp_path, "--data", xrays_mini / "data.yaml", "--run-name", "nan", *options) as drive:
        said = drive.end(code=1)
    assert said.count("rolled back: epoch 1") == 1
    assert "also after 1 roll-back(s) with a lower learning rate (cluster.max_rollbacks)" in said
    assert "set an optimizer and a lower lr0" in said
