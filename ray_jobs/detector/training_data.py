"""What the trainer trains on: Ultralytics' data methods, served from the checked index."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ultralytics.data.build import InfiniteDataLoader, build_dataloader
from ultralytics.models.yolo.detect import DetectionTrainer

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.detector.acceleration import device_loader
from ray_jobs.detector.device_loader import DeviceLoader
from ray_jobs.detector.loader import SeededLoader
from ray_jobs.detector.pixel_store import PixelStore
from ray_jobs.detector.process import Place
from ray_jobs.detector.sampling import EpochBatchSampler
from ray_jobs.detector.step_graph import StepGraph
from ray_jobs.detector.xray_dataset import XrayDataset
from ray_jobs.settings import SpeedSettings


class TrainingData(DetectionTrainer):
    """The part of ``DetectorTraining`` that makes batches."""

    index: DatasetIndex
    place: Place
    speed: SpeedSettings
    cache_folder: Path | None
    train_loader: Any
    _graph: StepGraph | None
    _pixels: PixelStore | None
    _images_read: int
    _images_decoded: int

    def get_dataset(self) -> dict[str, Any]:
        """The data set's description from the checked index; nothing is scanned, downloaded or written."""
        names = dict(enumerate(self.index.names))
        splits = {split: split for split in self.index.splits}
        return {**splits, "path": str(self.index.root), "names": names, "nc": len(names), "channels": 3}

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> XrayDataset:
        """A split of the index; ``img_path`` is the split's name."""
        cache = None
        if self.cache_folder is not None:
            cache = self.cache_folder / f"{self.index.fingerprint[:16]}-{img_path}-{self.args.imgsz}.pixels"
        return XrayDataset(
            self.index.splits[img_path],
            img_path=img_path,
            imgsz=self.args.imgsz,
            batch_size=batch or 1,
            augment=mode == "train",
            hyp=self.args,
            rect=False,  # validation sees an image as the exported model will: one square
            single_cls=self.args.single_cls,
            stride=32,
            pad=0.0,
            data=self.data,
            seed=self.args.seed if mode == "train" else None,
            cache_file=cache,
        )

    def get_dataloader(
        self,
        dataset_path: str,
        batch_size: int = 16,
        rank: int = 0,  # noqa: ARG002 - Ultralytics' signature
        mode: str = "train",
    ) -> InfiniteDataLoader | DeviceLoader:
        """Batches of this rank; ``batch_size`` is the rank's share for validation, training shares the global batch."""
        dataset = self.build_dataset(dataset_path, mode, batch_size)
        distributed = self.place.world_size > 1
        if mode == "val":
            return build_dataloader(
                dataset,
                batch=batch_size,
                workers=self.args.workers,
                shuffle=False,
                rank=self.place.local_rank if distributed else -1,
                device=self.device,
            )
        sampler = EpochBatchSampler(
            len(dataset), self.batch_size, self.args.seed, self.place.rank, self.place.world_size
        )
        loader = device_loader(self.speed, dataset, sampler, self.place, self.args, self._pixels)
        if loader is not None:
            self._pixels = loader.store  # for the next try, where this one finds too little memory
            return loader
        return SeededLoader(dataset, sampler, self.args.workers, pin_memory=self.device.type == "cuda")

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """As Ultralytics does, gray given to all three channels, in the memory layout of the model; counts what was
        read for the batch."""
        for read, decoded in batch.pop("reads", ()):
            self._images_read += read
            self._images_decoded += decoded
        if self._graph is not None and self._graph.takes(batch):
            return batch
        batch = super().preprocess_batch(batch)
        batch["img"] = batch["img"].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        return batch

    def _close_dataloader_mosaic(self) -> None:
        super()._close_dataloader_mosaic()
        if isinstance(self.train_loader, DeviceLoader):
            self.train_loader.ranges = replace(self.train_loader.ranges, mosaic=0.0)
