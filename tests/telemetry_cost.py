"""Prints how long telemetry holds the training thread, with a living and with a dead metrics endpoint, as JSON."""

import json
import os
import signal
import statistics
import sys
import time
from pathlib import Path

os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}

import psutil
import ray

from ray_jobs.detector.epoch_report import EpochReport, Progress
from ray_jobs.flows.measures import RankMeasures

METRICS = {"train/box_loss": 1.0, "train_seconds": 9.0, "data_wait_seconds": 1.0, "gpu_memory_bytes": 1e9}


def median_epoch_ms(measures: RankMeasures) -> float:
    """An epoch as a rank has it: ten words on progress, and its end. The median of 200."""
    report = EpochReport(1, 0.0, METRICS, "", False, 8, Path)
    times = []
    for _ in range(200):
        started = time.perf_counter()
        for step in range(10):
            measures.progress(Progress(1, step + 1, 10, 2.0, 20.0, 0.1))
        measures.epoch(report, 0.1)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


def main() -> None:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    measures = RankMeasures("first", 0, "/somewhere")
    time.sleep(1.5)  # the meter has made its instruments
    alive = median_epoch_ms(measures)
    agents = [
        child
        for child in psutil.Process().children(recursive=True)
        if any("dashboard/agent.py" in part or "DashboardAgent" in part for part in child.cmdline())
    ]
    for agent in agents:
        agent.send_signal(signal.SIGSTOP)  # accepts connections and never answers, which is worse than gone
    dead = median_epoch_ms(measures)
    time.sleep(2.5)  # the meter goes on publishing meanwhile
    dead_later = median_epoch_ms(measures)
    for agent in agents:
        agent.send_signal(signal.SIGCONT)
    print(json.dumps({"alive": alive, "dead": max(dead, dead_later), "agents": len(agents)}))
    sys.stdout.flush()
    ray.shutdown()


if __name__ == "__main__":
    main()
