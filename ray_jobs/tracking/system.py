"""How busy the driver's machine is, as metrics under ``system/``.

In: nothing but the machine. Out: every few seconds one set of numbers, under MLflow's own names, so that its page of
system metrics shows them. MLflow's monitor is not used because it stops for good at the first call that fails; these
go through the spool like every other metric.
"""

import importlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

INTERVAL_S = 10.0
_MB = 1e6


class SystemMetrics:
    """Samples in a thread of its own between ``start`` and ``stop``."""

    def __init__(
        self, record: Callable[[dict[str, float], int], None], disk: Path, interval_s: float = INTERVAL_S
    ) -> None:
        """``record(values, step)`` is called with each sample, ``step`` being the whole seconds since the first one.

        ``disk`` is a folder on the disk whose use is of interest.
        """
        self._record = record
        self._disk = disk
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="system-metrics", daemon=True)

    def start(self, first_step: int = 0) -> None:
        """Begin; a continued run gives the step to go on from."""
        self._first_step = first_step
        self._thread.start()

    def stop(self) -> None:
        """End; a sample that is being taken is finished first."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        import psutil

        began = time.monotonic()
        psutil.cpu_percent()  # the first call has nothing to compare with and says 0
        gpus = _open_gpus()
        received = psutil.net_io_counters()
        while not self._stop.wait(self._interval_s):
            values = sample_machine(self._disk) | sample_gpus(gpus)
            now = psutil.net_io_counters()
            if received and now:
                values["network_receive_megabytes"] = (now.bytes_recv - received.bytes_recv) / _MB
                values["network_transmit_megabytes"] = (now.bytes_sent - received.bytes_sent) / _MB
            step = self._first_step + int(time.monotonic() - began)
            self._record({f"system/{name}": value for name, value in values.items()}, step)


def sample_machine(disk: Path) -> dict[str, float]:
    """Load of the cores since the last call in percent, memory, and the use of the disk that ``disk`` lies on."""
    import psutil

    memory, space = psutil.virtual_memory(), psutil.disk_usage(str(disk))
    return {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / _MB,
        "system_memory_usage_percentage": memory.percent,
        "disk_usage_megabytes": space.used / _MB,
        "disk_usage_percentage": space.percent,
        "disk_available_megabytes": space.free / _MB,
    }


def _open_gpus() -> list[Any]:
    """Handles of the NVIDIA GPUs; none without the driver or its library."""
    try:
        pynvml = importlib.import_module("pynvml")
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except Exception as error:  # no library, no driver, no permission: all mean that there is nothing to read
        log.debug("no GPU metrics: %s", error)
        return []


def sample_gpus(gpus: list[Any]) -> dict[str, float]:
    """Load, memory and power of each GPU, the unreadable ones left out."""
    if not gpus:
        return {}
    pynvml = importlib.import_module("pynvml")
    values: dict[str, float] = {}
    for index, gpu in enumerate(gpus):
        try:
            memory = pynvml.nvmlDeviceGetMemoryInfo(gpu)
            values[f"gpu_{index}_utilization_percentage"] = float(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu)
            values[f"gpu_{index}_memory_usage_megabytes"] = memory.used / _MB
            values[f"gpu_{index}_memory_usage_percentage"] = 100 * memory.used / memory.total
            values[f"gpu_{index}_power_usage_watts"] = pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000
        except pynvml.NVMLError as error:
            log.debug("GPU %d cannot be read: %s", index, error)
    return values
