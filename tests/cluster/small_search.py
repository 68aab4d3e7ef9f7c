"""A search, a node's data and a reader, as they measure themselves, for the live metrics test; ends with its input."""

import sys
import time

import ray

from ray_jobs.flows.measures import NodeMeasures, RunMeasures
from ray_jobs.flows.search.measures import SearchMeasures
from ray_jobs.reading.measures import ReadingMeasures

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
search = SearchMeasures("search", time.time())
for number, state in enumerate(("finished", "stopped", "failed", "running", "pending")):
    search.trial(f"{number:05d}", state, planned_epochs=10)
node = NodeMeasures("live", "127.0.0.1")
node.data(hits=54, misses=6, copied_bytes=1_200_000)
reading = ReadingMeasures("127.0.0.1")
registry = RunMeasures("retrain", time.time())
time.sleep(4)  # the counters' first samples are scraped
registry.promotion("promoted")
registry.registered()
for step in range(1, 4):
    for trial in ("00000", "00001", "00003"):
        search.result(trial, epoch=step, best=0.1 * step + 0.01 * int(trial), seconds=2.0 * step)
    reading.read(seconds=0.1, findings=2)
    time.sleep(1.5)
print("MEASURED", flush=True)
sys.stdin.read()
