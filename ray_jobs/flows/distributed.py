"""The worker loop that training (and each trial of a search) runs, and how it is spread over a Ray cluster.

In: settings, a checked data set, starting weights, a place for checkpoints. Out: one trained model, and a line in the
run's journal after every epoch. The journal is written by Ray Train's controller, which runs on the driver's node.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.dataset.pixel_cache import private_cache_folder
from ray_jobs.errors import PlatformError, TrainingError
from ray_jobs.flows.checkpoints import EXPERIMENT, MANIFEST, CheckpointReporter, fetch_checkpoint
from ray_jobs.flows.ray_cluster import WorkerPlan
from ray_jobs.settings import Settings
from ray_jobs.storage import FolderStorage, Storage, scratch_folder

if TYPE_CHECKING:
    from ray_jobs.detector.epoch_report import EpochReport
    from ray_jobs.detector.process import Place


@dataclass(frozen=True)
class TrainingTask:
    """What every worker is given. ``weights`` are the bytes of the starting weights; empty: from scratch."""

    settings: Settings
    index: DatasetIndex
    storage: Storage
    weights: bytes
    cpus: int


@dataclass(frozen=True)
class Trained:
    """What training left behind: the last checkpoint's name in storage, and what its manifest says."""

    checkpoint: str
    manifest: dict[str, Any]


class Journal(UserCallback):
    """Appends a line to a file after every report; lives in Ray Train's controller."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:  # noqa: ARG002
        """One line per epoch: rank 0's metrics, each rank's weights digest and local rank, the checkpoint's name."""
        line = {
            "kind": "epoch",
            "time": time.time(),
            "metrics": metrics[0],
            "weights_digests": [rank["weights_digest"] for rank in metrics],
            "local_ranks": [rank["local_rank"] for rank in metrics],
            "checkpoint": Path(checkpoint.path).name if checkpoint else None,
        }
        self._append(line)

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        """One line per lost or failed worker group."""
        causes = {str(rank): str(error).strip().splitlines()[-1:] for rank, error in worker_exceptions.items()}
        self._append({"kind": "failure", "time": time.time(), "causes": causes})

    def _append(self, line: dict[str, Any]) -> None:
        with self.path.open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            unfinished = size and file.read(1) != b"\n"  # a line that was cut short stays one bad line
            file.write(b"\n" * bool(unfinished) + json.dumps(line).encode() + b"\n")


def train_worker(config: dict[str, TrainingTask]) -> str | None:
    """What every worker runs: from the last checkpoint, if there is one, to the end.

    Returns why training cannot go on, where another try would end in the same way; what may pass is raised, and Ray
    starts the workers again.
    """
    task = config["task"]
    import ray.train
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
    work_dir = scratch_folder("worker")
    try:
        _train(task, place, work_dir)
    except PlatformError as error:
        return str(error)
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)
    return None


def _train(task: TrainingTask, place: "Place", work_dir: Path) -> None:
    from ray_jobs.detector.process import prepare_process

    prepare_process(place)
    train_rank(task, place, work_dir, CheckpointReporter(task.storage), _resume_folder(task.storage, work_dir))


def train_rank(
    task: TrainingTask,
    place: "Place",
    work_dir: Path,
    report: Callable[["EpochReport"], None],
    resume_from: Path | None,
    **how: bool,
) -> None:
    """One rank of a training run, from the checkpoint in ``resume_from`` (None: from the start) to the end.

    ``how`` is passed on to ``train_detector``.
    """
    from ray_jobs.detector.training import train_detector

    manifest = json.loads((resume_from / MANIFEST).read_text()) if resume_from else {}
    if manifest.get("last"):
        return  # the run was stopped after its last epoch
    weights = None
    if task.weights:
        weights = work_dir / "start.pt"
        weights.write_bytes(task.weights)
    train_detector(
        task.settings,
        task.index,
        place,
        work_dir,
        report,
        batch_size=manifest.get("batch_size") or _global_batch(task, place),
        weights=weights,
        resume_from=resume_from,
        cache_folder=private_cache_folder(),
        **how,
    )


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

    Calling it again with the same storage goes on after the last stored checkpoint. Raises ``TrainingError``.
    """
    from ray.train.torch import TorchTrainer

    path, filesystem = task.storage.ray_location()
    elastic = plan.min_workers != plan.max_workers
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"task": task},
        scaling_config=ScalingConfig(
            num_workers=(plan.min_workers, plan.max_workers) if elastic else plan.max_workers,
            use_gpu=plan.gpus > 0,
            resources_per_worker={"CPU": plan.cpus, **({"GPU": plan.gpus} if plan.gpus else {})},
        ),
        run_config=RunConfig(
            name=EXPERIMENT,
            storage_path=path,
            storage_filesystem=filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=task.settings.keep + 1),
            failure_config=FailureConfig(
                max_failures=task.settings.cluster.max_failures,
                # A busy cluster lets each try wait for a minute; Ray's default is to try for ever.
                controller_failure_limit=max(int(task.settings.cluster.wait_s // 60), 1),
            ),
            callbacks=[Journal(journal)],
        ),
    )
    result = _run(trainer)
    if result.return_value:
        raise TrainingError(result.return_value)
    if result.checkpoint is None:
        raise TrainingError("training ended without a checkpoint")
    name = Path(result.checkpoint.path).name
    with tempfile.TemporaryDirectory() as folder:
        manifest = fetch_checkpoint(task.storage, name, Path(folder), only=("manifest.json",))
    return Trained(name, manifest)


def _run(trainer: Any) -> Any:
    from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

    try:
        return trainer.fit()
    except WorkerGroupError as error:
        causes = [_root_cause(failure) for failure in error.worker_failures.values()]
        raise TrainingError("training failed: " + "; ".join(sorted(set(causes)))) from error
    except ControllerError as error:
        raise TrainingError(f"training failed: {_root_cause(error.controller_failure)}") from error


def _root_cause(error: BaseException) -> str:
    """The first error behind Ray's wrappers, in one line."""
    while True:
        inner = getattr(error, "cause", None) or error.__cause__
        if not isinstance(inner, BaseException):
            break
        error = inner
    if isinstance(error, PlatformError):
        return str(error)
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__
