"""A search whose trials train nothing: ``toy_search.py FOLDER JSON``, on the cluster of RAY_ADDRESS.

Every epoch a trial runs is a line in ``FOLDER/ran``: trial, epoch, process, and the weights it has, a number that each
epoch changes by what its parameters say. ``FOLDER/trials.jsonl`` is the journal. Prints the trials as JSON.
"""

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray_jobs.detector.epoch_report import EpochReport
from ray_jobs.detector.process import Place
from ray_jobs.errors import TrainingError
from ray_jobs.flows.checkpoints import fetch_checkpoint
from ray_jobs.flows.search.journal import SearchJournal, SearchState, TrialRecord
from ray_jobs.flows.search.loop import Rules, Search
from ray_jobs.flows.search.preparation import make_scheduler, make_searcher
from ray_jobs.flows.search.slots import Slot, SlotPlan
from ray_jobs.flows.search.worker import Reporter, TrialTask
from ray_jobs.search.settings import SearchSettings
from ray_jobs.search.space import parse_space
from ray_jobs.settings import Settings
from ray_jobs.storage import FolderStorage

SPACE = {"lr0": {"uniform": [0.1, 1.0]}}


class Toy:
    """Gets better by ``lr0`` in every epoch; ``scores`` by trial are what it reports instead. Trials that are
    ``failing`` raise an error in their first epoch, ``dying`` ones kill their process."""

    def __init__(
        self, folder: Path, epoch_s: float, scores: dict[str, list[float]], failing: list[int], dying: list[int]
    ) -> None:
        self.folder, self.epoch_s, self.scores, self.failing, self.dying = folder, epoch_s, scores, failing, dying

    def __call__(self, task: TrialTask, place: Place, report: Reporter) -> None:
        weights, first = 0.0, 1
        if task.start:
            there = self.folder / f"fetched-{os.getpid()}"
            manifest = fetch_checkpoint(*task.start, there)
            weights, first = json.loads((there / "state.pt").read_text()), manifest["epoch"] + 1
            digest = hashlib.sha256((there / "state.pt").read_bytes()).hexdigest()
            self.log("began", trial=task.number, epoch=first, digest=digest, carried=task.carried)
        for epoch in range(first, task.settings.epochs + 1):
            time.sleep(self.epoch_s)
            weights += task.settings.lr0
            if place.world_size > 1:
                self.log("rank", trial=task.number, rank=place.rank, sum=self.all_reduced(place.rank + 1))
            if task.number in self.failing:
                raise TrainingError(f"epoch {epoch}: the loss is not finite")
            if task.number in self.dying:
                os.kill(os.getpid(), signal.SIGKILL)
            if place.rank == 0:
                self.log("ran", trial=task.number, epoch=epoch, pid=os.getpid(), weights=weights)

            def write(folder: Path, weights: float = weights) -> None:
                (folder / "state.pt").write_text(json.dumps(weights))

            scripted = self.scores.get(str(task.number))
            score = scripted[epoch - 1] if scripted else weights
            last = epoch == task.settings.epochs
            metrics = {"val/map50_95": score}
            report(EpochReport(epoch, time.time(), metrics, "", last, 8, (lambda: write) if place.rank == 0 else None))

    def log(self, file: str, **values: Any) -> None:
        with (self.folder / file).open("a") as lines:
            lines.write(json.dumps(values) + "\n")

    def all_reduced(self, value: int) -> float:
        import torch
        from torch import distributed as dist

        total = torch.tensor(float(value))
        dist.all_reduce(total)
        return float(total)


def run(folder: Path, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    import ray

    search = SearchSettings.model_validate({"space": SPACE, **wanted.get("search", {})})
    space, _ = parse_space(search.space)
    samples, epochs = search.budget.samples, search.budget.epochs
    state = SearchState(make_scheduler(search, space, samples), make_searcher(search, space))
    journal = SearchJournal(folder / "trials.jsonl")
    for event in journal.read():
        state.apply(event, replayed=True)
    journal.open()

    def task(trial: TrialRecord) -> TrialTask:
        settings = Settings(lr0=float(trial.parameters["lr0"]), epochs=epochs, batch_size=8)
        start = (place(trial.checkpoint[0]), trial.checkpoint[1]) if trial.checkpoint else None
        return TrialTask(trial.number, settings, place(trial.number), start, trial.carried)

    def place(number: int) -> FolderStorage:
        return FolderStorage(folder / "trials" / str(number))

    hurt = wanted.get("failing", []), wanted.get("dying", [])
    toy = Toy(folder, wanted.get("epoch_s", 0.0), wanted.get("scores", {}), *hurt)
    plan = SlotPlan(wanted.get("slots", 2), wanted.get("workers", 1), 1, 0.0, 60.0, wanted.get("hang_s", 0.0))
    slots = [Slot(plan, ray.put(toy)) for _ in range(plan.count)]
    deadline = time.time() + wanted["deadline_s"] if "deadline_s" in wanted else None
    rules = Rules(samples, deadline, max_failures=search.max_failures, checkpoint_s=wanted.get("checkpoint_s", 0.0))
    Search(state, journal, slots, rules, task, lambda _, metrics: metrics["val/map50_95"]).run()
    return [asdict(trial) for trial in state.as_trials({}, time.time())]


if __name__ == "__main__":
    from ray_jobs.flows.ray_cluster import connect

    connect(Settings(device="cpu"))
    began = time.time()
    trials = run(Path(sys.argv[1]), json.loads(sys.argv[2]))
    print(json.dumps({"trials": trials, "seconds": time.time() - began}))
