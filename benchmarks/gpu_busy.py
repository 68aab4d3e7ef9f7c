"""How busy the GPU is while something runs: what ``nvidia-smi`` says five times a second.

In: a block of work. Out: the share of the time, in 0..1, in which a kernel ran. Nothing where there is no GPU.
"""

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Iterable
from types import TracebackType

_COMMAND = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=200")


class GpuBusy:
    """``with GpuBusy() as busy: ...``, then ``busy.between(start, end)`` with Unix times."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, float]] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "GpuBusy":
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"  # the GPU that PyTorch calls cuda:0
        try:
            self._process = subprocess.Popen(
                [*_COMMAND, f"--id={first}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        except FileNotFoundError:
            return self
        threading.Thread(target=self._collect, args=(self._process.stdout,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def between(self, start: float, end: float) -> float | None:
        """The mean share of that time; None where nothing was sampled in it."""
        shares = [share for moment, share in self._samples if start <= moment <= end]
        return statistics.mean(shares) if shares else None

    def _collect(self, output: Iterable[str]) -> None:
        for line in output:
            if line.strip().isdigit():
                self._samples.append((time.time(), int(line) / 100))
