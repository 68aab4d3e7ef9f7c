"""Batches of a rank: Ultralytics' endless loader over samples that are functions of (seed, epoch, index)."""

from ultralytics.data.build import InfiniteDataLoader

from ray_jobs.detector.sampling import EpochBatchSampler
from ray_jobs.detector.xray_dataset import XrayDataset


class SeededLoader(InfiniteDataLoader):
    """Ultralytics' endless loader over an ``EpochBatchSampler``."""

    def __init__(self, dataset: XrayDataset, sampler: EpochBatchSampler, workers: int, pin_memory: bool) -> None:
        workers = min(workers, len(sampler))
        super().__init__(
            dataset,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=dataset.collate_fn,
            pin_memory=pin_memory,
            prefetch_factor=4 if workers else None,
        )
        # Ultralytics' loop asks the sampler for its epoch and the loader for its batch size.
        object.__setattr__(self, "sampler", sampler)
        object.__setattr__(self, "batch_size", sampler.global_batch // sampler.world_size)
