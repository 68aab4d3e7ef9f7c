"""What a benchmark tries by itself, and what it refuses."""

from types import SimpleNamespace
from typing import Any

import pytest

from ray_jobs.errors import BadInput
from ray_jobs.flows.benchmark.choices import Asked, choose
from ray_jobs.flows.benchmark.sweep import Setting
from ray_jobs.flows.ray_cluster import plan_workers
from ray_jobs.settings import load_config_with_defaults

LAPTOP = [{"CPU": 4.0}]
SERVER = [{"CPU": 32.0, "GPU": 2.0}]


def chosen(nodes: list[dict[str, float]], *overrides: str, images: int = 1000, **asked: Any) -> tuple[Setting, Any]:
    settings = load_config_with_defaults(None, overrides)
    index = SimpleNamespace(splits={"train": (None,) * images})
    report = SimpleNamespace(index=index)
    prepared: Any = SimpleNamespace(settings=settings, plan=plan_workers(settings, nodes), report=report)
    return choose(prepared, Asked(**asked), nodes)


def test_a_laptop() -> None:
    start, choices = chosen(LAPTOP, "device=cpu", "cluster.num_workers=1")
    assert start == Setting(16, 1, 0, "fp32")
    assert list(choices) == ["batch_size", "num_workers", "workers", "precision"]
    assert choices == {"batch_size": [8, 32], "num_workers": [2, 4], "workers": [], "precision": ["bf16"]}


def test_a_server_with_gpus() -> None:
    start, choices = chosen(SERVER, "batch_size=0.6")
    assert start == Setting(32, 2, 8, "auto")
    assert choices["batch_size"] == [16, 64, 128, 256]
    assert choices["num_workers"] == [1]
    assert choices["workers"] == [0, 2, 4, 16]
    assert choices["precision"] == ["bf16", "fp16"]


def test_what_is_asked_for_is_all_that_is_tried() -> None:
    asked = {"batch_sizes": [8, 32], "num_workers": [2], "workers": [0], "precisions": ["fp32"]}
    start, choices = chosen(LAPTOP, "device=cpu", **asked)
    assert start == Setting(8, 2, 0, "fp32")
    assert choices == {"batch_size": [32], "num_workers": [], "workers": [], "precision": []}


def test_a_batch_is_never_larger_than_the_data_set() -> None:
    _, choices = chosen(LAPTOP, "device=cpu", images=20)
    assert choices["batch_size"] == [8]


def test_all_that_cannot_be_done_is_said_at_once() -> None:
    with pytest.raises(BadInput) as refused:
        chosen(
            LAPTOP,
            "device=cpu",
            images=20,
            batch_sizes=[8, 64],
            num_workers=[2, 9],
            workers=[0, 4],
            precisions=["fp16"],
        )
    assert refused.value.problems == [
        "--batch-sizes: 64 is more than the 20 training images",
        "--num-workers: 9 do not find room: 4 CPUs and 0 GPUs on 1 node(s)",
        "--workers: without a GPU images are loaded in the training process itself; leave it out",
        "--precisions: fp16 needs a GPU; use fp32 and bf16",
    ]
