"""A model, not a measurement: how long an epoch takes on N GPUs, from parts that were measured on one.

A step takes as long as its slowest rank: with steps that vary by ``variation`` (standard deviation / mean), the slowest
of N takes about sqrt(2 ln N) standard deviations longer. Gradients are summed in a ring within a node and in a tree
between nodes; two thirds of a step, the backward pass, hide them. Validation is shared. The rest of an epoch (comparing
weights, copying the state for its checkpoint, the report) is the same for any N.
"""

import math
from dataclasses import dataclass

HIDDEN = 2 / 3  # of a step: while the backward pass computes, gradients travel
PAYS = 0.5  # of each GPU's time: where less than half of it is of use, more GPUs do not pay


@dataclass(frozen=True)
class Parts:
    """One GPU, measured. ``step_s``: a step of ``batch`` images; ``gradient_bytes``: what all ranks sum in a step;
    ``val_images_per_s``; ``epoch_s``: what else an epoch takes; ``where`` it was measured."""

    where: str
    batch: int
    step_s: float
    variation: float
    gradient_bytes: float
    val_images_per_s: float
    epoch_s: float


@dataclass(frozen=True)
class Network:
    """What is assumed of the machines: GPUs per node, bytes/s within a node and between two, seconds per message."""

    per_node: int = 8
    inside: float = 200e9
    between: float = 25e9
    message_s: float = 15e-6


@dataclass(frozen=True)
class DataSize:
    """Training and validation images."""

    train: int
    val: int


def all_reduce_s(parts: Parts, gpus: int, network: Network) -> float:
    """Seconds to sum the gradients of all GPUs."""
    if gpus == 1:
        return 0.0
    inside = min(gpus, network.per_node)
    nodes = math.ceil(gpus / network.per_node)
    seconds = 2 * (inside - 1) / inside * parts.gradient_bytes / network.inside + 2 * (inside - 1) * network.message_s
    if nodes > 1:
        seconds += 2 * parts.gradient_bytes / network.between + 2 * math.log2(nodes) * network.message_s
    return seconds


def step_s(parts: Parts, gpus: int, network: Network) -> float:
    """Seconds of a step of the slowest rank, with what the backward pass does not hide of the sum."""
    slowest = parts.step_s * (1 + parts.variation * math.sqrt(2 * math.log(gpus)))
    return slowest + max(all_reduce_s(parts, gpus, network) - HIDDEN * parts.step_s, 0.0)


def epoch_s(parts: Parts, gpus: int, data: DataSize, network: Network = Network()) -> float:
    """Seconds of an epoch, validation included; every GPU has a batch of its own."""
    steps = math.ceil(data.train / (parts.batch * gpus))
    validation = math.ceil(data.val / gpus) / parts.val_images_per_s
    return steps * step_s(parts, gpus, network) + validation + parts.epoch_s


def speed_up(parts: Parts, gpus: int, data: DataSize, network: Network = Network()) -> float:
    """How many times faster than one GPU."""
    return epoch_s(parts, 1, data, network) / epoch_s(parts, gpus, data, network)


def pays_to(parts: Parts, data: DataSize, most: int = 512) -> int:
    """The largest power of two of GPUs of which at least half is of use."""
    counts = [2**power for power in range(int(math.log2(most)) + 1)]
    return max(gpus for gpus in counts if speed_up(parts, gpus, data) / gpus >= PAYS)
