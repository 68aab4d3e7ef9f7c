"""Checkpoints: never in the way of training, the last and the best always stored, damage found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ray_jobs.errors import TrainingError
from ray_jobs.flows.checkpoints import fetch_checkpoint, write_manifest
from ray_jobs.storage import FolderStorage

SMALL = ["epochs=6", "img_size=64", "batch_size=18", "device=cpu", "workers=0", "keep=1"]


@pytest.mark.slow
def test_epochs_shorter_than_an_upload_drop_checkpoints_but_not_the_last(xrays_mini: Path, tmp_path: Path) -> None:
    """Also an elastic range of workers: it takes what is there."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    script = Path(__file__).with_name("slow_storage.py")
    arguments = [xrays_mini / "data.yaml", tmp_path, "6", *SMALL, "cluster.num_workers=[1,2]"]
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        env={**clean, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = map(json.loads, (tmp_path / "journal.jsonl").read_text().splitlines())
    journal = [line for line in lines if line["kind"] == "epoch"]
    assert [line["metrics"]["epoch"] for line in journal] == [1, 2, 3, 4, 5, 6]
    assert {len(line["weights_digests"]) for line in journal} == {2}
    stored = [line["checkpoint"] for line in journal if line["checkpoint"]]
    assert len(stored) == 6 - journal[-1]["metrics"]["checkpoints_dropped"] < 6
    assert stored[-1] == "epoch_00006"
    kept = sorted(folder.name for folder in (tmp_path / "checkpoints").glob("epoch_*"))
    assert kept == stored[-2:]  # the last, and keep=1 more
    manifest = fetch_checkpoint(FolderStorage(tmp_path), "epoch_00006", tmp_path / "back")
    assert (manifest["epoch"], manifest["last"], manifest["batch_size"]) == (6, True, 18)
    assert {"best.pt", "last.pt", "state.pt", "results.csv"} <= set(manifest["files"])


def test_a_damaged_checkpoint_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "state.pt").write_bytes(b"state")
    write_manifest(folder, epoch=3, last=False, batch_size=16)
    storage = FolderStorage(tmp_path / "stored")
    storage.put_folder(folder, "checkpoints/epoch_00003")
    assert fetch_checkpoint(storage, "epoch_00003", tmp_path / "good")["epoch"] == 3

    (tmp_path / "stored" / "checkpoints" / "epoch_00003" / "state.pt").write_bytes(b"statE")
    with pytest.raises(TrainingError, match=r"epoch_00003/state\.pt: is damaged"):
        fetch_checkpoint(storage, "epoch_00003", tmp_path / "bad")
    with pytest.raises(TrainingError, match="was not written as a whole"):
        fetch_checkpoint(storage, "epoch_00004", tmp_path / "none")
