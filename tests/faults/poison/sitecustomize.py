"""Hurts a training worker from the inside, once for each line of a plan; found by Python through PYTHONPATH.

XRAY_POISON names a folder; each file in it, ``EPOCH-RANK-WHAT`` (epochs from 1), is done and deleted: ``nan`` makes a
batch not a number, ``hang`` makes the training thread wait for ever, ``oom`` asks for more memory than there is.
"""

import os
import sys
import threading
import time
from pathlib import Path


def _poison(plan: Path) -> None:
    while "ray_jobs.detector.trainer" not in sys.modules:
        time.sleep(0.05)
    while not hasattr(sys.modules["ray_jobs.detector.trainer"], "DetectorTraining"):
        time.sleep(0.05)
    training = sys.modules["ray_jobs.detector.trainer"].DetectorTraining
    original = training.preprocess_batch

    def preprocess_batch(self, batch):
        batch = original(self, batch)
        file = plan / f"{self.epoch + 1}-{self.place.rank}"
        for dose in list(plan.glob(f"{file.name}-*")):
            dose.unlink()
            what = dose.name.rpartition("-")[2]
            if what == "nan":
                batch["img"] = batch["img"] * float("nan")
            elif what == "hang":
                time.sleep(1e6)
            elif what == "oom":
                import torch

                torch.empty(2**52)
        return batch

    training.preprocess_batch = preprocess_batch


if "XRAY_POISON" in os.environ:
    threading.Thread(target=_poison, args=(Path(os.environ["XRAY_POISON"]),), daemon=True).start()
