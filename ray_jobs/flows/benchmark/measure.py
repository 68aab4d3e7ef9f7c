"""One point of a benchmark: a short training run on a part of the data set, by the same worker loop as every other.

In: a prepared run, how many images and epochs, a setting. Out: what it took. All points share one Ray session.
"""

import shutil
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.errors import PlatformError
from ray_jobs.flows.benchmark.sweep import Point, Setting
from ray_jobs.flows.journal import Epoch, JournalReader
from ray_jobs.flows.preparation import Prepared
from ray_jobs.flows.ray_cluster import cluster_address, live_nodes, plan_workers
from ray_jobs.settings import Settings
from ray_jobs.storage import FolderStorage, Storage, open_storage

_LOOK_EVERY_S = 1.0  # reading what a process holds takes it milliseconds
_WORKER = "ray::RayTrainWorker"  # how Ray names the processes of its workers
Item = TypeVar("Item")


@dataclass(frozen=True)
class Portion:
    """How much of the data set a point trains on, and for how many epochs; the first fills the caches and does not
    count."""

    train: int
    val: int
    epochs: int

    def of(self, index: DatasetIndex) -> DatasetIndex:
        """These images, taken evenly from the whole, with a pixel cache of their own."""
        counts = {"train": self.train, "val": self.val}
        splits = {split: _evenly(index.splits[split], count) for split, count in counts.items()}
        return index.part(splits, f"{self.train} and {self.val}, evenly")


def _evenly(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    return tuple(items[number * len(items) // count] for number in range(count))


def measure_point(prepared: Prepared, setting: Setting, portion: Portion, number: int) -> Point:
    """Train with ``setting``; whatever fails, as for lack of memory, is the point's ``error``."""
    from ray_jobs.flows.distributed import fit
    from ray_jobs.flows.worker import TrainingTask

    settings = point_settings(prepared.settings, setting, portion.epochs)
    folder = prepared.run.path / "points" / f"{number:02d}"
    folder.mkdir(parents=True)
    storage = _storage(prepared.settings, folder)
    journal = JournalReader(folder / "journal.jsonl")
    began = time.time()
    try:
        plan = plan_workers(settings, live_nodes())
        task = TrainingTask(settings, portion.of(prepared.report.index), storage, b"", plan.cpus, prepared.run.name)
        with _memory_of_workers(cluster_address(settings.cluster) is None) as memory:
            trained = fit(task, plan, journal.path)
        fits = trained.manifest["batch_size"]
        if fits != setting.batch_size:
            raise PlatformError(f"out of memory with batch_size {setting.batch_size}; {fits} would fit")
        epochs = list(journal.read_new())
        return _point(setting, epochs, portion, epochs[0].started - began, max(memory, default=0.0))
    except PlatformError as error:
        return Point(setting, error=str(error).splitlines()[0])
    finally:
        _remove(storage)
        shutil.rmtree(folder, ignore_errors=True)


def point_settings(settings: Settings, setting: Setting, epochs: int) -> Settings:
    """The user's settings for a short run: nothing is kept, and nothing is tried twice.

    The mosaic stays to the end, as in all but the last epochs of a real run.
    """
    cluster = {"num_workers": setting.num_workers, "max_failures": 0, "max_rollbacks": 0}
    short = {"epochs": epochs, "close_mosaic": 0, "patience": epochs, "keep": 0, "samples": 0}
    varied = setting.as_settings() | {"cluster": settings.cluster.model_copy(update=cluster)}
    return settings.model_copy(update=short | varied)


def _point(setting: Setting, epochs: list[Epoch], portion: Portion, startup: float, memory: float) -> Point:
    counted = [epoch.metrics for epoch in epochs[1:] or epochs]
    steps = -(-portion.train // setting.batch_size)

    def middle(name: str) -> float:
        return statistics.median(metrics[name] for metrics in counted)

    return Point(
        setting,
        images_per_second=middle("images_per_second"),
        epochs=tuple(metrics["images_per_second"] for metrics in counted),
        step_seconds=middle("train_seconds") / steps,
        data_wait=statistics.median(m["data_wait_seconds"] / m["train_seconds"] for m in counted),
        val_seconds=middle("val_seconds"),
        startup_seconds=startup,
        memory_bytes=memory or None,
        gpu_memory_bytes=max((m["gpu_memory_bytes"] for m in counted if "gpu_memory_bytes" in m), default=None),
    )


def _storage(settings: Settings, folder: Path) -> Storage:
    if settings.storage.url is None:
        return FolderStorage(folder)
    return open_storage(f"{settings.storage.url.rstrip('/')}/{folder.parts[-3]}/{folder.name}", folder)


def _remove(storage: Storage) -> None:
    """Remove a point's checkpoints; a bucket that is away keeps them."""
    path, filesystem = storage.ray_location()
    if filesystem is None:
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError, PlatformError):
        filesystem.delete_dir(path)


@contextmanager
def _memory_of_workers(own: bool) -> Iterator[list[float]]:
    """Bytes that the training workers of this node and their loaders hold together, looked at again and again.

    Pages that they share count once for each that has touched them in equal parts (PSS), so the pixel cache once.
    ``own``: Ray was started by this process, so its workers descend from it; those of other runs here do not count.
    """
    seen: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_EVERY_S):
            processes = psutil.Process().children(recursive=True) if own else psutil.process_iter()
            seen.append(sum(map(_held, processes)))

    thread = threading.Thread(target=watch, name="memory", daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _held(process: psutil.Process) -> float:
    try:
        command = process.cmdline()
        if not command or not command[0].startswith(_WORKER):
            return 0.0
        return float(sum(one.memory_full_info().pss for one in (process, *process.children(recursive=True))))
    except (psutil.Error, AttributeError):  # it has just ended, is somebody else's, or this is not Linux
        return 0.0
