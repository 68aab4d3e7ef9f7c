"""What a run, its ranks and its checkpoints tell Prometheus, and when. The metrics are declared in ``telemetry``.

In: the events of a run. Out: values in a meter. No method blocks or raises.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ray_jobs import telemetry as t
from ray_jobs.dataset.report import DatasetReport
from ray_jobs.detector.epoch_report import EpochReport, Progress
from ray_jobs.flows.journal import Epoch
from ray_jobs.flows.progress import ProgressSender, Word
from ray_jobs.tracking.null_tracker import TrackingFigures

RunStage = Literal["start", "train", "assess", "log", "search", "finished", "failed", "stopped"]
Cause = Literal["node_lost", "out_of_memory", "hung", "worker_died", "storage", "error"]

_OF_AN_EPOCH = {
    t.VALIDATION_SECONDS: "val_seconds",
    t.VAL_MAP50: "val/map50",
    t.VAL_MAP50_95: "val/map50_95",
    t.VAL_PRECISION: "val/precision",
    t.VAL_RECALL: "val/recall",
    t.LEARNING_RATE: "lr/pg0",
    t.IMAGES_PER_SECOND: "images_per_second",
}

CAUSES: dict[Cause, tuple[str, ...]] = {
    "out_of_memory": ("ran out of memory", "cuda out of memory", "outofmemory", "out_of_memory", "low on memory"),
    "node_lost": (
        "its node was lost",
        "node died",
        "node is dead",
        "nodediederror",
        "node failure",
        "node was terminated",
        "preempt",
    ),
    "hung": ("did not answer for longer", "stands still"),
    "storage": ("storage", "s3", "bucket", "checkpoint"),
    "worker_died": ("died", "killed", "unavailable", "sigkill", "exit", "lost"),
    "error": (),
}
"""Why workers were started again, and the words by which a cause is known, the surest first.

They are those of ``controller_lines.describe``, and Ray's and PyTorch's own."""


def cause_of(words: str) -> Cause:
    """The cause that fits the words for a failure best."""
    words = words.lower()
    return next((cause for cause, signs in CAUSES.items() if any(sign in words for sign in signs)), "error")


class RankMeasures:
    """One rank's own: steps, waiting, memory; on rank 0 also the checkpoints, and progress for the driver's screen."""

    def __init__(self, run: str, rank: int, address: str) -> None:
        """``address``: the URL of the run's storage, under which its driver looks for progress."""
        self._meter = t.open_meter(run=run, rank=str(rank))
        self._sender = ProgressSender(address) if rank == 0 else None
        self._stored = self._finished = self._failures = 0
        self._cached = self._decoded = 0.0
        self._storing = False
        self._meter.set(t.RANK_UP, 1)

    def copied(self, count: int) -> None:
        """So many bytes of the data set were brought to this node by this process."""
        self._meter.set(t.COPIED_BYTES, count, node=_node())

    def progress(self, progress: Progress) -> None:
        """Called about once a second within an epoch."""
        step = (progress.epoch - 1) * progress.steps + progress.step
        self._meter.set(t.STEP, step)
        self._meter.set(t.LAST_STEP, time.time())
        self._loss(progress.loss)
        if self._sender:
            self._sender.send(Word(progress, self._stored, self._storing))

    def epoch(self, report: EpochReport, blocked_s: float = 0.0) -> None:
        """After every epoch. ``blocked_s``: what writing its checkpoint took."""
        metrics = report.metrics
        self._finished = report.epoch
        self._loss(sum(value for name, value in metrics.items() if name.startswith("train/")))
        self._meter.set(t.LAST_STEP, time.time())
        self._meter.set(t.DATA_WAIT_SECONDS, metrics["data_wait_seconds"])
        self._meter.set(t.DATA_WAIT_RATIO, metrics["data_wait_seconds"] / max(metrics["train_seconds"], 1e-9))
        self._cached += metrics.get("images_cached", 0.0)
        self._decoded += metrics.get("images_decoded", 0.0)
        self._meter.set(t.CACHE_HITS, self._cached)
        self._meter.set(t.CACHE_MISSES, self._decoded)
        if "gpu_memory_bytes" in metrics:
            self._meter.set(t.GPU_MEMORY, metrics["gpu_memory_bytes"])
        if report.capture_checkpoint:
            self._meter.set(t.CHECKPOINT_BLOCKED, blocked_s)
            self._meter.set(t.CHECKPOINT_BACKLOG, self._finished - self._stored)

    @contextmanager
    def upload(self, folder: Path, epoch: int) -> Iterator[None]:
        """Around writing and storing an epoch's checkpoint in ``folder``; what it raises is counted and goes on."""
        started = time.perf_counter()
        self._storing = True
        try:
            yield
        except BaseException:
            self._failures += 1
            raise
        else:
            self._stored, self._failures = epoch, 0
            self._meter.set(t.CHECKPOINT_SECONDS, time.perf_counter() - started)
            self._meter.set(t.CHECKPOINT_BYTES, sum(file.stat().st_size for file in folder.iterdir()))
            self._meter.set(t.CHECKPOINT_LAST_GOOD, time.time())
            self._meter.set(t.CHECKPOINT_BACKLOG, max(self._finished - epoch, 0))
        finally:
            self._storing = False
            self._meter.set(t.CHECKPOINT_FAILURES, self._failures)

    def _loss(self, loss: float) -> None:
        self._meter.set(t.LOSS_FINITE, math.isfinite(loss))
        if math.isfinite(loss):
            self._meter.set(t.STEP_LOSS, loss)

    def close(self) -> None:
        """Hand over what is left."""
        self._meter.close()


