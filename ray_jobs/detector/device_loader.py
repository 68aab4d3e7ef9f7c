"""Batches made on the device that trains, one ahead of the step that uses them.

The same interface to Ultralytics' loop as ``SeededLoader``: ``len()``, ``dataset``, ``sampler``, ``batch_size`` and one
epoch per iteration.
"""

import threading
from collections.abc import Iterator
from queue import Queue
from typing import Any

import numpy as np
import torch

from ray_jobs.detector.batch_augment import Ranges, draw_layout, place_boxes, render
from ray_jobs.detector.pixel_store import PixelStore
from ray_jobs.detector.sampling import EpochBatchSampler, unpack
from ray_jobs.detector.xray_dataset import XrayDataset

_AHEAD = 2  # batches that wait for the step


class DeviceLoader:
    """Batches of uint8 pixels (n, 1, size, size) and boxes; ``ranges`` may be changed between epochs."""

    num_workers = 0
    drop_last = False

    def __init__(self, dataset: XrayDataset, store: PixelStore, sampler: EpochBatchSampler, ranges: Ranges) -> None:
        self.dataset, self.store, self.sampler, self.ranges = dataset, store, sampler, ranges
        self.batch_size = sampler.global_batch // sampler.world_size
        self._stream = torch.cuda.Stream(store.device) if store.device.type == "cuda" else None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(store.device))
        self._reads = [(len(store), store.decoded)]  # told once, with the first batch

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """One epoch, the sampler's; made by a thread of its own on a stream of its own."""
        queue: Queue[Any] = Queue(_AHEAD)
        stopped = threading.Event()
        thread = threading.Thread(target=self._make_all, args=(queue, stopped), daemon=True)
        thread.start()
        try:
            for _ in range(len(self)):
                made = queue.get()
                if isinstance(made, BaseException):
                    raise made
                batch, ready = made
                batch["reads"], self._reads = self._reads, []
                if ready is not None:
                    torch.cuda.current_stream(self.store.device).wait_event(ready)
                    for value in batch.values():
                        if isinstance(value, torch.Tensor) and value.is_cuda:
                            value.record_stream(torch.cuda.current_stream(self.store.device))
                yield batch
        finally:
            stopped.set()
            while thread.is_alive():
                if not queue.empty():
                    queue.get()
                thread.join(0.01)

    def reset(self) -> None:
        """Nothing: the next epoch is made from what is set then."""

    def close(self) -> None:
        """Nothing: no process outlives an epoch."""

    def _make_all(self, queue: "Queue[Any]", stopped: threading.Event) -> None:
        try:
            for numbers in self.sampler.batches(self.sampler.epoch):
                if stopped.is_set():
                    return
                if self._stream is None:
                    queue.put((self.make(numbers), None))
                    continue
                with torch.cuda.stream(self._stream):
                    batch = self.make(numbers)
                    queue.put((batch, self._stream.record_event()))
        except BaseException as error:  # raised where the batch is used
            queue.put(error)

    def make(self, numbers: list[int]) -> dict[str, Any]:
        """The batch of these packed sample numbers, which are of one epoch."""
        epoch, _ = unpack(numbers[0])
        indices = np.array([unpack(number)[1] for number in numbers], np.int64)
        layout = draw_layout(self.store, self.ranges, self.dataset.seed or 0, epoch, indices)
        sample, boxes = place_boxes(self.store, layout)
        on_device = torch.from_numpy(np.column_stack([sample, boxes]).astype(np.float32)).to(self.store.device)
        return {
            "img": render(self.store, layout),
            "batch_idx": on_device[:, 0],
            "cls": on_device[:, 1:2],
            "bboxes": on_device[:, 2:],
            "most_boxes": int(np.bincount(sample, minlength=1).max()),
        }
