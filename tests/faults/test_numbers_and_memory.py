"""What goes wrong inside a worker: numbers that are none, a thread that stands still, memory that is not there."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.drive import SMALL, Drive, epochs, journal

pytestmark = pytest.mark.slow
POISON = Path(__file__).with_name("poison")


def poisoned(folder: Path, data: Path, name: str, doses: list[str], *options: str) -> Drive:
    """A run whose workers are hurt from the inside as ``poison/sitecustomize.py`` says."""
    plan = folder / "plan"
    plan.mkdir()
    for dose in doses:
        (plan / dose).touch()
    python = os.pathsep.join([str(POISON), os.environ.get("PYTHONPATH", "")])
    arguments = ["--data", data / "data.yaml", "--run-name", name, *SMALL, *options]
    return Drive(folder, *arguments, XRAY_POISON=str(plan), PYTHONPATH=python)


@pytest.mark.timeout(900)
def test_nan_is_rolled_back_a_hang_is_ended_and_too_little_memory_stops_the_run(
    xrays_mini: Path, tmp_path: Path, reference: dict[int, str], timing: Callable[[str], None]
) -> None:
    run = tmp_path / "runs" / "ill"
    doses = ["3-1-nan", "5-0-hang", "7-1-oom"]
    limits = ["cluster.hang_timeout_s=15", "cluster.max_rollbacks=1"]
    with poisoned(tmp_path, xrays_mini, "ill", doses, *limits) as drive:
        said = drive.wait_for("rolled back: epoch 3: the loss is not finite")
        assert "going on from the last good checkpoint with half the learning rate" in drive.lines[said - 1]
        said = drive.wait_for("(cluster.hang_timeout_s): it, or a rank that it waits for, stands still", after=said)
        drive.wait_for("epoch 5/", after=said)
        began = time.monotonic()
        said_all = drive.end(code=1)
        timing(f"out of memory on one rank: all ended after {time.monotonic() - began:.1f} s, two epochs included")
    assert "rank 1: out of memory on cpu with batch_size 18 (9 per worker) at 64 px; try batch_size=8" in said_all
    assert list((tmp_path / "plan").iterdir()) == []
    found = epochs(run)
    # Memory runs out at the beginning of epoch 7: Ray may hear of that before it has read the report of epoch 6.
    assert sorted(found) in (list(range(1, 6)), list(range(1, 7)))
    assert [found[n] for n in (1, 2)] == [reference[n] for n in (1, 2)]
    assert found[3] != reference[3]  # half the learning rate
    for line in journal(run):
        if line["kind"] == "epoch":
            assert all(math.isfinite(v) for k, v in line["metrics"].items() if k.startswith("train/"))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_numbers_that_turn_bad_again_and_again_stop_the_run(xrays_mini: Path, tmp_path: Path) -> None:
    with poisoned(tmp_path, xrays_mini, "nan", ["2-0-nan", "3-1-nan"], "cluster.max_rollbacks=1") as drive:
        said = drive.end(code=1)
    assert list((tmp_path / "plan").iterdir()) == []
    assert said.count("rolled back: ") == 1
    assert "epoch 3: the loss is not finite" in said
    assert "also after 1 roll-back(s) with a lower learning rate (cluster.max_rollbacks)" in said
    assert "set an optimizer and a lower lr0" in said