class RunMeasures:
    """The driver's: stages, epochs, restarts, tracking. Lives as long as the run, through every restart of workers."""

    def __init__(self, run: str, began: float) -> None:
        """``began``: Unix time of the command's start."""
        self._meter = t.open_meter(run=run)
        self._stages: list[RunStage] = []
        self._meter.set(t.RUN_START, began)
        for cause in CAUSES:
            self._meter.add(t.RESTARTS, 0, cause=cause)

    def stage(self, stage: RunStage) -> None:
        """The run enters a stage."""
        for left in self._stages:
            self._meter.set(t.RUN_STAGE, 0, stage=left)
        self._stages.append(stage)
        self._meter.set(t.RUN_STAGE, 1, stage=stage)
        self._meter.set(t.STAGE_START, time.time(), stage=stage)

    def plan(self, epochs: int, ranks: int) -> None:
        """What the run is meant to be: its number of epochs, and of ranks (the most, where that is elastic)."""
        self._meter.set(t.EPOCHS_PLANNED, epochs)
        self._meter.set(t.WORLD_SIZE_WANTED, ranks)

    def data(self, report: DatasetReport, seconds: float) -> None:
        """What the data check found (errors are those that the user allowed), and what it took."""
        findings = {
            "error": sum(group.count for group in report.errors),
            "warning": sum(group.count for group in report.warnings),
            "notice": len(report.notices),
        }
        for severity, count in findings.items():
            self._meter.set(t.CHECK_FINDINGS, count, severity=severity)
        self._meter.set(t.CHECK_IMAGES, sum(split.images for split in report.counts.values()))
        self._meter.set(t.CHECK_SECONDS, seconds)
        self._meter.set(t.COPIED_BYTES, report.index.origin.copied if report.index.origin else 0, node=_node())

    def epoch(self, epoch: Epoch, best: Epoch | None) -> None:
        """An epoch as the journal has it, and the best so far."""
        metrics = epoch.metrics
        for metric, name in _OF_AN_EPOCH.items():
            if name in metrics:
                self._meter.set(metric, metrics[name])
        for name, value in metrics.items():
            split, _, part = name.partition("/")
            if part.endswith("_loss"):
                metric = t.TRAIN_LOSS if split == "train" else t.VAL_LOSS
                self._meter.set(metric, value, loss=part.removesuffix("_loss"))
        self._meter.set(t.EPOCH, epoch.number)
        self._meter.set(t.LOSS_FINITE, 1, rank="driver")
        self._meter.set(t.EPOCH_SECONDS, epoch.ended - epoch.started)
        self._meter.set(t.WORLD_SIZE, epoch.world_size)
        if best:
            self._meter.set(t.BEST_EPOCH, best.number)
            self._meter.set(t.BEST_MAP50_95, best.metrics.get("val/map50_95", 0.0))

    def restarted(self, words: str) -> None:
        """The workers were lost or failed, with the journal's words for it, and are started again."""
        self._meter.add(t.RESTARTS, cause=cause_of(words))

    def tracking(self, figures: Callable[[], TrackingFigures]) -> None:
        """Where to ask how tracking is doing, every few seconds."""
        watch_tracking(self._meter, figures)

    def tested(self, map50: float | None) -> None:
        """What the best weights are worth on the test split."""
        if map50 is not None:
            self._meter.set(t.TEST_MAP50, map50)

    def registered(self) -> None:
        """A model version was registered."""
        self._meter.add(t.REGISTERED)

    def diverged(self) -> None:
        """A loss or a weight was no number; the next epoch that comes through takes this back."""
        self._meter.set(t.LOSS_FINITE, 0, rank="driver")

    def close(self) -> None:
        """Hand over what is left."""
        self._meter.close()


def watch_tracking(meter: t.NullMeter, figures: Callable[[], TrackingFigures]) -> None:
    """Tell every few seconds how the delivery of a run's record is doing, and where to find the run elsewhere."""

    def look() -> None:
        now = figures()
        meter.set(t.SPOOLED, now.pending)
        meter.set(t.TRACKING_SENT, now.sent)
        meter.set(t.TRACKING_REPLAYED, now.late)
        meter.forget(t.RUN_INFO)
        meter.set(t.RUN_INFO, 1, ray_job=_ray_job(), mlflow_experiment=now.experiment_id, mlflow_run=now.run_id)

    meter.watch(look)


def count_decision(run: str, decision: str) -> None:
    """Whether a run's model becomes the champion: ``promoted``, ``refused``, ``waiting`` or ``none``."""
    meter = t.open_meter(run=run)
    meter.add(t.PROMOTIONS, decision=decision)
    meter.close()


def _node() -> str:
    """This node's address, as Ray knows it."""
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())


def _ray_job() -> str:
    """The job's number in the Ray dashboard."""
    import ray

    return str(ray.get_runtime_context().get_job_id())
