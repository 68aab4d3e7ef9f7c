"""A search is its journal: a line for all that happens, written before it has consequences.

In: events. Out: ``SearchState``, the trials with what scheduler and searcher know of them. Reading the journal again
gives the same state, so a search whose driver was killed goes on as if nothing had happened.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ray_jobs.flows.search.trial import State, Trial, Value
from ray_jobs.search.schedulers import Decision, Order, Scheduler
from ray_jobs.search.searchers import Searcher

Event = dict[str, Any]
_IMPORTANT = ("suggested", "saved", "ended")  # brought to the disk at once


@dataclass
class TrialRecord:
    """A trial while the search runs. ``checkpoint`` is where it goes on from: (trial that saved it, name, epoch)."""

    number: int
    parameters: dict[str, Value]
    phase: Literal["pending", "running", "waiting", "ended"] = "pending"
    state: State = "pending"
    reason: str | None = None
    epochs: list[dict[str, float]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    tried: list[dict[str, Value]] = field(default_factory=list)  # each epoch's parameters, which a population changes
    checkpoint: tuple[int, str, int] | None = None
    decision: Decision = "continue"  # of its last epoch
    pause_at: int = 0  # the epoch after which it was told to wait
    restarts: int = 0
    seconds: float = 0.0
    since: float = 0.0  # when it took its resources
    heard: float = 0.0  # when it was last heard of
    node: str = ""
    peak_gpu_memory_gb: float | None = None

    @property
    def carried(self) -> bool:
        """Whether its checkpoint is another trial's."""
        return self.checkpoint is not None and self.checkpoint[0] != self.number

    @property
    def saved_epoch(self) -> int:
        """The epoch of its own checkpoint, 0 for none."""
        return 0 if self.checkpoint is None or self.carried else self.checkpoint[2]

    @property
    def best(self) -> float | None:
        """The best score so far."""
        return max(self.scores, default=None)

    @property
    def best_parameters(self) -> dict[str, Value]:
        """What it trained with when it had its best score; before the first, what it has now."""
        return self.tried[self.scores.index(max(self.scores))] if self.scores else self.parameters


class SearchState:
    """All trials. ``apply`` is the only way in which anything changes, live and when a journal is read again."""

    def __init__(self, scheduler: Scheduler, searcher: Searcher, cpus: float = 1.0, gpus: float = 0.0) -> None:
        self.scheduler, self.searcher = scheduler, searcher
        self.trials: dict[int, TrialRecord] = {}
        self.cpus, self.gpus = cpus, gpus

    def apply(self, event: Event, replayed: bool = False) -> None:
        """Take in an event; ``replayed`` ones come from a journal."""
        kind = event["kind"]
        if kind == "suggested":
            self.trials[event["trial"]] = TrialRecord(event["trial"], dict(event["parameters"]))
            self.scheduler.suggested(event["trial"], event["parameters"])
            if replayed:
                self.searcher.restore(event["trial"], event["parameters"])
            return
        trial = self.trials[event["trial"]]
        getattr(self, f"_{kind}")(trial, event)
        trial.heard = event["time"]

    def _started(self, trial: TrialRecord, event: Event) -> None:
        if trial.since:  # its driver died; what came after its last word was lost with that
            trial.seconds += max(trial.heard - trial.since, 0.0)
        trial.phase = trial.state = "running"
        trial.since, trial.node = event["time"], event.get("node", "")

    def _epoch(self, trial: TrialRecord, event: Event) -> None:
        number = event["epoch"]
        metrics = {"epoch": float(number), **event["metrics"]}
        seen = len(trial.epochs) >= number
        if seen:  # repeated after a restart: decided before
            trial.epochs[number - 1], trial.scores[number - 1] = metrics, event["score"]
            trial.decision = "pause" if number == trial.pause_at else "continue"
        else:
            trial.epochs.append(metrics)
            trial.scores.append(event["score"])
            trial.tried.append(trial.parameters)
            trial.decision = self.scheduler.on_epoch(trial.number, number, event["score"])
            trial.pause_at = number if trial.decision == "pause" else 0
        if "gpu_memory_gb" in metrics:
            trial.peak_gpu_memory_gb = max(trial.peak_gpu_memory_gb or 0.0, metrics["gpu_memory_gb"])

    def _saved(self, trial: TrialRecord, event: Event) -> None:
        trial.checkpoint = (trial.number, event["checkpoint"], event["epoch"])

    def _waiting(self, trial: TrialRecord, event: Event) -> None:
        trial.phase = "waiting"
        self._rest(trial, event)

    def _lost(self, trial: TrialRecord, event: Event) -> None:
        """Its process or its node died; it goes on from its checkpoint."""
        trial.phase, trial.state = "pending", "running"
        trial.restarts += 1
        self._rest(trial, event)

    def _ordered(self, trial: TrialRecord, event: Event) -> None:
        """It waited and goes on, perhaps as another."""
        donor, parameters = event.get("donor"), event.get("parameters")
        trial.phase, trial.pause_at = "pending", 0
        if donor is not None:
            there = self.trials[donor]
            assert there.checkpoint is not None
            trial.parameters, trial.checkpoint = dict(event["parameters"]), there.checkpoint
        self.scheduler.obeyed(Order(trial.number, False, donor, parameters))

    def _ended(self, trial: TrialRecord, event: Event) -> None:
        self._rest(trial, event)
        trial.phase, trial.state, trial.reason = "ended", event["state"], event.get("reason")
        self.scheduler.ended(trial.number)
        self.searcher.tell(trial.number, None if trial.state == "failed" else trial.best)

    def _rest(self, trial: TrialRecord, event: Event) -> None:
        if trial.since:
            until: float = event["held_until"] if "held_until" in event else event["time"]  # its driver died before
            trial.seconds += until - trial.since
            trial.since = 0.0

    def best(self) -> TrialRecord | None:
        """The trial with the highest score; of equals, the first."""
        scored = [trial for trial in self.trials.values() if trial.best is not None and trial.state != "failed"]
        return max(scored, key=lambda trial: (trial.best, -trial.number), default=None)

    def as_trials(self, fixed: Mapping[str, Value], now: float) -> list[Trial]:
        """Plain values for tables and reports."""
        return [
            Trial(
                number=trial.number,
                parameters={**fixed, **trial.best_parameters},
                state=trial.state,
                reason=trial.reason,
                epochs=tuple(trial.epochs),
                score=trial.best,
                seconds=trial.seconds + (now - trial.since if trial.since else 0.0),
                restarts=trial.restarts,
                gpus=self.gpus,
                cpus=self.cpus,
                peak_gpu_memory_gb=trial.peak_gpu_memory_gb,
            )
            for trial in self.trials.values()
        ]


class SearchJournal:
    """``trials.jsonl``: appended to by the driver alone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Event]:
        """All events; a line that a kill cut short never happened."""
        if not self.path.is_file():
            return []
        events = []
        for line in self.path.read_bytes().splitlines(keepends=True):
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
        return events

    def open(self) -> None:
        """Begin to write, after a line that was cut short on a line of its own."""
        self._file = self.path.open("ab+")
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(size - 1, 0))
        if size and self._file.read(1) != b"\n":
            self._file.write(b"\n")

    def append(self, event: Event) -> None:
        """Write one event; it survives the death of this process, an important one that of the machine."""
        self._file.write(json.dumps(event).encode() + b"\n")
        self._file.flush()
        if event["kind"] in _IMPORTANT:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Stop writing."""
        self._file.close()
