"""What a search tells Prometheus, from its driver. The metrics are declared in ``telemetry``.

In: trials as they go. Out: values in a meter. No method blocks or raises.
"""

import math
import time
from collections.abc import Callable

from ray_jobs import telemetry as t
from ray_jobs.flows.measures import watch_tracking
from ray_jobs.flows.search.journal import TrialRecord
from ray_jobs.flows.search.trial import State
from ray_jobs.search.score import Score
from ray_jobs.tracking.null_tracker import TrackingFigures

STATES: tuple[State, ...] = ("pending", "running", "finished", "stopped", "failed")


class SearchMeasures:
    """One search. Trials are named by their number (``"00003"``), never by what they try."""

    def __init__(self, run: str, began: float, score: Score) -> None:
        """``run``: the search's name; ``began``: Unix time of the command's start."""
        self._score = score
        self._meter = t.open_meter(run=run)
        self._states: dict[str, State] = {}
        self._planned: dict[str, int] = {}
        self._epochs: dict[str, int] = {}
        self._best: float | None = None
        self._meter.set(t.RUN_START, began)
        self.stage("search")

    def stage(self, stage: str) -> None:
        """``search``, then ``finished``, ``failed`` or ``stopped``."""
        self._meter.forget(t.RUN_STAGE)
        self._meter.set(t.RUN_STAGE, 1, stage=stage)
        self._meter.set(t.STAGE_START, time.time(), stage=stage)

    def tracking(self, figures: Callable[[], TrackingFigures]) -> None:
        """Where to ask how tracking is doing, every few seconds."""
        watch_tracking(self._meter, figures)

    def record(self, trial: TrialRecord, planned_epochs: int) -> None:
        """What a search's journal says of a trial now."""
        name = f"{trial.number:05d}"
        self.trial(name, trial.state, planned_epochs)
        if trial.best is not None and math.isfinite(trial.best):
            self.result(name, len(trial.epochs), trial.best, trial.seconds)

    def trial(self, trial: str, state: State, planned_epochs: int) -> None:
        """A trial is in a state; ``planned_epochs`` is what it trains if nothing stops it."""
        self._states[trial], self._planned[trial] = state, planned_epochs
        for each in STATES:
            self._meter.set(t.TRIALS, sum(state == each for state in self._states.values()), state=each)
        self._count()

    def result(self, trial: str, epoch: int, best: float, seconds: float) -> None:
        """A trial has trained ``epoch`` epochs in ``seconds``; ``best`` is its best score so far, more is better."""
        self._epochs[trial] = epoch
        self._best = best if self._best is None else max(best, self._best)
        self._meter.set(t.TRIAL_EPOCH, epoch, trial=trial)
        self._meter.set(t.TRIAL_METRIC, self._score.value(best), trial=trial)
        self._meter.set(t.TRIAL_SECONDS, seconds, trial=trial)
        self._meter.set(t.SEARCH_BEST, self._score.value(self._best))
        self._count()

    def _count(self) -> None:
        stopped = [trial for trial, state in self._states.items() if state == "stopped"]
        saved = sum(self._planned[trial] - self._epochs.get(trial, 0) for trial in stopped)
        self._meter.set(t.SEARCH_EPOCHS, sum(self._epochs.values()))
        self._meter.set(t.SEARCH_EPOCHS_SAVED, saved)

    def close(self) -> None:
        """Hand over what is left."""
        self._meter.close()
