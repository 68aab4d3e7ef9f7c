"""System metrics: MLflow's names, plausible values, and an end when asked."""

import threading
from pathlib import Path

from ray_jobs.tracking.system import SystemMetrics


def test_samples_arrive_until_stopped(tmp_path: Path) -> None:
    samples: list[tuple[dict[str, float], int]] = []
    two = threading.Event()

    def record(values: dict[str, float], step: int) -> None:
        samples.append((values, step))
        if len(samples) == 2:
            two.set()

    monitor = SystemMetrics(record, tmp_path, interval_s=0.05)
    monitor.start(first_step=7)
    assert two.wait(20)
    monitor.stop()
    values, step = samples[0]
    assert step >= 7
    assert 0 < values["system/system_memory_usage_percentage"] <= 100
    assert values["system/disk_available_megabytes"] > 0
    assert "system/cpu_utilization_percentage" in values
    assert "system/network_receive_megabytes" in values
    assert "system-metrics" not in {thread.name for thread in threading.enumerate()}
