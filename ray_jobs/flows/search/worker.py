"""The process that runs trials, one after the other; Python, PyTorch and the pixel cache are loaded once for all.

In: ``TrialTask`` by ``TrialTask``, and an answer to every message. Out: a message after every epoch, which the trial
waits to be answered, so that a trial that is stopped has not run an epoch too many. Training itself is what every
training run does (``distributed.train_rank``).
"""

import gc
import logging
import queue
import shutil
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.dataset.local_copy import bring_here
from ray_jobs.errors import DamagedCheckpoint, PlatformError, StoreOutage, TrainingError
from ray_jobs.flows.checkpoints import EXPERIMENT, fetch_checkpoint, write_manifest
from ray_jobs.settings import Settings
from ray_jobs.storage import FolderStorage, Storage, scratch_folder

if TYPE_CHECKING:
    from ray_jobs.detector.epoch_report import EpochReport
    from ray_jobs.detector.process import Place

logger = logging.getLogger(__name__)

Answer = Literal["continue", "save", "stop"]
SHARED_MARKER = ".search"


@dataclass(frozen=True)
class TrialTask:
    """A trial to run. ``storage`` is its own place for checkpoints.

    ``start`` is a checkpoint to go on from, as (place, name); ``carried`` where it comes from another trial.
    ``images`` limits every split, for a trial of one batch.
    """

    number: int
    settings: Settings
    storage: Storage
    start: tuple[Storage, str] | None = None
    carried: bool = False
    images: int | None = None


@dataclass(frozen=True)
class Message:
    """What a trial says: ``epoch`` and ``saved`` wait for an answer, ``ended`` is the last.

    ``error`` says why it failed; another try would end in the same way, unless the trial was ``lost``.
    """

    kind: Literal["epoch", "saved", "ended"]
    epoch: int = 0
    metrics: dict[str, float] | None = None
    checkpoint: str | None = None
    error: str | None = None
    lost: bool = False


class _Stopped(BaseException):
    """Ends training from inside its report; nothing on the way catches it."""


Objective = Callable[[TrialTask, "Place", "Reporter"], None]


class TrialWorker:
    """An actor: rank ``rank`` of the ``world_size`` processes that run a slot's trials."""

    def __init__(self, objective: Objective, cpus: int, gpus: float) -> None:
        import ray

        self._objective, self._cpus = objective, cpus
        self._device = "cuda:0" if gpus and ray.get_gpu_ids() else "cpu"
        self._rank, self._local_rank, self._world_size = 0, 0, 1
        self._thread = ThreadPoolExecutor(1)  # one for all trials: PyTorch's own threads belong to it
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()

    def where(self) -> tuple[str, str]:
        """The node's id, and an address with a free port that other ranks may meet at."""
        import ray

        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        return ray.get_runtime_context().get_node_id(), f"{ray.util.get_node_ip_address()}:{port}"

    def join(self, address: str, rank: int, local_rank: int, world_size: int, timeout_s: float) -> None:
        """Become one of several ranks that train one model together, and wait ``timeout_s`` for each other at most."""
        from torch import distributed as dist

        self._rank, self._local_rank, self._world_size = rank, local_rank, world_size
        backend = "gloo" if self._device == "cpu" else "nccl"
        meeting: dict[str, Any] = {"init_method": f"tcp://{address}", "timeout": timedelta(seconds=timeout_s)}
        dist.init_process_group(backend, rank=rank, world_size=world_size, **meeting)

    def ping(self) -> None:
        """Answered beside a trial by every process that is alive and not stopped."""

    def begin(self, task: TrialTask) -> Message:
        """Start a trial; returns its first message."""
        self._thread.submit(self._run, task)
        return self._messages.get()

    def answer(self, word: Answer) -> Message:
        """Answer the last message; returns the next one."""
        self._answers.put(word)
        return self._messages.get()

    def follow(self, task: TrialTask) -> None:
        """Take part in a trial as a rank other than 0, to its end."""
        self._run(task)
        message = self._messages.get()
        if message.error:
            raise StoreOutage(message.error) if message.lost else TrainingError(message.error)

    def _run(self, task: TrialTask) -> None:
        from ray_jobs.detector.process import Place

        place = Place(self._rank, self._local_rank, self._world_size, self._device, self._cpus)
        reporter = Reporter(task, place, self._messages, self._answers)
        error, lost = None, False
        try:
            self._objective(task, place, reporter)
        except _Stopped:
            pass
        except BaseException as problem:  # whatever a trial ends with is that trial's result
            error, lost = _in_one_line(problem), isinstance(problem, StoreOutage)
        self._release_memory()
        self._messages.put(Message("ended", error=error, lost=lost))

    def _release_memory(self) -> None:
        """Give back what the trial held: the next one, or another process on this GPU, needs it."""
        gc.collect()
        if self._device != "cpu":
            import torch

            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


