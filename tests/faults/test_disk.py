"""Disks that are full: it is said; what was stored stays good; the run goes on when there is room."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ray_jobs.storage import FolderStorage
from tests.faults.drive import SMALL, Drive, epochs, stored_checkpoints, verify_checkpoints

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many megabytes; called again, it resizes it. Needs root, as CI has."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def mount(megabytes: int) -> Path:
        nonlocal mounted
        options = f"{'remount,' if mounted else ''}size={megabytes}m"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(place)], capture_output=True, text=True
        )
        if done.returncode:
            missing = pytest.fail if os.environ.get("CI") else pytest.skip
            missing(f"no small disk can be mounted here (needs root): {done.stderr.strip()}")
        mounted = True
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.timeout(900)
def test_a_full_disk_under_the_checkpoints(
    xrays_mini: Path, tmp_path: Path, small_disk: Callable[[int], Path], reference: dict[int, str]
) -> None:
    """The run's folder, with journal and checkpoints, on the driver's disk."""
    disk = small_disk(100)
    run = disk / "full"
    data = ["--data", xrays_mini / "data.yaml", "--run-name", "full", *SMALL, f"output_dir={disk}"]
    with Drive(tmp_path, *data) as drive:
        said = drive.end(code=1)
    assert f"{run}/checkpoints/" in said
    assert "the disk is full: " in said
    assert "MB are needed, " in said
    assert "MB are free; make room there, then go on" in said
    stored = stored_checkpoints(run)
    assert stored
    verify_checkpoints(FolderStorage(run), stored, tmp_path / "back")
    small_disk(2000)
    with Drive(tmp_path, *data) as drive:
        drive.end()
    assert epochs(run) == reference


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_full_disk_on_a_node(xrays_mini: Path, tmp_path: Path, small_disk: Callable[[int], Path]) -> None:
    """Where workers write before they upload; Ray's own files lie elsewhere."""
    disk = small_disk(40)
    sessions = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: sockets lie in it
    data = ["--data", xrays_mini / "data.yaml", "--run-name", "node", *SMALL]
    try:
        with Drive(tmp_path, *data, TMPDIR=str(disk), RAY_TMPDIR=str(sessions)) as drive:
            said = drive.end(code=1)
    finally:
        shutil.rmtree(sessions, ignore_errors=True)
    assert f"{disk}/xray-scratch-" in said
    assert "the disk is full: " in said
    assert "MB are free; make room there, then go on" in said
