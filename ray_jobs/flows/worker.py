"""What every worker of a training run does: one rank, from the last checkpoint, if there is one, to the end.

In: a ``TrainingTask``. Out: checkpoints and reports. ``distributed.py`` starts workers and handles what ends them.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.dataset.local_copy import Origin, bring_here
from ray_jobs.dataset.pixel_cache import private_cache_folder
from ray_jobs.errors import DamagedCheckpoint, PlatformError, TrainingError, WeightsError
from ray_jobs.flows.checkpoints import EXPERIMENT, MANIFEST, CheckpointReporter, fetch_checkpoint
from ray_jobs.flows.hang_watch import HangWatch
from ray_jobs.flows.measures import RankMeasures
from ray_jobs.settings import Settings
from ray_jobs.storage import FolderStorage, Storage, room_for, scratch_folder

if TYPE_CHECKING:
    from ray_jobs.detector.epoch_report import EpochReport
    from ray_jobs.detector.process import Place


@dataclass(frozen=True)
class TrainingTask:
    """What every worker is given. ``weights`` are the bytes of the starting weights; empty: from scratch. ``run`` is
    the name under which its metrics are found. ``lr_scale`` multiplies the learning rate after a roll-back."""

    settings: Settings
    index: DatasetIndex
    storage: Storage
    weights: bytes
    cpus: int
    run: str = ""
    lr_scale: float = 1.0


def train_worker(config: dict[str, TrainingTask]) -> None:
    """What every worker runs: from the last checkpoint, if there is one, to the end.

    A ``PlatformError`` ends the run, where another try would end in the same way; ``fit`` handles some of them. After
    any other error Ray starts the workers again.
    """
    task = config["task"]
    import ray.train
    from ray.train.collective import barrier
    from ray.train.torch import get_device

    from ray_jobs.detector.process import Place

    context = ray.train.get_context()
    place = Place(
        rank=context.get_world_rank(),
        local_rank=context.get_local_rank(),
        world_size=context.get_world_size(),
        device=str(get_device()),
        threads=task.cpus,
    )
    _check_shared(task.storage)
    copied = 0
    if task.index.origin:
        copied = _bring_data(task.index.origin)
        barrier()  # other nodes may copy for hours; where training waits, it does so for half an hour only
    work_dir = scratch_folder("worker")
    try:
        with room_for(0, work_dir):
            _train(task, place, work_dir, copied)
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)


def _train(task: TrainingTask, place: "Place", work_dir: Path, copied: int) -> None:
    from ray_jobs.detector.process import prepare_process

    prepare_process(place)
    measures = RankMeasures(task.run, place.rank, task.storage.url)
    if copied:  # by another process of this node, or by nobody
        measures.copied(copied)
    reporter = CheckpointReporter(task.storage, measures)
    resume_from = _resume_folder(task.storage, work_dir)
    try:
        train_rank(task, place, work_dir, reporter, resume_from, _raise_beside_training, on_progress=measures.progress)
    finally:
        measures.close()


def train_rank(
    task: TrainingTask,
    place: "Place",
    work_dir: Path,
    report: Callable[["EpochReport"], None],
    resume_from: Path | None,
    on_hang: Callable[[Exception], None] | None = None,
    **how: Any,
) -> None:
    """One rank of a training run, from the checkpoint in ``resume_from`` (None: from the start) to the end.

    ``on_hang`` hears of a training that stands still before this process ends for it. ``how`` is passed on to
    ``train_detector``.
    """
    from ray_jobs.detector.training import train_detector

    manifest = json.loads((resume_from / MANIFEST).read_text()) if resume_from else {}
    if manifest.get("last") and not how.get("carried"):
        return  # the run was stopped after its last epoch
    batch_size = manifest.get("batch_size") or _global_batch(task, place)
    _check_shares(batch_size, place.world_size)
    weights = None
    if task.weights:
        weights = work_dir / "start.pt"
        weights.write_bytes(task.weights)
    watch = HangWatch(task.settings.cluster.hang_timeout_s, tell=on_hang)

    def watched_report(epoch: "EpochReport") -> None:
        watch.pause()
        report(epoch)

    try:
        train_detector(
            task.settings,
            task.index,
            place,
            work_dir,
            watched_report,
            batch_size=batch_size,
            nominal_batch=manifest.get("nominal_batch", 0),
            weights=weights,
            resume_from=resume_from,
            cache_folder=private_cache_folder(),
            lr_scale=task.lr_scale,
            on_batch=watch.beat,
            **how,
        )
    except WeightsError as error:
        if resume_from is None:
            raise
        raise DamagedCheckpoint(f"{task.storage.url}/{EXPERIMENT}: {error}") from None
    finally:
        watch.close()


def _check_shares(batch_size: int, workers: int) -> None:
    """Raise where the batch that a run has found to fit cannot be shared by the workers that it has now."""
    if batch_size % workers:
        usable = [str(count) for count in range(1, min(batch_size, 64) + 1) if batch_size % count == 0]
        raise TrainingError(
            f"the run trains with a batch of {batch_size} X-rays, which {workers} workers cannot share evenly; go on "
            f"with cluster.num_workers={', or '.join(usable)}"
        )


def _raise_beside_training(error: Exception) -> None:
    """Have Ray see an error of this worker while its training thread is stuck, as it does for failed uploads."""
    from ray.train.v2._internal.execution.context import get_train_context
    from ray.train.v2._internal.util import construct_user_exception_with_traceback

    runner = get_train_context().execution_context.training_thread_runner
    runner.get_exception_queue().put(construct_user_exception_with_traceback(error))


class NoDataHere(Exception):
    """This node cannot have a copy of the data set, in a run that others can go on with."""


def _bring_data(origin: Origin) -> int:
    """As ``bring_here``; once the run has a checkpoint, what fails costs a restart and not the run."""
    import ray.train

    try:
        return bring_here(origin)
    except PlatformError as error:
        if ray.train.get_checkpoint() is None:
            raise
        raise NoDataHere(str(error)) from None


def _check_shared(storage: Storage) -> None:
    """Raise where a run's folder is another node's own disk: checkpoints written here would be found by nobody."""
    if isinstance(storage, FolderStorage) and not (storage.root / EXPERIMENT / ".validate_storage_marker").exists():
        raise TrainingError(
            f"{storage.root}: is not shared by all nodes of the cluster; set storage.url to a shared folder or to s3://..."
        )


def _resume_folder(storage: Storage, work_dir: Path) -> Path | None:
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    folder = work_dir / "resume"
    fetch_checkpoint(storage, Path(checkpoint.path).name, folder)
    return folder


def _global_batch(task: TrainingTask, place: "Place") -> int:
    """The global batch; a share of GPU memory is probed once, on rank 0, and told to all."""
    wanted = task.settings.batch_size
    if isinstance(wanted, int):
        return wanted
    from torch import distributed as dist

    from ray_jobs.detector.memory_probe import largest_batch

    found: list[int | str] = [0]
    if place.rank == 0:
        try:
            found[0] = largest_batch(task.settings, place.device, len(task.index.names))
        except PlatformError as error:  # told to the other ranks, which would wait for ever
            found[0] = str(error)
    if place.world_size > 1:
        dist.broadcast_object_list(found, 0)
    if isinstance(found[0], str):
        raise TrainingError(found[0])
    return found[0] * place.world_size
