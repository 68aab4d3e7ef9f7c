"""Which number format a CPU trains faster in: measured on a few steps of the model itself, on all ranks alike.

bf16 with fp32 weights (autocast) wins where the processor multiplies bf16 matrices and pictures are large enough to
make up for the conversions; on other processors it can be many times slower.
"""

import time
from copy import deepcopy
from typing import Any

import torch
from torch import distributed as dist

from ray_jobs.detector.acceleration import deep_convolutions_in_fp32

WORTH_PIXELS = 100e6  # in the whole run; the probe of a shorter one costs more than it can bring
_ADVANTAGE = 1.1  # how much faster bf16 must be
_IMAGES, _STEPS = 4, 2  # of a probe; the first step of each format is not counted


def faster_precision(model: torch.nn.Module, images: int, size: int, world_size: int) -> str:
    """``fp32`` or ``bf16``: the format in which training steps of ``size`` pixels take less time on this CPU.

    ``images`` is this rank's share of a batch. Takes one to two seconds, and changes nothing of the model.
    """
    copy: Any = deepcopy(model).train()
    copy.criterion = None
    deep_convolutions_in_fp32(copy)
    batch = _batch(min(images, _IMAGES), size)
    times = {name: [_step_seconds(copy, batch, name == "bf16") for _ in range(_STEPS + 1)] for name in ("fp32", "bf16")}
    seconds = torch.tensor([min(times[name][1:]) for name in ("fp32", "bf16")])
    if world_size > 1:
        dist.all_reduce(seconds)
    plain, short = seconds.tolist()
    return "bf16" if plain > _ADVANTAGE * short else "fp32"


def _batch(images: int, size: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(images, 3, size, size, generator=generator)
    return {
        "img": pixels.contiguous(memory_format=torch.channels_last),
        "batch_idx": torch.arange(images).float(),
        "cls": torch.zeros(images, 1),
        "bboxes": torch.full((images, 4), 0.5),
    }


def _step_seconds(model: Any, batch: dict[str, Any], bf16: bool) -> float:
    started = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss, _ = model.loss(batch)
    loss.sum().backward()
    model.zero_grad()
    return time.perf_counter() - started
