"""Two hundred epochs with checkpoints to a real S3 server: nothing grows that should not."""

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from ray_jobs.storage import S3Storage
from tests.faults.drive import SMALL, Drive, epochs, journal, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.long]
EPOCHS = 200
SETTLED = 40  # epochs after which everything has been imported, opened and allocated once
KEEP = 2
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
ROLES = {"driver": "-m ray_jobs.train", "controller": "TrainController", "worker": "RayTrainWorker"}


class Samples:
    """What the processes of a run use, epoch by epoch: resident MB and open files by role, and the store's MB."""

    def __init__(self, drive: Drive, storage: S3Storage) -> None:
        self._drive, self._storage = drive, storage
        self.epochs: list[int] = []
        self.memory: dict[str, list[float]] = defaultdict(list)
        self.files: dict[str, list[int]] = defaultdict(list)
        self.stored_mb: list[float] = []
        self.checkpoints: list[int] = []

    def take(self, epoch: int) -> None:
        """Look at all of it now."""
        self.epochs.append(epoch)
        for role, title in ROLES.items():
            pids = [self._drive.process.pid] if role == "driver" else sorted(self._drive.processes(title))
            for number, pid in enumerate(pids):
                name = f"{role} {number}" if role == "worker" else role
                self.memory[name].append(psutil.Process(pid).memory_info().rss / 1e6)
                self.files[name].append(len(os.listdir(f"/proc/{pid}/fd")))  # noqa: PTH208 - a list of many, counted
        pages = self._storage._client.get_paginator("list_objects_v2").paginate(Bucket=self._storage.bucket)
        objects = [entry for page in pages for entry in page.get("Contents", ())]
        self.stored_mb.append(sum(entry["Size"] for entry in objects) / 1e6)
        self.checkpoints.append(sum(entry["Key"].endswith("/state.pt") for entry in objects))

    def slope(self, name: str) -> float:
        """MB that a process grew by in 100 epochs, as a straight line through its samples has it."""
        return 100 * float(np.polyfit(self.epochs, self.memory[name], 1)[0])


@pytest.mark.timeout(5400)
def test_two_hundred_epochs_leave_memory_files_and_store_flat(
    xrays_mini: Path, tmp_path: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch, timing: Callable[[str], None]
) -> None:
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": s3_server}.items():
        monkeypatch.setenv(name, value)
    storage = S3Storage("soak", "")
    storage._client.create_bucket(Bucket="soak")
    run = tmp_path / "runs" / "soak"
    options = [*SMALL, f"epochs={EPOCHS}", f"keep={KEEP}", "patience=1000", "storage.url=s3://soak"]
    arguments = ["--data", xrays_mini / "data.yaml", "--run-name", "soak", *options]
    with Drive(tmp_path, *arguments, tracking=True, **KEYS, AWS_ENDPOINT_URL=s3_server) as drive:
        samples = Samples(drive, storage)
        for epoch in range(SETTLED, EPOCHS - 15, 5):  # epochs may be reported several at once
            wait_until(lambda: len(epochs(run)) >= epoch, f"epoch {epoch}", timeout=1200)  # noqa: B023
            samples.take(len(epochs(run)))
        drive.end(timeout=600)
    assert sorted(epochs(run)) == list(range(1, EPOCHS + 1))
    assert not [line for line in journal(run) if line["kind"] == "failure"]
    for name, used in sorted(samples.memory.items()):
        timing(
            f"soak, {name}: {samples.slope(name):+.1f} MB per 100 epochs (from {used[0]:.0f} to {used[-1]:.0f} MB), "
            f"open files {min(samples.files[name])} to {max(samples.files[name])}"
        )
    timing(f"soak, store: {min(samples.stored_mb):.0f} to {max(samples.stored_mb):.0f} MB")
    assert set(samples.memory) == {"driver", "controller", "worker 0", "worker 1"}
    assert {len(used) for used in samples.memory.values()} == {len(samples.epochs)}  # the same processes all along
    assert all(samples.slope(name) < 25 for name in samples.memory)
    for name, files in samples.files.items():
        half = len(files) // 2
        assert max(files[half:]) <= max(files[:half]) + 8, name
    # KEEP, the last, the one that Ray has not deleted yet, and the one that is being stored.
    assert max(samples.checkpoints) <= KEEP + 3
    half = len(samples.stored_mb) // 2
    assert max(samples.stored_mb[half:]) <= 1.2 * max(samples.stored_mb[:half])
