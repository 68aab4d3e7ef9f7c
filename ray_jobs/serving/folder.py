"""Reads many X-rays: in threads of this process, or on a Ray cluster.

In: pictures and a detector. Out: readings, a few at a time, in the order of the pictures here, in any order from a
cluster. Which of the two is decided by ``choose``.
"""

import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ray_jobs.dataset.parallel import available_cores
from ray_jobs.serving.chunk import CHUNK, ChunkReader, Reading
from ray_jobs.serving.detector import Detector, DetectorFile
from ray_jobs.serving.pictures import Picture

if TYPE_CHECKING:
    import ray

FEWEST_FOR_A_CLUSTER = 256
"""Fewer pictures are read here even where there is a cluster: joining it and starting readers there takes many seconds,
in which this process has read some hundred pictures. An estimate; ``benchmarks/predict.py`` gives the pace here."""


def choose(pictures: int, cluster: str | None) -> bool:
    """Whether to read on a cluster: where one is named (or ``RAY_ADDRESS`` is set) and there is enough to read."""
    return bool(cluster or os.environ.get("RAY_ADDRESS")) and pictures >= FEWEST_FOR_A_CLUSTER


def load_here(file: DetectorFile, pictures: int) -> Detector:
    """The detector, for reading so many pictures in threads of this process: one core for each network call where there
    is enough to do for all, else all cores for one. PyTorch runs one call at a time, on all cores."""
    cores = available_threads()
    chunks = -(-pictures // CHUNK)
    return file.load(threads=max(1, cores // chunks) if file.onnx and chunks else cores)


def read_here(pictures: Sequence[Picture], detector: Detector, draw: bool) -> Iterator[list[Reading]]:
    """Read in threads: each takes a chunk from bytes to PNG, so that no core waits for another."""
    chunks = [pictures[start : start + CHUNK] for start in range(0, len(pictures), CHUNK)]
    workers = max(1, min(available_threads(), len(chunks)))
    read = ChunkReader(detector, draw)
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[list[Reading]]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(read, chunk))
            if len(waiting) > 2 * workers:  # what is read and not yet written stays bounded
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def available_threads() -> int:
    """Threads that may compute: ``OMP_NUM_THREADS``, as PyTorch and others read it, else one per core."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else available_cores()


def read_on_cluster(pictures: Sequence[Picture], file: DetectorFile, draw: bool) -> Iterator[list[Reading]]:
    """Read on the Ray cluster that this process has joined, with Ray Data: one reader per core that is free.

    Every node must see the pictures under the same path; one that does not reports them as missing.
    """
    import ray
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    cores = int(ray.cluster_resources().get("CPU", 1))
    readers = max(1, min(cores, len(pictures) // CHUNK))
    rows = [{"place": place} for place in range(len(pictures))]
    found = ray.data.from_items(
        rows, override_num_blocks=min(len(rows), max(4 * readers, len(rows) // 64))
    ).map_batches(
        _ClusterReader,
        fn_constructor_args=(ray.put(file), ray.put(list(pictures)), draw),
        batch_size=CHUNK,
        batch_format="numpy",
        concurrency=(1, readers),
        num_cpus=1,
    )
    for batch in found.iter_batches(batch_size=None, batch_format="numpy"):
        columns = zip(batch["source"], batch["line"], batch["drawing"], batch["problem"], strict=True)
        yield [
            Reading(str(source), json.loads(line) if line else None, bytes(drawing) or None, str(problem) or None)
            for source, line, drawing, problem in columns
        ]


class _ClusterReader:
    """What an actor of Ray Data does: open the detector once, read chunks."""

    def __init__(self, file: "ray.ObjectRef", pictures: "ray.ObjectRef", draw: bool) -> None:
        import ray

        detector_file: DetectorFile = ray.get(file)
        self._pictures: list[Picture] = ray.get(pictures)
        self._read = ChunkReader(detector_file.load(threads=1), draw)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch with the column ``place`` (into the list of pictures) to a batch of readings."""
        readings = self._read([self._pictures[place] for place in batch["place"]])
        return {
            "source": [reading.source for reading in readings],
            "line": [json.dumps(reading.line) if reading.line else "" for reading in readings],
            "drawing": [reading.drawing or b"" for reading in readings],
            "problem": [reading.problem or "" for reading in readings],
        }
