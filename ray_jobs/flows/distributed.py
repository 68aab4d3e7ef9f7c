"""The worker loop that training (and each trial of a search) runs, and how it is spread over a Ray cluster.

In: settings, a checked data set, starting weights, a place for checkpoints. Out: one trained model, and a line in the
run's journal after every epoch. The journal is written by Ray Train's controller, which runs on the driver's node.
"""

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.dataset.local_copy import Origin, bring_here
from ray_jobs.dataset.pixel_cache import private_cache_folder
from ray_jobs.errors import (
    DamagedCheckpoint,
    Diverged,
    PlatformError,
    StorageError,
    StoreOutage,
    TrainingError,
    WeightsError,
)
from ray_jobs.flows.checkpoints import EXPERIMENT, MANIFEST, CheckpointReporter, fetch_checkpoint, read_manifest
from ray_jobs.flows.controller_lines import Journal, StateLines, append_line, platform_error, root_cause
from ray_jobs.flows.hang_watch import HangWatch
from ray_jobs.flows.measures import RankMeasures
from ray_jobs.flows.ray_cluster import START_TIMEOUT_S, WorkerPlan, rank_timeout_s
from ray_jobs.flows.recovery import repair_list
from ray_jobs.settings import Settings
from ray_jobs.storage import FolderStorage, Storage, room_for, scratch_folder

if TYPE_CHECKING:
    from ray_jobs.detector.epoch_report import EpochReport
    from ray_jobs.detector.process import Place

ROLLBACK_FACTOR = 0.5  # what the learning rate is multiplied by after a roll-back: repeated, an epoch ends the same
PROBE_PAUSE_S = 5.0
RESIZE_INTERVAL_S = 15.0  # how often an elastic run looks for new nodes; Ray's 60 s leave one idle for a minute


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


@dataclass(frozen=True)
class Trained:
    """What training left behind: the last checkpoint's name in storage, and what its manifest says."""

    checkpoint: str
    manifest: dict[str, Any]


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


def fit(task: TrainingTask, plan: WorkerPlan, journal: Path) -> Trained:
    """Train on the joined cluster; returns when the last checkpoint is stored. Blocks.

    Calling it again with the same storage goes on after the last good checkpoint. What Ray Train does not survive is
    handled here, and said in the journal: a damaged checkpoint is left out and the one before it used; diverged
    training goes on from the last good one with half the learning rate; a store that is away longer than uploads wait
    is waited for. Raises ``TrainingError`` and other errors of ``ray_jobs.errors``.
    """
    rollbacks, failures = _count(journal, "rollback"), _count(journal, "failure")
    drop_latest = False
    while True:
        for problem in repair_list(task.storage, drop_latest=drop_latest):
            append_line(journal, "damaged", text=problem)
        drop_latest = False
        spent = _count(journal, "failure") - failures
        try:
            name = _fit_once(replace(task, lr_scale=task.lr_scale * ROLLBACK_FACTOR**rollbacks), plan, journal, spent)
            with tempfile.TemporaryDirectory() as folder:
                return Trained(name, read_manifest(task.storage, name, Path(folder)))
        except DamagedCheckpoint as error:
            append_line(journal, "damaged", text=f"{error}; the checkpoint before it is used")
            drop_latest = True
        except Diverged as error:
            if rollbacks >= task.settings.cluster.max_rollbacks:
                raise TrainingError(
                    f"{error}, also after {rollbacks} roll-back(s) with a lower learning rate "
                    "(cluster.max_rollbacks); set an optimizer and a lower lr0, or look at the data"
                ) from None
            rollbacks += 1
            append_line(journal, "rollback", text=f"{error}", lr_scale=ROLLBACK_FACTOR**rollbacks)
        except StoreOutage as error:
            append_line(journal, "outage", text=str(error))
            wait_for_store(task.storage, error, task.settings.storage.patience_s)


def wait_for_store(storage: Storage, error: StoreOutage, limit_s: float) -> None:
    """Return when a probe succeeds. Raises ``error`` after ``limit_s`` seconds without that."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            return storage.probe()
        except StorageError:
            if time.monotonic() > deadline:
                raise error from None
        time.sleep(PROBE_PAUSE_S)


def _fit_once(task: TrainingTask, plan: WorkerPlan, journal: Path, failures: int) -> str:
    """One Ray Train run; the last checkpoint's name. ``failures``: how many of max_failures are used up."""
    from ray.train.torch import TorchConfig, TorchTrainer

    cluster = task.settings.cluster
    path, filesystem = task.storage.ray_location()
    elastic = plan.min_workers != plan.max_workers
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"task": task},
        torch_config=TorchConfig(timeout_s=rank_timeout_s(task.settings)),
        scaling_config=ScalingConfig(
            num_workers=(plan.min_workers, plan.max_workers) if elastic else plan.max_workers,
            use_gpu=plan.gpus > 0,
            resources_per_worker={"CPU": plan.cpus, **({"GPU": plan.gpus} if plan.gpus else {})},
            **({"elastic_resize_monitor_interval_s": RESIZE_INTERVAL_S} if elastic else {}),
        ),
        run_config=RunConfig(
            name=EXPERIMENT,
            storage_path=path,
            storage_filesystem=filesystem,
            # One more than is asked for, and never less than two: where the newest is damaged there is another.
            checkpoint_config=CheckpointConfig(num_to_keep=max(task.settings.keep, 1) + 1),
            failure_config=FailureConfig(
                max_failures=max(cluster.max_failures - failures, 0) if cluster.max_failures >= 0 else -1,
                # A busy or shrunken cluster makes each try wait for START_TIMEOUT_S; Ray's default is to try for ever.
                controller_failure_limit=math.ceil(max(cluster.wait_s, cluster.lost_node_wait_s) / START_TIMEOUT_S) + 1,
            ),
            callbacks=[Journal(journal), StateLines(journal)],
        ),
    )
    result = _run(trainer)
    if result.checkpoint is None:
        raise TrainingError("training ended without a checkpoint")
    return Path(result.checkpoint.path).name


def _run(trainer: Any) -> Any:
    from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

    try:
        return trainer.fit()
    except WorkerGroupError as error:
        causes = {root_cause(failure) for failure in error.worker_failures.values()}
        raise TrainingError("training failed: " + "; ".join(sorted(causes))) from error
    except ControllerError as error:
        if (known := platform_error(error)) is not None:
            raise known from None
        raise TrainingError(f"training failed: {root_cause(error.controller_failure)}") from error


def _count(journal: Path, kind: str) -> int:
    """How many lines of a kind a journal has."""
    if not journal.is_file():
        return 0
    mark = f'{{"kind": "{kind}"'.encode()
    with journal.open("rb") as file:
        return sum(line.startswith(mark) for line in file)
