"""Two ways of doing the same, side by side: runs in turn, the median of each, their ratio and its spread.

In: two functions that run once and return a figure. Out: a ``Comparison``, a line in a table, a file in
``benchmarks/results/``. The two take turns in who goes first, so that a machine that grows slower favours neither.
"""

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import psutil
from rich.console import Console
from rich.table import Column, Table

RESULTS = Path(__file__).resolve().parent / "results"
Figure = TypeVar("Figure")
_PACKAGES = ("ray", "torch", "ultralytics", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Comparison:
    """Figures of both, one a repeat. ``aim`` bounds the ratio ours / peer: at most it, or at least where ``more``.

    ``note`` says what was compared; ``details`` are further figures for the file, such as scores over seeds.
    """

    name: str
    unit: str
    ours: Sequence[float]
    peer: Sequence[float]
    aim: float
    more: bool = False
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The median of the repeats' ratios."""
        return statistics.median(self._ratios())

    @property
    def met(self) -> bool:
        """Whether the ratio keeps the aim."""
        return self.ratio >= self.aim if self.more else self.ratio <= self.aim

    @property
    def aim_in_words(self) -> str:
        """``<= 0.5`` times the peer's."""
        return f"{'>=' if self.more else '<='} {self.aim:g}"

    def as_dict(self) -> dict[str, Any]:
        """What ``results/NAME.json`` holds; ``spread`` is the smallest and the largest ratio."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": statistics.median(self.ours),
            "peer": statistics.median(self.peer),
            "ratio": self.ratio,
            "aim": self.aim_in_words,
            "met": self.met,
            "spread": [min(self._ratios()), max(self._ratios())],
            "repeats": {"ours": list(self.ours), "peer": list(self.peer)},
            "note": self.note,
            "details": dict(self.details),
            "load": os.getloadavg()[0],
            "hardware": hardware(),
            "versions": {package: found for package in _PACKAGES if (found := _version(package))},
        }

    def save(self, folder: Path = RESULTS) -> None:
        """Write ``folder/NAME.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.json").write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")

    def _ratios(self) -> list[float]:
        return [ours / peer if peer else math.inf for ours, peer in zip(self.ours, self.peer, strict=True)]


class Later(Comparison):
    """Its aim is a difference: how much more than the peer's ours may be."""

    @property
    def met(self) -> bool:
        """Whether the median difference keeps the aim."""
        return statistics.median(a - b for a, b in zip(self.ours, self.peer, strict=True)) <= self.aim

    @property
    def aim_in_words(self) -> str:
        """``<= peer + 10 s``."""
        return f"<= peer + {self.aim:g} {self.unit}"


class WithinNoise(Comparison):
    """Scores over seeds. Its aim bounds by how many standard errors the mean of ours may be below the peer's.

    The standard error of the difference of two means is sqrt(s1²/n1 + s2²/n2), with the variances of Welch's test.
    """

    @property
    def met(self) -> bool:
        """Whether ours is no lower than chance makes it."""
        return statistics.fmean(self.peer) - statistics.fmean(self.ours) <= self.aim * self._standard_error()

    @property
    def aim_in_words(self) -> str:
        """``>= peer - 2 standard errors (0.0041)``."""
        return f">= peer - {self.aim:g} standard errors ({self.aim * self._standard_error():.2g})"

    def _standard_error(self) -> float:
        if len(self.ours) < 2:
            return 0.0  # one seed knows nothing of chance
        return math.sqrt(sum(statistics.variance(side) / len(side) for side in (self.ours, self.peer)))


class AtMost(Comparison):
    """Its aim bounds ours alone; the peer is there to compare."""

    @property
    def met(self) -> bool:
        """Whether the largest of ours keeps the aim."""
        return max(self.ours) <= self.aim

    @property
    def aim_in_words(self) -> str:
        """``<= 0.05 s``."""
        return f"<= {self.aim:g} {self.unit}"


def in_turns(
    repeats: int, ours: Callable[[int], Figure], peer: Callable[[int], Figure], minutes: float = math.inf
) -> tuple[list[Figure], list[Figure]]:
    """Run both ``repeats`` times, each told the repeat's number; who is first changes with every repeat.

    After the first, a repeat that would probably end later than after so many minutes is not begun.
    """
    figures: tuple[list[Figure], list[Figure]] = ([], [])
    started = time.perf_counter()
    for repeat in range(repeats):
        so_far = (time.perf_counter() - started) / 60
        if repeat and so_far * (repeat + 1) / repeat > minutes:
            print(f"  no repeat {repeat + 1}: it would end after more than {minutes:g} minutes", flush=True)
            break
        for side in (0, 1) if repeat % 2 == 0 else (1, 0):
            began = time.perf_counter()
            figures[side].append((ours, peer)[side](repeat))
            took = time.perf_counter() - began
            print(f"  repeat {repeat + 1} of {repeats}, {('ours', 'peer')[side]}: {took:.1f} s", flush=True)
    return figures


def show(results: Sequence[dict[str, Any]]) -> None:
    """One table of results as ``Comparison.as_dict`` gives them."""
    table = Table("", *(Column(name, justify="right") for name in ("ours", "peer", "ratio", "spread")), "aim", "")
    for row in results:
        low, high = row["spread"]
        table.add_row(
            row["name"],
            f"{row['ours']:.4g} {row['unit']}",
            f"{row['peer']:.4g} {row['unit']}",
            f"{row['ratio']:.2f}",
            f"{low:.2f} to {high:.2f}",
            row["aim"],
            "met" if row["met"] else "NOT MET",
        )
    Console(width=120).print(table)


def hardware() -> dict[str, Any]:
    """The processor, its cores that may be used, memory in GiB, and the GPUs."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpus": _gpu_names(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # a GPU part runs without Ray
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _gpu_names() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(gpu) for gpu in range(torch.cuda.device_count())]
