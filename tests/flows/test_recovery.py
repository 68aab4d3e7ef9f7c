"""Ray Train's list of checkpoints is made true before training goes on."""

import json
from pathlib import Path

import pytest

from ray_jobs.errors import DamagedCheckpoint
from ray_jobs.flows.checkpoints import EXPERIMENT, MANIFEST, fetch_checkpoint, write_manifest
from ray_jobs.flows.recovery import SNAPSHOT, repair_list
from ray_jobs.storage import FolderStorage


@pytest.fixture
def stored(tmp_path: Path) -> FolderStorage:
    """Three checkpoints and Ray's list of them, in Ray's own words."""
    storage = FolderStorage(tmp_path / "stored")
    for epoch in (1, 2, 3):
        folder = tmp_path / f"made{epoch}"
        folder.mkdir()
        (folder / "state.pt").write_bytes(b"state of epoch %d" % epoch)
        write_manifest(folder, epoch=epoch, last=False, batch_size=16)
        storage.put_folder(folder, f"{EXPERIMENT}/epoch_0000{epoch}")
    entries = [{"version": 0, "checkpoint_dir_name": f"epoch_0000{n}", "metrics": {"epoch": n}} for n in (1, 2, 3)]
    state = {
        "ray_version": __import__("ray").__version__,
        "checkpoint_results": entries,
        "checkpoint_report_indices": [0, 1, 2],
        "latest_checkpoint_result": entries[-1],
        "pending_training_results": [],
        "pending_validation_specs": [],
        "current_report_index": 3,
        "validated_checkpoint_dir_names": [],
        "timed_out_validation_checkpoint_dir_names": [],
        "failed_validation_checkpoint_dir_names": [],
    }
    (storage.root / SNAPSHOT).write_text(json.dumps(state))
    return storage


def listed(storage: FolderStorage) -> tuple[list[str], str | None]:
    """What the list names, and its latest, as Ray reads it."""
    from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import _CheckpointManagerState

    state = _CheckpointManagerState.model_validate(json.loads((storage.root / SNAPSHOT).read_text()))
    assert len(state.checkpoint_report_indices) == len(state.checkpoint_results)
    latest = state.latest_checkpoint_result
    return [result.checkpoint_dir_name for result in state.checkpoint_results], latest and latest.checkpoint_dir_name


def test_a_good_list_is_left_alone(stored: FolderStorage, tmp_path: Path) -> None:
    before = (stored.root / SNAPSHOT).read_bytes()
    assert repair_list(stored) == []
    assert (stored.root / SNAPSHOT).read_bytes() == before
    assert repair_list(FolderStorage(tmp_path / "new")) == []


def test_the_latest_is_dropped_when_asked(stored: FolderStorage) -> None:
    repair_list(stored, drop_latest=True)
    assert listed(stored) == (["epoch_00001", "epoch_00002"], "epoch_00002")
    repair_list(stored, drop_latest=True)
    repair_list(stored, drop_latest=True)
    assert listed(stored) == ([], None)


@pytest.mark.parametrize("damage", ["gone", "cut short", "other json", "names a path"])
def test_a_checkpoint_without_a_good_manifest_is_taken_off(stored: FolderStorage, damage: str) -> None:
    manifest = stored.root / EXPERIMENT / "epoch_00003" / MANIFEST
    body = json.loads(manifest.read_text())
    if damage == "gone":
        manifest.unlink()
    elif damage == "cut short":
        manifest.write_text(manifest.read_text()[:30])
    elif damage == "other json":
        manifest.write_text("[1, 2]")
    else:
        manifest.write_text(json.dumps({**body, "files": {**body["files"], "../../../etc/passwd": "0" * 64}}))
    (line,) = repair_list(stored)
    assert "epoch_00003" in line
    assert line.endswith("it is not used")
    assert listed(stored) == (["epoch_00001", "epoch_00002"], "epoch_00002")


def test_a_list_that_cannot_be_read_is_made_anew(stored: FolderStorage) -> None:
    (stored.root / SNAPSHOT).write_text((stored.root / SNAPSHOT).read_text()[:100])
    (stored.root / EXPERIMENT / "epoch_00002" / MANIFEST).unlink()
    said = repair_list(stored)
    assert "cannot be read; made anew" in said[0]
    assert listed(stored) == (["epoch_00001", "epoch_00003"], "epoch_00003")


@pytest.mark.parametrize("damage", ["truncated", "bit flipped", "missing"])
def test_damage_is_found_by_checksum(stored: FolderStorage, tmp_path: Path, damage: str) -> None:
    file = stored.root / EXPERIMENT / "epoch_00002" / "state.pt"
    body = bytearray(file.read_bytes())
    body[3] ^= 1
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(body if damage == "bit flipped" else body[:5])
    with pytest.raises(DamagedCheckpoint, match=r"epoch_00002/state\.pt: is (damaged|missing); its SHA-256"):
        fetch_checkpoint(stored, "epoch_00002", tmp_path / "back")
    fetch_checkpoint(stored, "epoch_00001", tmp_path / "good")
