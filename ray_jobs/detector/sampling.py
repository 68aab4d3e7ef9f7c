"""Every training sample is a function of (seed, epoch, index) and of nothing else.

So a run that was killed goes on with the samples it would have had, one worker and many see the same batches, and no
state of a random generator has to be saved. The epoch travels inside the index: loader workers that have already
fetched samples of the next epoch stay right.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

_INDEX_BITS = 32
_INDEX_MASK = (1 << _INDEX_BITS) - 1


def pack(epoch: int, index: int) -> int:
    """Epoch (from 0) and index of a sample as one number."""
    return epoch << _INDEX_BITS | index


def unpack(packed: int) -> tuple[int, int]:
    """Epoch and index of a packed sample number."""
    return packed >> _INDEX_BITS, packed & _INDEX_MASK


def stable_seed(*parts: int) -> int:
    """A 64-bit seed that is the same in every process and Python version (``hash()`` is not)."""
    digest = hashlib.blake2b(b"".join(part.to_bytes(8, "little", signed=True) for part in parts), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Seed Python's, NumPy's and PyTorch's CPU generators from ``parts``, and put them back afterwards."""
    seed = stable_seed(*parts)
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)


def uniforms(seed: int, epoch: int, indices: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """``count`` numbers in [0, 1) for each sample, (n, count): functions of (seed, epoch, index, column) alone.

    SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014) over counters, for a
    whole batch at once: seeding three generators for every sample takes longer than a GPU takes to train on it.
    """
    stream = np.uint64(stable_seed(seed, epoch))
    counters = np.asarray(indices, np.uint64)[:, None] * np.uint64(1 << 16) + np.arange(count, dtype=np.uint64)
    bits: NDArray[np.uint64] = _mixed(_mixed((counters + stream).astype(np.uint64)) ^ stream)
    return np.asarray((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output for each state; whole numbers wrap around, as they should."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


class EpochBatchSampler(Sampler[list[int]]):
    """One rank's share of every global batch, epoch after epoch without end.

    Each epoch is one permutation of the data set from (seed, epoch), cut into global batches; a rank takes its
    contiguous share of each, so that the ranks together see exactly what one worker would. The last batch is filled
    up to a multiple of ``world_size`` with the first samples of the same permutation: no sample is ever dropped.

    ``len()`` is the number of batches of one epoch. ``set_epoch`` says where the next iteration starts.
    """

    def __init__(self, length: int, global_batch: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if global_batch % world_size:
            raise ValueError(f"global batch {global_batch} cannot be shared by {world_size} ranks")
        self.length, self.global_batch, self.seed = length, global_batch, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Start the next iteration at this epoch (from 0)."""
        self.epoch = epoch

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """This rank's batches of packed sample numbers for one epoch."""
        order = np.random.default_rng(stable_seed(self.seed, epoch)).permutation(self.length)
        for start in range(0, self.length, self.global_batch):
            chunk = order[start : start + self.global_batch]
            missing = -len(chunk) % self.world_size
            if missing:
                chunk = np.concatenate([chunk, np.resize(order, missing)])
            share = len(chunk) // self.world_size
            yield [pack(epoch, int(index)) for index in chunk[self.rank * share : (self.rank + 1) * share]]

    def __iter__(self) -> Iterator[list[int]]:
        epoch = self.epoch
        while True:
            yield from self.batches(epoch)
            epoch += 1

    def __len__(self) -> int:
        return -(-self.length // self.global_batch)
