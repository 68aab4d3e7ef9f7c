"""Training on a Ray cluster: starts the workers of ``worker.py`` and goes on after what Ray Train does not survive.

In: settings, a checked data set, starting weights, a place for checkpoints. Out: one trained model, and a line in the
run's journal after every epoch. The journal is written by Ray Train's controller, which runs on the driver's node.
"""

import math
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig

from ray_jobs.errors import (
    DamagedCheckpoint,
    Diverged,
    StorageError,
    StoreOutage,
    TrainingError,
)
from ray_jobs.flows.checkpoints import EXPERIMENT, read_manifest
from ray_jobs.flows.controller_lines import Journal, StateLines, append_line, platform_error, root_cause
from ray_jobs.flows.ray_cluster import START_TIMEOUT_S, WorkerPlan, is_alone, rank_timeout_s
from ray_jobs.flows.recovery import repair_list
from ray_jobs.flows.worker import TrainingTask, train_worker
from ray_jobs.storage import Storage

ROLLBACK_FACTOR = 0.5  # what the learning rate is multiplied by after a roll-back: repeated, an epoch ends the same
PROBE_PAUSE_S = 5.0
RESIZE_INTERVAL_S = 15.0  # how often an elastic run looks for new nodes; Ray's 60 s leave one idle for a minute


@dataclass(frozen=True)
class Trained:
    """What training left behind: the last checkpoint's name in storage, and what its manifest says."""

    checkpoint: str
    manifest: dict[str, Any]


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
    from ray_jobs.flows.controller_parts import ProcessGroup
    from ray_jobs.flows.lean_trainer import LeanTrainer

    cluster = task.settings.cluster
    path, filesystem = task.storage.ray_location()
    elastic = plan.min_workers != plan.max_workers
    trainer = LeanTrainer(
        train_worker,
        alone=is_alone(),
        train_loop_config={"task": task},
        torch_config=ProcessGroup(rank_timeout_s(task.settings)),
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
