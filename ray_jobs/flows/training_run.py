"""One training run from its checks to its summary; what ``ray_jobs.train`` runs, on a laptop and on a cluster.

In: settings and a free run folder. Out: ``runs/<run>/`` with weights, samples, plots and summary.json, and a run and a
registered model in MLflow. Every stage can be repeated: a run that was stopped goes on where its checkpoints end.
"""

import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from types import FrameType
from typing import Any

from ray_jobs.dataset.pictures import draw_sample_boxes
from ray_jobs.entry import how_to_run
from ray_jobs.errors import DamagedCheckpoint, PlatformError, RunExists, TrainingError
from ray_jobs.flows.assessment import Assessment, assess
from ray_jobs.flows.checkpoints import fetch_checkpoint
from ray_jobs.flows.display import Display
from ray_jobs.flows.journal import JournalReader, follow
from ray_jobs.flows.ownership import Lease, claim_storage
from ray_jobs.flows.preparation import Prepared
from ray_jobs.flows.recovery import repair_list
from ray_jobs.flows.report.run import write_run_report
from ray_jobs.flows.run_log import RunLog
from ray_jobs.flows.summary import make_summary, rounded, tracking_part
from ray_jobs.flows.trouble import EventSayer, RoomWatch, StoreWatch
from ray_jobs.flows.watch import Watch
from ray_jobs.storage import room_for

logger = logging.getLogger(__name__)


class Stopped(PlatformError):
    """The run was stopped by a signal and can be continued."""

    def __init__(self, number: signal.Signals, run: str, job: str = "train") -> None:
        self.exit_code = 128 + number
        super().__init__(f"stopped by {number.name}; go on with: {how_to_run(job)} --resume {run}")


def run_training(prepared: Prepared, display: Display, began: float) -> dict[str, Any]:
    """Train, assess, log and register; returns the summary. ``began``: Unix time of the command's start.

    Raises ``Stopped`` after SIGINT or SIGTERM, ``TrainingError`` or ``ExportError``; the run can be continued.
    """
    run = prepared.run.claim(prepared.settings, prepared.report.fingerprint)
    try:
        with stopped_by_signals(run.name), _driving(prepared) as lease, room_for(0, run.path):
            return _run_logged(prepared, lease, Watch(prepared, display, began), began)
    except BaseException as error:
        with suppress(OSError):  # a disk that is full is said already
            if run.state()["status"] != "finished":
                run.write_state(status="stopped" if isinstance(error, Stopped) else "failed")
        raise
    finally:
        run.release()


@contextmanager
def _driving(prepared: Prepared) -> Iterator[Lease | None]:
    """Hold the run's place in storage. In its own folder, which is locked, no other driver can be."""
    uid = prepared.run.state()["uid"]
    if prepared.settings.storage.url is None:
        claim_storage(prepared.storage, uid)
        yield None
        return
    lease = Lease(prepared.storage, uid)
    try:
        yield lease
    finally:
        lease.release()


def _run_logged(prepared: Prepared, lease: Lease | None, watch: Watch, began: float) -> dict[str, Any]:
    log: RunLog | None = None
    try:
        log = RunLog(prepared)
        return _run_stages(prepared, log, lease, watch, began)
    except BaseException as error:
        watch.failed(error, isinstance(error, Stopped))
        if log:
            log.stop("KILLED" if isinstance(error, Stopped) else "FAILED", error)
        raise


def _run_stages(prepared: Prepared, log: RunLog, lease: Lease | None, watch: Watch, began: float) -> dict[str, Any]:
    run = prepared.run
    shutil.copyfile(prepared.data_yaml, run.path / "data.yaml")
    draw_sample_boxes(prepared.report.index, "train", run.plots / "training_labels.jpg")
    journal = _train(prepared, log, lease, watch)
    trained = time.time()
    watch.stage("assess")
    assessment = assess(prepared.settings, prepared.report.index, run, watch.display)
    watch.assessed(assessment)
    watch.stage("log")
    summary = _log_everything(prepared, log, journal, assessment, {"began": began, "trained": trained})
    watch.finished(registered=summary["registry"] is not None)
    return summary


