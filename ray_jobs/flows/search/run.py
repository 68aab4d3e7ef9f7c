"""One search from its checks to its best configuration; what ``ray_jobs.tune`` runs, on a laptop and on a cluster.

In: a prepared search. Out: ``runs/<run>/`` with every trial, ``best_config.yaml`` and ``summary.json``. A search that
was stopped goes on where its journal ends.
"""

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray_jobs.detector.bootstrap import Comparison
from ray_jobs.errors import BadInput, PlatformError, RunExists
from ray_jobs.flows.ownership import Lease
from ray_jobs.flows.search.best_training import train_best
from ray_jobs.flows.search.journal import Event, SearchJournal, SearchState, TrialRecord
from ray_jobs.flows.search.log import SearchLog, log_again
from ray_jobs.flows.search.loop import Rules, Search
from ray_jobs.flows.search.measures import SearchMeasures
from ray_jobs.flows.search.preflight import preflight, preflight_tasks
from ray_jobs.flows.search.preparation import PreparedSearch, Say, make_scheduler, make_searcher
from ray_jobs.flows.search.result import best_trial, make_summary, write_best_config, write_report, write_table
from ray_jobs.flows.search.slots import Slot
from ray_jobs.flows.search.table import SearchTable
from ray_jobs.flows.search.trial import Trial
from ray_jobs.flows.search.worker import TrainingObjective, TrialTask, mark_shared
from ray_jobs.flows.summary import tracking_part
from ray_jobs.flows.training_run import Stopped, stopped_by_signals
from ray_jobs.search.schedulers import NoScheduler
from ray_jobs.search.score import DEFAULT_GAINS, Score
from ray_jobs.search.searchers import RandomSearcher
from ray_jobs.search.settings import trial_settings
from ray_jobs.storage import Patience, Storage, open_storage, room_for

logger = logging.getLogger(__name__)

NOTE_S = 5.0
START_S = 60.0  # a process takes its time on a busy node, where there is room for it


def run_search(prepared: PreparedSearch, say: Say, terminal: bool, began: float) -> dict[str, Any]:
    """Search to the end; returns the summary. ``began``: Unix time of the command's start.

    Raises ``Stopped`` after SIGINT or SIGTERM; the search can be continued.
    """
    folder = prepared.folder
    if done := _finished(prepared):
        say(f"{folder.name} is finished")
        return done
    state = folder.begin(prepared.search, prepared.settings, prepared.report.fingerprint)
    try:
        score = Score(prepared.search.metric, prepared.search.mode)
        measuring = contextlib.closing(SearchMeasures(folder.name, began, score))
        with stopped_by_signals(folder.name, "tune"), room_for(0, folder.path), measuring as measures:
            return _run(prepared, say, terminal, state, measures)
    except BaseException as error:
        if isinstance(error, BadInput):
            folder.discard()
        with contextlib.suppress(OSError):  # a disk that is full is said already
            if folder.exists and folder.state()["status"] != "finished":
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
    trained = train_best(prepared, summary["best"]["trial"], say)
    summary["trained"] = trained.as_dict()
    prepared.folder.write_summary(summary)
    state = SearchState(NoScheduler(), RandomSearcher(prepared.space, 0), prepared.plan.cpus, prepared.plan.gpus)
    for event in SearchJournal(prepared.folder.journal).read():
        state.apply(event, replayed=True)
    trials = state.as_trials(prepared.space.fixed, 0.0)
    for page in _write_report(prepared, trials, summary["seconds"], trained.comparison):
        log_again(prepared, page)
    return summary


