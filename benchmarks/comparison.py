"""Two ways of doing the same, side by side: runs in turn, the median of each, their ratio and its spread.

In: two functions that run once and return a figure. Out: a ``Comparison``, a line in a table, a file in
``benchmarks/results/``. The two take turns in who goes first, so that a machine that grows slower favours neither.
"""

import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import psutil
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
Figure = TypeVar("Figure")
_PACKAGES = ("ray", "torch", "ultralytics", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Comparison:
    """Figures of both, one a repeat. ``aim`` bounds the ratio ours / peer: at most it, or at least where ``more``."""

    name: str
    unit: str
    ours: Sequence[float]
    peer: Sequence[float]
    aim: float
    more: bool = False
    note: str = ""

    @property
    def ratio(self) -> float:
        """The median of the repeats' ratios."""
        return statistics.median(self._ratios())

    @property
    def met(self) -> bool:
        """Whether the ratio keeps the aim."""
        return self.ratio >= self.aim if self.more else self.ratio <= self.aim

    def as_dict(self) -> dict[str, Any]:
        """What ``results/NAME.json`` holds; ``spread`` is the smallest and the largest ratio."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": statistics.median(self.ours),
            "peer": statistics.median(self.peer),
            "ratio": self.ratio,
            "aim": f"{'>=' if self.more else '<='} {self.aim:g}",
            "met": self.met,
            "spread": [min(self._ratios()), max(self._ratios())],
            "repeats": {"ours": list(self.ours), "peer": list(self.peer)},
            "note": self.note,
            "hardware": hardware(),
            "versions": {package: version(package) for package in _PACKAGES},
        }

    def save(self, folder: Path = RESULTS) -> None:
        """Write ``folder/NAME.json``."""
        folder.mkdir(exist_ok=True)
        (folder / f"{self.name}.json").write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")

    def _ratios(self) -> list[float]:
        return [ours / peer for ours, peer in zip(self.ours, self.peer, strict=True)]


def in_turns(
    repeats: int, ours: Callable[[int], Figure], peer: Callable[[int], Figure]
) -> tuple[list[Figure], list[Figure]]:
    """Run both ``repeats`` times, each told the repeat's number; who is first changes with every repeat."""
    figures: tuple[list[Figure], list[Figure]] = ([], [])
    for repeat in range(repeats):
        for side in (0, 1) if repeat % 2 == 0 else (1, 0):
            figures[side].append((ours, peer)[side](repeat))
    return figures


def show(results: Sequence[dict[str, Any]]) -> None:
    """One table of results as ``Comparison.as_dict`` gives them."""
    table = Table("", "ours", "peer", "ratio", "spread", "aim", "")
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


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _gpu_names() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(gpu) for gpu in range(torch.cuda.device_count())]
