"""All gray pixels and boxes of a split, on the device that trains: batches are made there without a trip.

Pixels are uint8 squares of the training size, filled with Ultralytics' gray where a picture is not square.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ray_jobs.detector.xray_dataset import XrayDataset

SHARE = 0.25  # of the device's memory that pixels may take
_CHUNK = 256 << 20  # bytes on their way to the device at once


class PixelStore:
    """``len(dataset)`` pictures. ``size``: the training size in pixels; ``side``: that of the squares kept here, one
    pixel larger all around at the far edges, so that interpolation beyond a picture's edge meets gray."""

    def __init__(self, dataset: "XrayDataset", device: torch.device, threads: int) -> None:
        self.size, self.side, self.device = dataset.imgsz, dataset.imgsz + 1, device
        self.shapes = np.array([dataset.shape_of(number) for number in range(len(dataset))], np.int64).reshape(-1, 2)
        boxes = [_in_pixels(label, shape) for label, shape in zip(dataset.labels, self.shapes, strict=True)]
        self._counts = np.array([len(rows) for rows in boxes], np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._counts)])
        self._boxes = np.concatenate([np.zeros((0, 5), np.float32), *boxes])
        self._pixels = torch.full((len(dataset), self.side, self.side), 114, dtype=torch.uint8, device=device)
        before = dataset.decodes
        self._fill(dataset, threads)
        self.decoded = dataset.decodes - before

    @staticmethod
    def fits(count: int, size: int, device: torch.device) -> bool:
        """Whether so many pictures of ``size`` leave enough of the device's memory to train in.

        Asks for all of its memory, not for what is free now: a run that goes on must find the same answer.
        """
        return count * (size + 1) ** 2 < SHARE * torch.cuda.get_device_properties(device).total_memory

    def __len__(self) -> int:
        return len(self.shapes)

    def pixels(self, indices: torch.Tensor) -> torch.Tensor:
        """Pictures as float32 (n, 1, side, side) in 0..255."""
        return self._pixels[indices][:, None].float()

    def boxes_of(self, pictures: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The boxes of pictures (n, 4), -1 being none: the place of each box's picture, counted row by row, and rows
        of class and x1, y1, x2, y2 in pixels of the picture."""
        flat = pictures.reshape(-1)
        counts = np.where(flat >= 0, self._counts[flat], 0)
        places = np.repeat(np.arange(len(flat)), counts)
        firsts = np.repeat(np.cumsum(counts) - counts, counts)
        numbers = self._starts[flat[places]] + np.arange(len(places)) - firsts
        return places, self._boxes[numbers]

    @property
    def most_boxes(self) -> int:
        """The largest number of boxes that any picture has."""
        return int(self._counts.max(initial=0))

    def _fill(self, dataset: "XrayDataset", threads: int) -> None:
        """Pictures decoded by several threads: OpenCV lets others run meanwhile."""
        pool = ThreadPoolExecutor(max(threads, 1))
        step = max(_CHUNK // self.side**2, 1)
        try:
            for start in range(0, len(dataset), step):
                numbers = range(start, min(start + step, len(dataset)))
                chunk = np.full((len(numbers), self.side, self.side), 114, np.uint8)
                for slot, gray in zip(chunk, pool.map(dataset.gray, numbers), strict=True):
                    slot[: gray.shape[0], : gray.shape[1]] = gray
                self._pixels[start : start + len(numbers)] = torch.from_numpy(chunk).to(self.device)
        finally:
            pool.shutdown()


def _in_pixels(label: dict[str, NDArray[np.float32]], shape: NDArray[np.int64]) -> NDArray[np.float32]:
    height, width = shape
    middle, half = label["bboxes"][:, :2], label["bboxes"][:, 2:] / 2
    corners = np.hstack([middle - half, middle + half]) * np.array([width, height, width, height], np.float32)
    return np.hstack([label["cls"], corners]).astype(np.float32)
