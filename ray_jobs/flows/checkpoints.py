"""Checkpoints on their way from a training worker to storage, and back when a run goes on.

After every epoch each rank reports to Ray; rank 0 adds a checkpoint. The training thread copies the state in memory; a
background thread writes, uploads and verifies it. At most one checkpoint is on its way. An epoch that ends meanwhile
adds none, and the next free one carries all that counts: the newest state, and the best weights so far. The last epoch
waits for its turn and is always stored.
"""

import json
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.detector.epoch_report import EpochReport, WriteCheckpoint
from ray_jobs.errors import DamagedCheckpoint, DamagedObject
from ray_jobs.flows.measures import RankMeasures
from ray_jobs.storage import Storage, room_for, scratch_folder, sha256_of

if TYPE_CHECKING:
    import ray.train


EXPERIMENT = "checkpoints"  # the folder in a run's storage that Ray Train manages
MANIFEST = "manifest.json"


class CheckpointReporter:
    """Reports every epoch of one rank to Ray Train; called on all ranks equally often."""

    def __init__(self, storage: Storage, measures: RankMeasures) -> None:
        import ray.train  # noqa: F401 - its first import takes a part of a second, which no epoch should wait for

        self.storage, self.measures = storage, measures
        self.dropped = 0
        self.blocked_s = 0.0
        self._size = 0
        self._idle = threading.Event()
        self._idle.set()
        self._pending: tuple[WriteCheckpoint, EpochReport] | None = None

    def __call__(self, report: EpochReport) -> None:
        """Report an epoch; the training thread waits for no upload but the last."""
        import ray.train
        from ray.train import CheckpointUploadMode

        started = time.perf_counter()
        waited, checkpoint = self._capture(report)
        self.blocked_s = time.perf_counter() - started - waited
        self.measures.epoch(report, self.blocked_s)
        trouble = self.storage.trouble
        ray.train.report(
            {
                **report.metrics,
                "epoch": report.epoch,
                "started": report.started,
                "last": report.last,
                "weights_digest": report.weights_digest,
                "precision": report.precision,
                "local_rank": ray.train.get_context().get_local_rank(),
                "checkpoints_dropped": self.dropped,
                "checkpoint_blocked_seconds": self.blocked_s,
                "storage_retries": trouble.retries,
                "storage_trouble": trouble.cause,
            },
            checkpoint=checkpoint,
            checkpoint_dir_name=f"epoch_{report.epoch:05d}",
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=self._write_and_upload,
        )

    def _capture(self, report: EpochReport) -> tuple[float, "ray.train.Checkpoint | None"]:
        """Seconds that the last epoch waited for its turn, and a checkpoint whose folder is still empty."""
        if report.capture_checkpoint is None:
            return 0.0, None
        started = time.perf_counter()
        if report.last:
            self._idle.wait()
        elif not self._idle.is_set():
            self.dropped += 1
            return 0.0, None
        waited = time.perf_counter() - started
        from ray.train import Checkpoint

        # Not in the worker's own folder: the last upload may outlive the worker function. Ray deletes this folder.
        folder = scratch_folder("checkpoint")
        self._pending = report.capture_checkpoint(), report
        self._idle.clear()
        return waited, Checkpoint.from_directory(folder)

    def _write_and_upload(self, checkpoint: "ray.train.Checkpoint", name: str) -> "ray.train.Checkpoint":
        """Runs in Ray's upload thread; Ray deletes the local folder afterwards."""
        import ray.train

        assert self._pending
        write, report = self._pending
        folder = Path(checkpoint.path)
        folder.mkdir(exist_ok=True)  # gone where Ray tries again what failed
        try:
            with room_for(self._size, folder):
                write(folder)
                write_manifest(folder, report.epoch, report.last, report.batch_size, report.nominal_batch)
            del write  # with the copy that it writes: the next epoch may use its memory
            self._size = sum(file.stat().st_size for file in folder.iterdir())
            with self.measures.upload(folder, report.epoch):
                self.storage.put_folder(folder, f"{EXPERIMENT}/{name}")
            self._pending = None
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            self._idle.set()
        place = ray.train.get_context().get_storage()
        return ray.train.Checkpoint(place.build_checkpoint_path_from_name(name), place.storage_filesystem)


def write_manifest(folder: Path, epoch: int, last: bool, batch_size: int, nominal_batch: int = 0) -> None:
    """Write ``manifest.json``: the epoch (from 1), whether training ended with it, the global batch that it was
    trained with and the images of an optimizer step (0: those of a batch), and each file's SHA-256."""
    files = {file.name: sha256_of(file) for file in sorted(folder.iterdir())}
    batches = {"batch_size": batch_size, "nominal_batch": nominal_batch}
    manifest = {"epoch": epoch, "last": last, **batches, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def fetch_checkpoint(storage: Storage, name: str, target: Path, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """Fetch a checkpoint's files into ``target`` and compare them with its manifest, which is returned.

    ``only`` limits the files. Raises ``DamagedCheckpoint`` for one that is missing, incomplete or damaged.
    """
    target.mkdir(parents=True, exist_ok=True)
    manifest = read_manifest(storage, name, target)
    for file, digest in manifest["files"].items():
        if only and file not in only:
            continue
        place = f"{storage.url}/{EXPERIMENT}/{name}/{file}"
        try:
            found = storage.get_file(f"{EXPERIMENT}/{name}/{file}", target / file)
        except DamagedObject as error:
            raise DamagedCheckpoint(str(error)) from None
        if not found or sha256_of(target / file) != digest:
            raise DamagedCheckpoint(f"{place}: is {'damaged' if found else 'missing'}; its SHA-256 does not agree")
    return manifest


def read_manifest(storage: Storage, name: str, target: Path) -> dict[str, Any]:
    """A checkpoint's manifest, fetched into the folder ``target``. Raises ``DamagedCheckpoint``."""
    place = f"{storage.url}/{EXPERIMENT}/{name}"
    try:
        if not storage.get_file(f"{EXPERIMENT}/{name}/{MANIFEST}", target / MANIFEST):
            raise DamagedCheckpoint(f"{place}: the checkpoint has no {MANIFEST}; it was not written as a whole")
        manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        names = {*manifest["files"]}
        if any("/" in name or name in ("", ".", "..") for name in names) or "state.pt" not in names:
            raise ValueError("names files that no checkpoint has")
        return {"epoch": int(manifest["epoch"]), "last": bool(manifest["last"]), **manifest}
    except DamagedObject as error:
        raise DamagedCheckpoint(str(error)) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(f"{place}/{MANIFEST}: is damaged: {error}") from None