class Reporter:
    """Tells the driver about every epoch and does as it is told; called on all ranks alike."""

    def __init__(
        self,
        task: TrialTask,
        place: "Place",
        messages: "queue.SimpleQueue[Message]",
        answers: "queue.SimpleQueue[Answer]",
    ) -> None:
        self.task, self.place = task, place
        self._messages, self._answers = messages, answers
        self._newest = task.start[1] if task.start else ""

    def __call__(self, report: "EpochReport") -> None:
        """Report an epoch and wait for the answer; a trial that is stopped does not return from here."""
        wanted = self.task.settings.batch_size
        if self.task.images is None and report.batch_size != wanted:
            raise TrainingError(f"out of memory with batch_size {wanted}; {report.batch_size} would fit")
        metrics = dict(report.metrics)
        if self.place.device != "cpu":
            import torch

            metrics["gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        answer = self._ask(Message("epoch", report.epoch, metrics))
        while answer == "save":
            name = self._save(report) if self.place.rank == 0 else None
            answer = self._ask(Message("saved", report.epoch, checkpoint=name))
        if answer == "stop":
            raise _Stopped

    def _ask(self, message: Message) -> Answer:
        """Rank 0 asks the driver, the others hear what it was told."""
        words: list[Any] = [None]
        if self.place.rank == 0:
            self._messages.put(message)
            words[0] = self._answers.get()
        if self.place.world_size > 1:
            from torch import distributed as dist

            dist.broadcast_object_list(words, 0)
        answer: Answer = words[0]
        return answer

    def _save(self, report: "EpochReport") -> str | None:
        """Store a checkpoint beside the one before, which stays until the next: one is always whole.

        None where the store is away: the one before is still there.
        """
        assert report.capture_checkpoint is not None
        folder = scratch_folder("checkpoint")
        name = "b" if self._newest == "a" else "a"
        try:
            report.capture_checkpoint()(folder)
            write_manifest(folder, report.epoch, report.last, report.batch_size, report.nominal_batch)
            self.task.storage.put_folder(folder, f"{EXPERIMENT}/{name}")
        except StoreOutage as error:
            logger.warning("trial %d: no checkpoint after epoch %d: %s", self.task.number, report.epoch, error)
            return None
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._newest = name
        return name


@dataclass(frozen=True)
class TrainingObjective:
    """Trains the detector, as every training run does. ``weights`` are starting weights by model name."""

    index: DatasetIndex
    weights: dict[str, bytes]

    def __call__(self, task: TrialTask, place: "Place", report: Reporter) -> None:
        """One trial on one rank. No best.pt, plots or final evaluation: only its epochs count."""
        from ray_jobs.detector.process import prepare_process
        from ray_jobs.flows.worker import TrainingTask, train_rank

        _check_shared(task.storage)
        if self.index.origin:
            bring_here(self.index.origin)
        prepare_process(place)
        work_dir = scratch_folder("trial")
        try:
            resume_from = None
            if task.start:
                resume_from = self._fetch(task, work_dir / "resume")
            weights = self.weights.get(task.settings.model_name, b"")
            index = _first_images(self.index, task.images) if task.images else self.index
            settings = task.settings
            if settings.precision == "auto" and place.device == "cpu":
                # A probe on a busy machine would train some trials in another format than others.
                settings = settings.model_copy(update={"precision": "fp32"})
            training = TrainingTask(settings, index, task.storage, weights, place.threads)
            train_rank(training, place, work_dir, report, resume_from, keep_weights=False, carried=task.carried)
        finally:
            shutil.rmtree(work_dir, ignore_errors=True)

    def _fetch(self, task: TrialTask, folder: Path) -> Path | None:
        """The checkpoint to go on from. A damaged one of its own costs the trial its epochs, not its life."""
        assert task.start is not None
        try:
            fetch_checkpoint(*task.start, folder)
        except DamagedCheckpoint as error:
            if task.carried:
                raise
            logger.warning("trial %d begins again: %s", task.number, error)
            return None
        return folder


def _first_images(index: DatasetIndex, count: int) -> DatasetIndex:
    """A data set of a few images; its pixels get a cache of their own."""
    splits = {split: samples[:count] for split, samples in index.splits.items()}
    return index.part(splits, f"first {count}")


def mark_shared(storage: Storage) -> None:
    """Leave a mark where a search keeps its checkpoints, by which every worker can tell that it sees that folder."""
    if isinstance(storage, FolderStorage):
        storage.root.mkdir(parents=True, exist_ok=True)
        (storage.root / SHARED_MARKER).touch()


def _check_shared(storage: Storage) -> None:
    if not isinstance(storage, FolderStorage):
        return
    if not any((folder / SHARED_MARKER).exists() for folder in (storage.root, *storage.root.parents)):
        raise TrainingError(
            f"{storage.root}: is not shared by all nodes of the cluster; set storage.url to a shared folder or to s3://..."
        )


def _in_one_line(error: BaseException) -> str:
    """What went wrong, for the table of trials."""
    if isinstance(error, PlatformError):
        return str(error)
    text = " ".join(str(error).split())
    if "out of memory" in text.lower() or isinstance(error, MemoryError):
        return f"out of memory: {text[:200]}"
    return f"{type(error).__name__}: {text[:300]}"
