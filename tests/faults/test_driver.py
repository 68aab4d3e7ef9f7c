"""The driver lost, checkpoints damaged meanwhile, failures at their limit: the next submission goes on."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from ray_jobs.flows.checkpoints import EXPERIMENT, MANIFEST, write_manifest
from ray_jobs.flows.recovery import SNAPSHOT
from tests.faults.drive import SMALL, Drive, epochs, wait_until

pytestmark = pytest.mark.slow


def of_another_model(checkpoint: Path) -> None:
    """Make a stored checkpoint one of a model with other shapes, with the right checksums."""
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    name = next(name for name, value in state["model"].items() if value.ndim == 4)
    state["model"][name] = state["model"][name][:1]
    torch.save(state, checkpoint / "state.pt")
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    (checkpoint / MANIFEST).unlink()
    write_manifest(checkpoint, manifest["epoch"], manifest["last"], manifest["batch_size"])


def listed(run: Path) -> list[str]:
    """The checkpoints on Ray's list, in order: one that a killed run was still storing is in its folder, not on it."""
    try:
        return sorted(
            entry["checkpoint_dir_name"] for entry in json.loads((run / SNAPSHOT).read_text())["checkpoint_results"]
        )
    except (FileNotFoundError, json.JSONDecodeError):  # being written now
        return []


@pytest.mark.timeout(900)
def test_a_lost_driver_and_damaged_checkpoints_cost_no_bit(
    xrays_mini: Path, tmp_path: Path, reference: dict[int, str]
) -> None:
    run = tmp_path / "runs" / "lost"
    stored = run / EXPERIMENT
    data = ["--data", xrays_mini / "data.yaml", "--run-name", "lost", *SMALL]

    with Drive(tmp_path, *data, "cluster.max_failures=0") as drive:
        drive.wait_for("epoch 2/")
        os.kill(drive.workers()[0], signal.SIGKILL)
        said = drive.end(code=1)
        assert "training failed: " in said
        assert "waiting" not in said

    with Drive(tmp_path, *data) as drive:  # the same submission again
        drive.wait_for("going on with lost after epoch")
        drive.wait_for("epoch 4/")
        wait_until(lambda: len(listed(run)) >= 2, "two checkpoints are on the list")
        drive.kill()
        wait_until(lambda: not drive.processes("Train"), "what trained for a driver that is gone is gone", timeout=60)

    newest, second = (stored / name for name in listed(run)[:-3:-1])
    (newest / "state.pt").write_bytes((newest / "state.pt").read_bytes()[:100_000])
    of_another_model(second)
    with Drive(tmp_path, "--resume", "lost") as drive:
        said = drive.end()
        assert (
            f"{newest.name}/state.pt: is damaged; its SHA-256 does not agree; the checkpoint before it is used" in said
        )
        assert "the training state is of another model" in said
    assert epochs(run) == reference


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_run_whose_list_was_cut_short_goes_on(xrays_mini: Path, tmp_path: Path, reference: dict[int, str]) -> None:
    """Ray's list of checkpoints half written, the newest checkpoint without a manifest."""
    run = tmp_path / "runs" / "cut"
    with Drive(tmp_path, "--data", xrays_mini / "data.yaml", "--run-name", "cut", *SMALL) as drive:
        drive.wait_for("epoch 4/")
        drive.process.send_signal(signal.SIGTERM)
        drive.end(code=128 + signal.SIGTERM)
    snapshot = run / EXPERIMENT / "checkpoint_manager_snapshot.json"
    snapshot.write_bytes(snapshot.read_bytes()[:200])
    newest = max((run / EXPERIMENT).glob("epoch_*"))
    (newest / MANIFEST).unlink()
    shutil.rmtree(run / EXPERIMENT / "epoch_00001")
    with Drive(tmp_path, "--resume", "cut") as drive:
        said = drive.end()
        assert "checkpoint_manager_snapshot.json: cannot be read; made anew" in said
        assert (
            f"{newest.name}: the checkpoint has no manifest.json; it was not written as a whole; it is not used" in said
        )
    assert epochs(run) == reference