def _train(prepared: Prepared, log: RunLog, lease: Lease | None, watch: Watch) -> JournalReader:
    """Train to the end and bring the results home. Epochs are said and logged as they come."""
    from ray_jobs.flows.distributed import fit
    from ray_jobs.flows.worker import TrainingTask

    settings, run, say = prepared.settings, prepared.run, watch.display
    weights = prepared.weights.read_bytes() if prepared.weights else b""
    task = TrainingTask(settings, prepared.report.index, prepared.storage, weights, prepared.plan.cpus, run.name)
    reader = JournalReader(run.journal)
    for epoch in reader.read_new():  # a run that goes on: what an earlier driver may not have logged
        log.epoch(epoch)
    if reader.epochs:
        say(f"going on with {run.name} after epoch {reader.epochs[-1].number} of {settings.epochs}")
    say(f"training on {prepared.plan.describe()}; checkpoints go to {prepared.storage.url}; the workers are starting")
    watch.follow(reader, log)
    say_events = EventSayer(reader, settings.cluster, say, log.fault)
    watch_room = RoomWatch(reader, prepared.plan, settings.cluster, say)
    watch_store = StoreWatch(prepared.storage, say, log.fault)

    def on_turn() -> None:
        if reader.epochs:
            run.record_precision(settings, reader.epochs[0].precision)
        say_events()
        watch.events()
        watch_room()
        if lease and lease.lost_to:
            raise RunExists(f"{prepared.storage.url}: {lease.lost_to} has taken over this run; this driver stops")

    try:
        while True:
            result = _InBackground(lambda: fit(task, prepared.plan, run.journal))
            for epoch in follow(reader, partial(getattr, result, "running"), on_turn=on_turn):
                watch_store.heard()
                watch.epoch(epoch)
                log.epoch(epoch)
            trained = result.get()
            if not reader.epochs:
                raise TrainingError("training ended without a single epoch")
            try:
                _bring_home(prepared, trained.checkpoint)
            except DamagedCheckpoint as error:
                say(f"damaged checkpoint: {error}; the one before it is used")
                log.fault(str(error))
                repair_list(prepared.storage, drop_latest=True)
                continue
            return reader
    finally:
        watch_store.stop()


def _bring_home(prepared: Prepared, checkpoint: str) -> None:
    run = prepared.run
    wanted = {"best.pt": run.weights, "last.pt": run.weights, "results.csv": run.path}
    folder = run.path / ".fetched"
    fetch_checkpoint(prepared.storage, checkpoint, folder, only=tuple(wanted))
    for name, target in wanted.items():
        (folder / name).replace(target / name)
    shutil.rmtree(folder)


def _log_everything(
    prepared: Prepared, log: RunLog, journal: JournalReader, assessment: Assessment, times: dict[str, float]
) -> dict[str, Any]:
    """Write summary.json and log everything. From then on the run is finished, whatever the tracking server does."""
    started = time.perf_counter()
    log.results(assessment, journal)
    # A run that goes on has epochs from before this command; one that only had to be finished has no others.
    first_step = min((e.started for e in journal.epochs if e.started > times["began"]), default=times["trained"])
    timings = {
        "check": prepared.check_s,
        "startup": first_step - times["began"] - prepared.check_s,
        "train": times["trained"] - first_step,
        **assessment.seconds,
        "log": 0.0,
        "total": time.time() - times["began"],
    }
    summary = make_summary(prepared, journal, assessment, timings)
    prepared.run.write_summary(summary)
    _write_report(prepared, log, journal, assessment, summary)
    prepared.run.write_state(status="finished", finished=datetime.now(UTC).isoformat())
    summary |= tracking_part(log.finish())
    timings |= {"log": time.perf_counter() - started, "total": time.time() - times["began"]}
    summary["timings"] = rounded(timings)
    prepared.run.write_summary(summary)
    return summary


def _write_report(
    prepared: Prepared, log: RunLog, journal: JournalReader, assessment: Assessment, summary: dict[str, Any]
) -> None:
    try:
        page = write_run_report(prepared.run, prepared.settings, prepared.report.index, journal, assessment, summary)
    except Exception:  # whatever is wrong with a page, hours of training do not fail for it
        logger.exception("the report of %s could not be written", prepared.run.name)
    else:
        log.report(page)


class _InBackground:
    """A call in a thread of its own, so that signals reach the main thread at once."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(call,), name="training", daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self._value = call()
        except BaseException as error:  # raised again in the main thread
            self._error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def get(self) -> Any:
        self._thread.join()
        if self._error:
            raise self._error
        return self._value


@contextmanager
def stopped_by_signals(run: str, job: str = "train") -> Iterator[None]:
    """SIGINT and SIGTERM raise ``Stopped`` in the main thread, where nothing but waiting and logging happens."""

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of signal handlers
        raise Stopped(signal.Signals(number), run, job)

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM) if main}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
