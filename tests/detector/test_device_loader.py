"""Batches that are made where training happens; here on the CPU, where a test can look at them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ray_jobs.dataset.check import check_dataset
from ray_jobs.dataset.description import read_description
from ray_jobs.detector.batch_augment import Ranges
from ray_jobs.detector.device_loader import DeviceLoader
from ray_jobs.detector.pixel_store import PixelStore
from ray_jobs.detector.process import quiet_ultralytics
from ray_jobs.detector.sampling import EpochBatchSampler

SIZE, BATCH = 96, 8


@pytest.fixture(scope="module")
def make(xrays_mini: Path) -> Any:
    """Makes the loader of a rank over the training split of real X-rays."""
    quiet_ultralytics()
    from ultralytics.cfg import get_cfg

    from ray_jobs.detector.xray_dataset import XrayDataset

    index = check_dataset(read_description(xrays_mini / "data.yaml"), show_progress=False).index
    arguments = get_cfg(overrides={"fliplr": 0.0})
    data = {"names": dict(enumerate(index.names)), "nc": len(index.names), "channels": 3}
    common = {"imgsz": SIZE, "augment": True, "hyp": arguments, "data": data, "seed": 0}
    dataset = XrayDataset(index.splits["train"], img_path="train", rect=False, stride=32, pad=0.0, **common)
    store = PixelStore(dataset, torch.device("cpu"), threads=2)

    def loader(rank: int = 0, world_size: int = 1) -> DeviceLoader:
        sampler = EpochBatchSampler(len(dataset), BATCH, 0, rank, world_size)
        return DeviceLoader(dataset, store, sampler, Ranges.of(arguments))

    return loader


def test_labels_are_of_one_class_where_that_is_asked_for(xrays_mini: Path) -> None:
    quiet_ultralytics()
    from ultralytics.cfg import get_cfg

    from ray_jobs.detector.xray_dataset import XrayDataset

    index = check_dataset(read_description(xrays_mini / "data.yaml"), show_progress=False).index
    samples, data = index.splits["train"], {"names": dict(enumerate(index.names)), "channels": 3}
    own, one = (
        XrayDataset(samples, img_path="train", imgsz=SIZE, hyp=get_cfg(), data=data, single_cls=single)
        for single in (False, True)
    )
    number = next(number for number, sample in enumerate(samples) if sample.boxes[:, 0].any())
    assert own.labels[number]["cls"].tolist() == samples[number].boxes[:, :1].tolist()
    assert not one.labels[number]["cls"].any()
    assert one.labels[number]["bboxes"].tolist() == samples[number].boxes[:, 1:].tolist()


def test_an_epoch_has_every_image_once_and_can_be_made_again(make: Any) -> None:
    loader = make()
    first, again = list(loader), list(loader)
    assert len(first) == len(loader) == 7
    assert sum(len(batch["img"]) for batch in first) == 54
    for batch, same in zip(first, again, strict=True):
        assert batch["img"].dtype == torch.uint8
        assert batch["img"].shape[1:] == (1, SIZE, SIZE)
        assert torch.equal(batch["img"], same["img"])
        assert torch.equal(batch["bboxes"], same["bboxes"])
        assert len(batch["cls"]) == len(batch["bboxes"]) == len(batch["batch_idx"])
        assert batch["most_boxes"] == np.bincount(batch["batch_idx"].int(), minlength=1).max()
        assert (batch["bboxes"] >= 0).all()
        assert (batch["bboxes"] <= 1).all()
    loader.sampler.set_epoch(1)
    assert not torch.equal(next(iter(loader))["img"], first[0]["img"])


def test_ranks_share_the_batch_that_one_would_have(make: Any) -> None:
    whole = list(make())
    ranks = [list(make(rank, 2)) for rank in range(2)]
    for step, batch in enumerate(whole):
        together = torch.cat([rank[step]["img"] for rank in ranks])
        assert torch.equal(together[: len(batch["img"])], batch["img"])


def test_an_epoch_that_is_left_early_leaves_no_thread(make: Any) -> None:
    import threading

    before = threading.active_count()
    for _ in make():
        break
    assert threading.active_count() == before


def test_what_goes_wrong_while_a_batch_is_made_is_raised_where_it_is_used(make: Any) -> None:
    loader = make()
    loader.store = SimpleNamespace(device=torch.device("cpu"))
    with pytest.raises(AttributeError, match="size"):
        list(loader)
