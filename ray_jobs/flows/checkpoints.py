"""Checkpoints on their way from a training worker to storage, and back when a run goes on.

After every epoch each rank reports to Ray; rank 0 adds a checkpoint, which a background thread uploads and verifies.
At most one checkpoint is on its way. An epoch that ends meanwhile adds none, and the next free one carries all that
counts: the newest state, and the best weights so far. The last epoch waits for its turn and is always stored.
"""

import json
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.detector.epoch_report import EpochReport
from ray_jobs.errors import RunExists, TrainingError
from ray_jobs.flows.measures import RankMeasures
from ray_jobs.storage import Storage, scratch_folder, sha256_of

if TYPE_CHECKING:
    import ray.train


EXPERIMENT = "checkpoints"  # the folder in a run's storage that Ray Train manages
MANIFEST = "manifest.json"
OWNER = "owner.json"  # names the run that a place in storage belongs to


class CheckpointReporter:
    """Reports every epoch of one rank to Ray Train; called on all ranks equally often."""

    def __init__(self, storage: Storage, measures: RankMeasures) -> None:
        self.storage, self.measures = storage, measures
        self.dropped = 0
        self.blocked_s = 0.0
        self._idle = threading.Event()
        self._idle.set()

    def __call__(self, report: EpochReport) -> None:
        """Report an epoch; the training thread waits for no upload but the last."""
        import ray.train
        from ray.train import CheckpointUploadMode

        started = time.perf_counter()
        checkpoint = self._write(report)
        self.blocked_s = time.perf_counter() - started
        self.measures.epoch(report, self.blocked_s)
        ray.train.report(
            {
                **report.metrics,
                "epoch": report.epoch,
                "started": report.started,
                "last": report.last,
                "weights_digest": report.weights_digest,
                "local_rank": ray.train.get_context().get_local_rank(),
                "checkpoints_dropped": self.dropped,
                "checkpoint_blocked_seconds": self.blocked_s,
            },
            checkpoint=checkpoint,
            checkpoint_dir_name=f"epoch_{report.epoch:05d}",
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=self._upload,
        )

    def _write(self, report: EpochReport) -> "ray.train.Checkpoint | None":
        if report.write_checkpoint is None:
            return None
        if report.last:
            self._idle.wait()
        elif not self._idle.is_set():
            self.dropped += 1
            return None
        from ray.train import Checkpoint

        # Not in the worker's own folder: the last upload may outlive the worker function. Ray deletes this folder.
        folder = scratch_folder("checkpoint")
        report.write_checkpoint(folder)
        write_manifest(folder, report.epoch, report.last, report.batch_size)
        self._idle.clear()
        return Checkpoint.from_directory(folder)

    def _upload(self, checkpoint: "ray.train.Checkpoint", name: str) -> "ray.train.Checkpoint":
        """Runs in Ray's upload thread; Ray deletes the local folder afterwards."""
        import ray.train

        try:
            with self.measures.upload(Path(checkpoint.path), epoch=int(name.removeprefix("epoch_"))):
                self.storage.put_folder(Path(checkpoint.path), f"{EXPERIMENT}/{name}")
        finally:
            self._idle.set()
        place = ray.train.get_context().get_storage()
        return ray.train.Checkpoint(place.build_checkpoint_path_from_name(name), place.storage_filesystem)


def claim_storage(storage: Storage, uid: str) -> None:
    """Make this place the run's own. Raises ``RunExists`` where another run keeps its checkpoints there.

    Run folders are a driver's own, storage may be shared: without this, a run of the same name from elsewhere would be
    continued with other settings, and its checkpoints deleted.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / OWNER
        owner = json.loads(file.read_text()).get("run") if storage.get_file(OWNER, file) else None
        taken = owner is None and storage.get_file(f"{EXPERIMENT}/checkpoint_manager_snapshot.json", file)
        if taken or owner not in (None, uid):
            raise RunExists(f"{storage.url}: another run keeps its checkpoints there; choose another run_name")
        if owner is None:
            file.write_text(json.dumps({"run": uid}), encoding="utf-8")
            storage.put_file(file, OWNER)


def write_manifest(folder: Path, epoch: int, last: bool, batch_size: int) -> None:
    """Write ``manifest.json``: the epoch (from 1), whether training ended with it, the global batch that it was
    trained with, and each file's SHA-256."""
    files = {file.name: sha256_of(file) for file in sorted(folder.iterdir())}
    manifest = {"epoch": epoch, "last": last, "batch_size": batch_size, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def fetch_checkpoint(storage: Storage, name: str, target: Path, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """Fetch a checkpoint's files into ``target`` and compare them with its manifest, which is returned.

    ``only`` limits the files. Raises ``TrainingError`` for a checkpoint that is missing or damaged.
    """
    target.mkdir(parents=True, exist_ok=True)
    place = f"{storage.url}/{EXPERIMENT}/{name}"
    if not storage.get_file(f"{EXPERIMENT}/{name}/{MANIFEST}", target / MANIFEST):
        raise TrainingError(f"{place}: the checkpoint has no {MANIFEST}; it was not written as a whole")
    manifest: dict[str, Any] = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
    for file, digest in manifest["files"].items():
        if only and file not in only:
            continue
        found = storage.get_file(f"{EXPERIMENT}/{name}/{file}", target / file)
        if not found or sha256_of(target / file) != digest:
            raise TrainingError(f"{place}/{file}: is {'damaged' if found else 'missing'}; its SHA-256 does not agree")
    return manifest
