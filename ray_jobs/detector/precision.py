"""Which number format a run trains in where it may choose, on all ranks alike.

On GPUs it is bf16 where all of them have it. On CPUs it is measured, on a few steps of the model itself:
bf16 with fp32 weights (autocast) wins where the processor multiplies bf16 matrices and pictures are large enough to
make up for the conversions; on other processors it can be many times slower.
"""

import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from ray_jobs.detector.acceleration import deep_convolutions_in_fp32
from ray_jobs.detector.process import Place
from ray_jobs.detector.training_state import load_state
from ray_jobs.errors import TrainingError

WORTH_PIXELS = 100e6  # in the whole run; the probe of a shorter one costs more than it can bring
_ADVANTAGE = 1.1  # how much faster bf16 must be
_PATIENCE_S = 5.0
_IMAGES, _STEPS = 4, 2  # of a probe; the first step of each format is not counted


def gpu_precision(place: Place, resume_from: Path | None) -> bool | str:
    """Ultralytics' ``amp``: what the run began with, else bf16 where the GPU of every rank has it, and fp16.

    Raises TrainingError where a run that began in bf16 goes on on a GPU without it.
    """
    known = torch.tensor(float(torch.cuda.is_bf16_supported(including_emulation=False)), device=place.device)
    bf16 = bool(_least(known, place.world_size))
    if resume_from is None:
        return "bf16" if bf16 else True
    begun: bool | str = load_state(resume_from / "state.pt").get("amp", False)
    if begun == "bf16" and not bf16:
        raise TrainingError("the run trains in bf16, which a GPU here does not have; go on with it on other GPUs")
    return begun


def faster_precision(model: torch.nn.Module, images: int, size: int, world_size: int) -> str:
    """``fp32`` or ``bf16``: the format in which training steps of ``size`` pixels take less time on this CPU.

    ``images`` is this rank's share of a batch. Changes nothing of the model. Takes six steps of a few pictures, and
    less where the processor has no matrix units for bf16 or a first step takes seconds: it is fp32 then.
    """
    known = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    if not _least(torch.tensor(float(known)), world_size):
        return "fp32"
    copy: Any = deepcopy(model).train()
    copy.criterion = None
    deep_convolutions_in_fp32(copy)
    batch = _batch(min(images, _IMAGES), size)
    first = torch.tensor([_step_seconds(copy, batch, False)])
    if world_size > 1:
        dist.all_reduce(first)
    if float(first) / world_size > _PATIENCE_S:
        return "fp32"
    times = [[_step_seconds(copy, batch, bf16) for _ in range(_STEPS + bf16)][bf16:] for bf16 in (False, True)]
    seconds = torch.tensor([min(steps) for steps in times])
    if world_size > 1:
        dist.all_reduce(seconds)
    plain, short = seconds.tolist()
    return "bf16" if plain > _ADVANTAGE * short else "fp32"


def _least(value: torch.Tensor, world_size: int) -> float:
    """The smallest of all ranks' values."""
    if world_size > 1:
        dist.all_reduce(value, op=dist.ReduceOp.MIN)
    return float(value)


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
