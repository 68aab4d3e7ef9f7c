"""One search from its checks to its best configuration; what ``ray_jobs.tune`` runs, on a laptop and on a cluster.

In: a prepared search. Out: ``runs/<run>/`` with every trial, ``best_config.yaml`` and ``summary.json``. A search that
was stopped goes on where its journal ends.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray_jobs.errors import BadInput
from ray_jobs.flows.search.best_training import train_best
from ray_jobs.flows.search.journal import Event, SearchJournal, SearchState, TrialRecord
from ray_jobs.flows.search.log import SearchLog
from ray_jobs.flows.search.loop import Rules, Search
from ray_jobs.flows.search.measures import SearchMeasures
from ray_jobs.flows.search.preflight import preflight, preflight_tasks
from ray_jobs.flows.search.preparation import PreparedSearch, Say, make_scheduler, make_searcher
from ray_jobs.flows.search.result import best_trial, make_summary, write_best_config, write_report, write_table
from ray_jobs.flows.search.slots import Slot
from ray_jobs.flows.search.table import SearchTable
from ray_jobs.flows.search.worker import TrainingObjective, TrialTask
from ray_jobs.flows.summary import tracking_part
from ray_jobs.flows.training_run import Stopped, stopped_by_signals
from ray_jobs.search.schedulers import NoScheduler
from ray_jobs.search.score import DEFAULT_GAINS, Score
from ray_jobs.search.searchers import RandomSearcher
from ray_jobs.search.settings import trial_settings
from ray_jobs.storage import Storage, open_storage

NOTE_S = 5.0
START_S = 60.0  # a process takes its time on a busy node, where there is room for it


def run_search(prepared: PreparedSearch, say: Say, terminal: bool) -> dict[str, Any]:
    """Search to the end; returns the summary.

    Raises ``Stopped`` after SIGINT or SIGTERM; the search can be continued.
    """
    folder = prepared.folder
    if done := _finished(prepared):
        say(f"{folder.name} is finished")
        return done
    state = folder.begin(prepared.search, prepared.settings, prepared.report.fingerprint)
    try:
        with stopped_by_signals(folder.name, "tune"):
            return _run(prepared, say, terminal, state)
    except BaseException as error:
        if isinstance(error, BadInput):
            folder.discard()  # no trial ever began
        elif folder.state()["status"] != "finished":
            folder.write_state(status="stopped" if isinstance(error, Stopped) else "failed")
        raise
    finally:
        folder.release()


def _finished(prepared: PreparedSearch) -> dict[str, Any] | None:
    """The summary of a search that is finished and was not asked for more trials."""
    folder = prepared.folder
    if not folder.exists or folder.state()["status"] != "finished":
        return None
    summary: dict[str, Any] = json.loads(folder.summary.read_text(encoding="utf-8"))
    return summary if summary["trials"] >= prepared.samples else None


def run_best_training(prepared: PreparedSearch, summary: dict[str, Any], say: Say) -> dict[str, Any]:
    """Train with the best settings and with the defaults; returns the summary with their comparison in it."""
    trained = train_best(prepared, say)
    summary["trained"] = trained.as_dict()
    prepared.folder.write_summary(summary)
    state = SearchState(NoScheduler(), RandomSearcher(prepared.space, 0), prepared.plan.cpus, prepared.plan.gpus)
    for event in SearchJournal(prepared.folder.journal).read():
        state.apply(event, replayed=True)
    trials = state.as_trials(prepared.space.fixed, 0.0)
    write_report(prepared, trials, summary["seconds"], trained.comparison)
    return summary


def _run(prepared: PreparedSearch, say: Say, terminal: bool, before: Mapping[str, Any]) -> dict[str, Any]:
    began, folder, search = time.time(), prepared.folder, prepared.search
    spent = float(before.get("seconds", 0.0))
    shutil.copyfile(prepared.data_yaml, folder.path / "data.yaml")
    journal = SearchJournal(folder.journal)
    state = SearchState(
        make_scheduler(search, prepared.space, prepared.samples),
        make_searcher(search, prepared.space, prepared.earlier),
        prepared.plan.cpus * prepared.plan.workers,
        prepared.plan.gpus * prepared.plan.workers,
    )
    log = SearchLog(prepared, state)
    for event in journal.read():
        state.apply(event, replayed=True)
        log.event(event, replayed=True)
    if state.trials:
        ended = sum(trial.phase == "ended" for trial in state.trials.values())
        say(f"going on with {folder.name}: {ended} of {prepared.samples} trials ended before")
    journal.open()
    try:
        _search(prepared, say, terminal, state, journal, log, began - spent)
        return _conclude(prepared, state, log, spent + time.time() - began)
    except BaseException as error:
        log.stop("KILLED" if isinstance(error, Stopped) else "FAILED", error)
        raise
    finally:
        journal.close()
        folder.write_state(seconds=spent + time.time() - began)


def _conclude(prepared: PreparedSearch, state: SearchState, log: SearchLog, seconds: float) -> dict[str, Any]:
    """Write what came out. From then on the search is finished, whatever the tracking server does."""
    folder = prepared.folder
    trials = state.as_trials(prepared.space.fixed, time.time())
    write_table(prepared, trials)
    best = best_trial(trials)
    write_best_config(prepared, best)
    summary = make_summary(prepared, trials, best, seconds)
    folder.write_summary(summary)
    report = write_report(prepared, trials, seconds)
    folder.write_state(status="finished")
    files = [
        report,
        folder.best_config,
        folder.table,
        folder.search_settings,
        folder.settings,
        folder.path / "data.yaml",
    ]
    summary |= tracking_part(log.finish(summary, files))
    folder.write_summary(summary)
    return summary


def _search(
    prepared: PreparedSearch,
    say: Say,
    terminal: bool,
    state: SearchState,
    journal: SearchJournal,
    log: SearchLog,
    began: float,
) -> None:
    import ray

    search = prepared.search
    wait_s = prepared.settings.cluster.wait_s + START_S
    score = Score(search.metric, search.mode)
    rules = Rules(
        samples=prepared.samples,
        deadline=began + search.budget.hours * 3600 if search.budget.hours else None,
        max_failures=search.max_failures,
        checkpoint_s=None if search.scheduler.name == "pbt" else search.checkpoint_s,
        wait_s=wait_s,
    )
    if len(state.trials) >= prepared.samples and all(trial.phase == "ended" for trial in state.trials.values()):
        return
    objective = ray.put(TrainingObjective(prepared.report.index, prepared.weights))
    slots = [Slot(prepared.plan, objective) for _ in range(prepared.plan.count)]
    say(f"{prepared.samples} trials of up to {search.budget.epochs} epochs; {prepared.plan.describe()}")
    try:
        if not state.trials:
            say("trying one batch of each picture size and batch size")
            preflight(slots, preflight_tasks(prepared), wait_s)
        table = SearchTable(state, score, prepared.samples, search.budget.epochs, say, terminal)
        trials, noted = Trials(prepared, score), time.time()
        measures = SearchMeasures(prepared.folder.name, began)
        for trial in state.trials.values():
            measures.record(trial, search.budget.epochs)

        def on_event(event: Event) -> None:
            table.on_event(event)
            log.event(event)
            measures.record(state.trials[event["trial"]], search.budget.epochs)
            needed = {
                trial.checkpoint[0] for trial in state.trials.values() if trial.checkpoint and trial.phase != "ended"
            }
            if event["kind"] == "ended" and event["trial"] not in needed:
                trials.forget(event["trial"])

        def on_tick() -> None:
            nonlocal noted
            table.on_tick()
            if time.time() - noted > NOTE_S:
                noted = time.time()
                prepared.folder.write_state(seconds=noted - began)  # a driver that is killed has no other chance

        try:
            Search(state, journal, slots, rules, trials.task, trials.score, on_event, on_tick).run()
            measures.stage("finished")
        finally:
            table.close()
            measures.close()
        for number in state.trials:
            trials.forget(number)  # what an earlier driver, or one that took over another's weights, left
    finally:
        for slot in slots:
            slot.stop()


class Trials:
    """What a trial trains, where its checkpoints go, and how its epochs are scored."""

    def __init__(self, prepared: PreparedSearch, score: Score) -> None:
        self.prepared, self._score = prepared, score

    def task(self, trial: TrialRecord) -> TrialTask:
        """What a slot is told to run, from the trial's last checkpoint on."""
        prepared = self.prepared
        settings = trial_settings(prepared.settings, prepared.search, {**prepared.space.fixed, **trial.parameters})
        start = (self.place(trial.checkpoint[0]), trial.checkpoint[1]) if trial.checkpoint else None
        return TrialTask(trial.number, settings, self.place(trial.number), start, trial.carried)

    def score(self, trial: TrialRecord, metrics: Mapping[str, float]) -> float:
        """The score of an epoch of a trial with its own loss gains."""
        values = {**self.prepared.space.fixed, **trial.parameters}
        gains = {name: float(values.get(name, getattr(self.prepared.settings, name))) for name in DEFAULT_GAINS}
        return self._score.of(metrics, gains)

    def place(self, number: int) -> Storage:
        """A trial's own place for checkpoints."""
        folder = self.prepared.folder.path / "trials" / f"{number:04d}"
        url = self.prepared.settings.storage.url
        named = f"{url.rstrip('/')}/{self.prepared.folder.name}/trials/{number:04d}" if url else None
        return open_storage(named, folder)

    def forget(self, number: int) -> None:
        """Remove the checkpoints of a trial that ended: nobody goes on from them."""
        path, filesystem = self.place(number).ray_location()
        if filesystem is None:
            shutil.rmtree(Path(path), ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # it saved none, or the store is away: what stays harms nobody
                filesystem.delete_dir(path)