def _run(
    prepared: PreparedSearch, say: Say, terminal: bool, before: Mapping[str, Any], measures: SearchMeasures
) -> dict[str, Any]:
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
    measures.tracking(log.figures)
    for event in journal.read():
        state.apply(event, replayed=True)
        log.event(event, replayed=True)
    if state.trials:
        ended = sum(trial.phase == "ended" for trial in state.trials.values())
        say(f"going on with {folder.name}: {ended} of {prepared.samples} trials ended before")
    journal.open()
    try:
        _search(prepared, say, terminal, state, journal, log, measures, began - spent)
        summary = _conclude(prepared, state, log, spent + time.time() - began)
        measures.stage("finished")
        return summary
    except BaseException as error:
        measures.stage("stopped" if isinstance(error, Stopped) else "failed")
        log.stop("KILLED" if isinstance(error, Stopped) else "FAILED", error)
        raise
    finally:
        with contextlib.suppress(OSError):
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
    report = _write_report(prepared, trials, seconds)
    folder.write_state(status="finished")
    files = [
        *report,
        folder.best_config,
        folder.table,
        folder.search_settings,
        folder.settings,
        folder.path / "data.yaml",
    ]
    summary |= tracking_part(log.finish(summary, files))
    folder.write_summary(summary)
    return summary


def _write_report(
    prepared: PreparedSearch, trials: Sequence[Trial], seconds: float, comparison: Comparison | None = None
) -> list[Path]:
    """The report, or nothing: whatever is wrong with a page, a search does not fail for it."""
    try:
        return [write_report(prepared, trials, seconds, comparison)]
    except Exception:
        logger.exception("the report of %s could not be written", prepared.folder.name)
        return []


@contextlib.contextmanager
def _holding_storage(prepared: PreparedSearch) -> Iterator[Lease | None]:
    """Hold the search's place in a storage of its own. In its own folder, which is locked, no other driver can be."""
    if prepared.settings.storage.url is None:
        yield None
        return
    lease = Lease(prepared.storage, prepared.folder.state()["uid"])
    try:
        yield lease
    finally:
        lease.release()


def _search(
    prepared: PreparedSearch,
    say: Say,
    terminal: bool,
    state: SearchState,
    journal: SearchJournal,
    log: SearchLog,
    measures: SearchMeasures,
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
    mark_shared(prepared.storage)
    objective = ray.put(TrainingObjective(prepared.report.index, prepared.weights))
    slots = [Slot(prepared.plan, objective) for _ in range(prepared.plan.count)]
    say(f"{prepared.samples} trials of up to {search.budget.epochs} epochs; {prepared.plan.describe()}")
    try:
        if not state.trials:
            say("trying one batch of each picture size and batch size")
            preflight(slots, preflight_tasks(prepared), wait_s)
        table = SearchTable(state, score, prepared.samples, search.budget.epochs, say, terminal)
        trials, noted = Trials(prepared, score), time.time()
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
            if lease and lease.lost_to:
                raise RunExists(f"{prepared.storage.url}: {lease.lost_to} has taken over this search; this one stops")
            if time.time() - noted > NOTE_S:
                noted = time.time()
                prepared.folder.write_state(seconds=noted - began)  # a driver that is killed has no other chance

        with contextlib.closing(table), _holding_storage(prepared) as lease:
            Search(state, journal, slots, rules, trials.task, trials.score, on_event, on_tick).run()
            trials.forget(*state.trials)  # what an earlier driver, or one that took over another's weights, left
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

    def place(self, number: int, patience_s: float | None = None) -> Storage:
        """A trial's own place for checkpoints; ``patience_s`` None: as long as the settings say."""
        folder = self.prepared.folder.path / "trials" / f"{number:04d}"
        url, wanted_s = self.prepared.settings.storage.url, self.prepared.settings.storage.patience_s
        named = f"{url.rstrip('/')}/{self.prepared.folder.name}/trials/{number:04d}" if url else None
        return open_storage(named, folder, Patience(wanted_s if patience_s is None else patience_s))

    def forget(self, *numbers: int) -> None:
        """Remove the checkpoints of trials that ended: nobody goes on from them.

        A store that is away is not waited for, in the search's own loop: what stays harms nobody.
        """
        with contextlib.suppress(OSError, PlatformError):
            for number in numbers:
                path, filesystem = self.place(number, patience_s=0.0).ray_location()
                if filesystem is None:
                    shutil.rmtree(Path(path), ignore_errors=True)
                else:
                    filesystem.delete_dir(path)
