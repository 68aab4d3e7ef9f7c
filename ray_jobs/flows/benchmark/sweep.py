"""Which settings are tried, one kind after the other, and which of them is the fastest.

In: settings to start from, values to try, a function that measures one combination. Out: a ``Point`` for each. First
the batch sizes, then with the best of them the numbers of workers, and so on: a few points in place of a whole grid.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

GAIN = 1.03  # what a setting must win by: less than 3 % is within what two measurements of the same differ by


@dataclass(frozen=True)
class Setting:
    """What is varied. ``batch_size`` is the global batch, ``num_workers`` those that train one model together,
    ``workers`` the loader processes of each."""

    batch_size: int
    num_workers: int
    workers: int
    precision: str

    def describe(self) -> str:
        """``batch 16, 2 workers, 0 loaders each, fp32``."""
        workers = f"{self.num_workers} worker{'s' * (self.num_workers != 1)}"
        loaders = f"{self.workers} loader{'s' * (self.workers != 1)} each"
        return f"batch {self.batch_size}, {workers}, {loaders}, {self.precision}"

    def as_settings(self) -> dict[str, Any]:
        """In the words of config.yaml."""
        return {
            "batch_size": self.batch_size,
            "workers": self.workers,
            "precision": self.precision,
            "cluster": {"num_workers": self.num_workers},
        }


@dataclass(frozen=True)
class Point:
    """A setting and what was measured with it; figures are None where it failed, and ``error`` says why.

    ``epochs`` are the images per second of each epoch that counts, of which ``images_per_second`` is the median.
    ``data_wait`` is the share of training time in which rank 0 waited for images. ``startup_seconds`` passed before
    the first step. Memory is the most that the workers of this node held, and the most on rank 0's GPU.
    """

    setting: Setting
    images_per_second: float | None = None
    epochs: tuple[float, ...] = ()
    step_seconds: float | None = None
    data_wait: float | None = None
    val_seconds: float | None = None
    startup_seconds: float | None = None
    memory_bytes: float | None = None
    gpu_memory_bytes: float | None = None
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For benchmark.json."""
        return asdict(self)


Measure = Callable[[Setting], Point]


def sweep(start: Setting, choices: Mapping[str, Sequence[Any]], measure: Measure) -> list[Point]:
    """Measure ``start``, then every value of each kind in ``choices`` (a field of ``Setting``), the others as good as
    was found so far. Larger batches than one that failed are left out, and those that cannot be shared evenly."""
    points = [measure(start)]
    for kind, values in choices.items():
        won = best_of(points)
        base = won.setting if won else start
        for value in values:
            setting = replace(base, **{kind: value})
            known = setting in [point.setting for point in points]
            if not known and setting.batch_size % setting.num_workers == 0 and not _too_large(setting, points):
                points.append(measure(setting))
    return points


def best_of(points: Sequence[Point]) -> Point | None:
    """The fastest point; one that was tried later must win by more than ``GAIN``. None where all failed."""
    best: Point | None = None
    for point in points:
        if point.images_per_second is None:
            continue
        if best is None or point.images_per_second > GAIN * (best.images_per_second or 0.0):
            best = point
    return best


def _too_large(setting: Setting, points: Sequence[Point]) -> bool:
    """Whether the same failed with a smaller batch."""
    failed = [point.setting for point in points if point.error]
    return any(
        one.batch_size <= setting.batch_size and replace(one, batch_size=setting.batch_size) == setting
        for one in failed
    )
