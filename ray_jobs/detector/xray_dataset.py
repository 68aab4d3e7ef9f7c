"""X-rays as Ultralytics' trainer and validator want them, from the checked index instead of a scan of the folders."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ultralytics.data.augment import Compose, Mosaic, RandomHSV
from ultralytics.data.dataset import YOLODataset

from ray_jobs.dataset.pixel_cache import PixelCache
from ray_jobs.dataset.samples import Sample, sizes_of
from ray_jobs.detector.sampling import seeded, unpack
from ray_jobs.pixels import read_image


class Brightness(RandomHSV):
    """``RandomHSV`` for pixels of one channel: gray has no hue and no saturation. Draws the same numbers."""

    def apply_image(self, labels: dict[str, Any], params: dict[str, Any] | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Multiply the brightness."""
        if self.hgain or self.sgain or self.vgain:
            gain = 1 + np.random.uniform(-1, 1, 3)[2] * self.vgain
            labels["img"] = cv2.LUT(labels["img"], np.clip(np.arange(256) * gain, 0, 255).astype(np.uint8))
            if labels["img"].ndim == 2:
                labels["img"] = labels["img"][:, :, None]
        return labels


class YoloLabels(Sequence[dict[str, Any]]):
    """The labels of samples as Ultralytics wants them, each made when it is asked for."""

    def __init__(self, samples: Sequence[Sample], single_class: bool) -> None:
        self.samples, self.single_class = samples, single_class

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, at: Any) -> Any:
        sample = self.samples[at]
        classes = sample.boxes[:, :1].astype(np.float32)
        return {
            "im_file": str(sample.image),
            "shape": (sample.height, sample.width),
            "cls": np.zeros_like(classes) if self.single_class else classes,
            "bboxes": sample.boxes[:, 1:].astype(np.float32),
            "segments": [],
            "keypoints": None,
            "normalized": True,
            "bbox_format": "xywh",
        }


class XrayDataset(YOLODataset):
    """A split of a checked data set. With ``seed`` set, an item is a function of (seed, epoch, index).

    ``cache_file`` names a pixel cache that all processes of this node share; None decodes every time. An item of a
    seeded data set says under ``reads`` how many images were read for it (a mosaic is made of four), and how many of
    them had to be decoded: loader processes have no other way to tell.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *args: Any,
        seed: int | None = None,
        cache_file: Path | None = None,
        **kwargs: Any,
    ) -> None:
        self.samples = samples
        self.sizes = sizes_of(samples)
        self.seed = seed
        self.pixels: PixelCache | None = None
        self._reads = self.decodes = 0  # in this process
        super().__init__(*args, **kwargs)
        self.ims, self.im_hw0, self.im_hw = (), (), ()  # Ultralytics' own cache
        if cache_file is not None:
            self.pixels = PixelCache(cache_file, len(samples), self.imgsz)

    def get_img_files(self, img_path: Any) -> list[str]:  # noqa: ARG002 - Ultralytics' signature
        """Nothing: Ultralytics keeps two paths of each image, and only its own way to load one needs them."""
        return []

    def get_labels(self) -> "YoloLabels":
        """The labels of the index in Ultralytics' form."""
        return YoloLabels(self.samples, self.single_cls)

    def update_labels(self, include_class: list[int] | None) -> None:
        """Nothing: labels are made with the one class where ``single_cls`` asks for it."""
        if include_class is not None:
            raise ValueError("the classes to learn are chosen in data.yaml")

    def build_transforms(self, hyp: Any) -> Compose:
        """Ultralytics' transforms, with brightness that knows one channel, and with mosaic drawing from all images:
        its buffer depends on what was read before."""
        transforms = super().build_transforms(hyp)
        for transform in _walk(transforms):
            if isinstance(transform, Mosaic):
                transform.buffer_enabled = False
            if isinstance(transform, RandomHSV):
                transform.__class__ = Brightness
        return transforms

    def load_image(
        self, i: int, rect_mode: bool = True, resize_short: bool = False
    ) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
        """The image as gray pixels, its long side resized to ``imgsz``: one channel for training, where the trainer
        gives it to all three of the network, and three for Ultralytics' validation.

        Returns the pixels and the (height, width) before and after resizing.
        """
        if not rect_mode or resize_short:
            raise ValueError("an X-ray is never stretched or cropped")
        gray = self.gray(i)
        pixels = gray[:, :, None] if self.augment else cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
        height, width = self.sizes[i].tolist()
        return pixels, (height, width), gray.shape

    def gray(self, i: int) -> np.ndarray:
        """The image as gray pixels of ``shape_of(i)``."""
        shape = self.shape_of(i)

        def decode() -> np.ndarray:
            self.decodes += 1
            return _read(self.samples[i], shape)

        self._reads += 1
        return self.pixels.get(i, shape, decode) if self.pixels else decode()

    def shape_of(self, i: int) -> tuple[int, int]:
        """Height and width of an image whose long side is ``imgsz``."""
        height, width = self.sizes[i].tolist()
        ratio = self.imgsz / max(height, width)
        return min(math.ceil(height * ratio), self.imgsz), min(math.ceil(width * ratio), self.imgsz)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.seed is None:
            return super().__getitem__(index)
        epoch, sample = unpack(index)
        reads, decodes = self._reads, self.decodes
        with seeded(self.seed, epoch, sample):
            item: dict[str, Any] = super().__getitem__(sample)
        return item | {"reads": (self._reads - reads, self.decodes - decodes)}


def _read(sample: Sample, shape: tuple[int, int]) -> np.ndarray:
    gray = read_image(sample.image)
    if gray.shape == shape:
        return gray
    return cv2.resize(gray, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def _walk(transform: Any) -> list[Any]:
    """A transform and all those inside it."""
    inner = list(getattr(transform, "transforms", []) or [])
    before = getattr(transform, "pre_transform", None)
    found = [transform]
    for child in [*inner, *([before] if before is not None else [])]:
        found += _walk(child)
    return found
