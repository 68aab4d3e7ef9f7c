"""The tracker that the driver holds: every call returns at once, whatever the tracking server does.

In: parameters, metrics, files, the data set, a model to register. Out: lines in the spool, and a thread that sends them
to MLflow while the run goes on. A server that fails or hangs is said once, with its cause and the command that sends
the rest later; it is tried again with growing pauses and never raises into training.

``open_tracker`` gives a ``Tracker``, or with ``uri="none"`` its twin that does nothing, ``NullTracker``.
"""

import getpass
import logging
import threading
import time
import traceback
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray_jobs.errors import RunExists
from ray_jobs.tracking.addresses import (
    TRACKING_OFF,
    open_command,
    redact,
    redact_value,
    resolve_uri,
    run_page,
)
from ray_jobs.tracking.child_tracker import ChildTracker, metric_name, now_ms, plain_tags
from ray_jobs.tracking.client import cause
from ray_jobs.tracking.delivery import Delivery
from ray_jobs.tracking.null_tracker import NullTracker, TrackingFigures, TrackingOutcome
from ray_jobs.tracking.registry import Registered, RegistryRequest
from ray_jobs.tracking.spool import Record, Spool, read_spool, spool_path
from ray_jobs.tracking.system import INTERVAL_S, SystemMetrics

log = logging.getLogger(__name__)

MAX_PARAM_LENGTH = 6000  # MLflow's limits, kept here so that what is sent twice is equal
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0


class Tracker:
    """One MLflow run, written to the spool by its methods and sent by a thread. Methods may be called from any thread.

    Nothing here raises because of the server, and a method takes well under a millisecond. A disk that is full is
    said once and counted.
    """

    def __init__(self, run_dir: Path, uri: str, start: Record, artifacts: bool = True) -> None:
        """Use ``open_tracker``. ``start`` begins a new spool and continues one that is there."""
        self._run_dir = run_dir.resolve()
        self._uri = uri
        self._artifacts = artifacts
        self._tags = start["tags"]
        self._spool = Spool(spool_path(self._run_dir))
        self._delivery = Delivery(self._run_dir, uri)
        self._points: dict[tuple[str | None, str, int], float] = {}  # by child, name and step
        self._children: dict[str, bool] = {}  # those in the spool, and whether they have ended
        self._system: SystemMetrics | None = None
        self._lost = self._late = 0
        self._error: str | None = None
        self._closing = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._drained = threading.Event()
        self._last_system_step = self._remember()
        continued = _has_records(self._spool.path)
        self._append({"kind": "resume", "time_ms": now_ms()} if continued else start)
        self._thread = threading.Thread(target=self._drain, name="tracking", daemon=True)
        self._thread.start()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Parameters; the first value of a name stays, as MLflow wants it, a later one becomes a tag."""
        values = {metric_name(key): redact_value(key, value)[:MAX_PARAM_LENGTH] for key, value in params.items()}
        self._append({"kind": "params", "values": values})

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Metric points at ``step`` (the epoch). Points that a repeated epoch reports again, equal, are sent once."""
        values = {metric_name(key): float(value) for key, value in metrics.items()}
        new = {key: value for key, value in values.items() if not _equal(self._points.get((None, key, step)), value)}
        self._points |= {(None, key, step): value for key, value in new.items()}
        if new:
            self._append({"kind": "metrics", "step": step, "time_ms": now_ms(), "values": new})

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """A file, or a folder with all that is in it now, under ``folder`` of the run's artifacts.

        Files are read when they are sent, so they must stay where they are.
        """
        if not self._artifacts:
            return
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            inner = Path(folder) / (file.parent.relative_to(path) if file != path else "")
            target = "" if inner == Path() else inner.as_posix()
            self._append({"kind": "artifact", "path": self._inside(file), "folder": target})

    def log_dataset(self, name: str, fingerprint: str, source: str, counts: Mapping[str, Any]) -> None:
        """The data set that was trained on; ``source`` is its folder, ``counts`` anything that JSON can hold."""
        record = {"name": name, "fingerprint": fingerprint, "source": redact(source), "counts": dict(counts)}
        self._append({"kind": "dataset", **record})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Tags; a later value replaces an earlier one."""
        self._append({"kind": "tags", "values": plain_tags(tags)})

    def register(self, request: RegistryRequest) -> None:
        """Register a model, after everything that was logged before."""
        if not self._artifacts:
            log.warning("tracking.artifacts is off: %r is not registered, a version needs its files", request.name)
            return
        words = {"tags": plain_tags(request.tags), "description": redact(request.description)}
        self._append({"kind": "register", **request.as_record(self._run_dir), **words})

    def child(self, name: str, run_name: str, params: Mapping[str, Any]) -> ChildTracker:
        """A run inside this one, begun where the spool does not have it yet; ``name`` is unique in this run."""
        if name not in self._children:
            start = {"run_name": run_name, "tags": self._tags, "time_ms": now_ms()}
            self._append({"kind": "child", "child": name, **start})
            values = {metric_name(key): redact_value(key, value)[:MAX_PARAM_LENGTH] for key, value in params.items()}
            self._append({"kind": "params", "child": name, "values": values})
            self._children[name] = False
        return ChildTracker(name, self._append, self._points, self._children)

    def watch_machine(self, interval_s: float = INTERVAL_S) -> None:
        """Log system metrics until ``finish``."""
        self._system = SystemMetrics(self._log_system, self._run_dir, interval_s)
        self._system.start(self._last_system_step + 1)

    def figures(self) -> TrackingFigures:
        """How delivery is doing, counted now: reads what waits in the spool."""
        cursor = self._delivery.cursor
        names = (cursor.experiment_id or "", cursor.run_id or "")
        return TrackingFigures(self._delivery.pending(), cursor.records, self._late, *names)

    def finish(self, status: str = "FINISHED", timeout_s: float = 60.0) -> TrackingOutcome:
        """End the run as FINISHED, FAILED or KILLED, and wait up to ``timeout_s`` for the server to have it all.

        A second call changes nothing and gives the first one's outcome.
        """
        if self._closing:
            return self._outcome()
        if self._system:
            self._system.stop()
        self._append({"kind": "finish", "status": status, "time_ms": now_ms()})
        self._closing = True
        self._wake.set()
        self._drained.wait(timeout_s)
        self._stop.set()
        self._wake.set()
        outcome = self._outcome()
        if outcome.pending:
            log.warning("tracking: %d records wait in %s; %s", outcome.pending, self._spool.path, self._remedy())
        return outcome

    def _append(self, record: Record) -> None:
        try:
            self._spool.append(record)
        except OSError as error:
            if not self._lost:
                log.error("tracking: cannot write %s: %s; what is logged from here on is lost", self._spool.path, error)
            self._lost += 1
        else:
            self._wake.set()

    def _drain(self) -> None:
        """The sending thread: everything that waits, then sleep until there is more or a failed try is due again."""
        pause: float | None = None
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            if self._stop.is_set():
                break
            closing = self._closing  # read before sending: what was appended before it was set is then sent as well
            try:
                self._spool.sync()
                sent = self._delivery.send_pending()
            except Exception as error:  # the boundary: no failure of tracking may reach training
                pause = self._after_failure(error, pause)
                continue
            if pause is not None:
                log.info("tracking: the server answers again; %d records sent", sent)
                self._late += sent
            pause, self._error = None, None
            if closing:
                break
        self._delivery.close()
        self._spool.close()
        self._drained.set()

    def _after_failure(self, error: Exception, pause: float | None) -> float:
        """Say the first failure of a series, wait, and return how long the wait was."""
        self._error = cause(error)
        if pause is None and not self._stop.is_set():
            log.warning(
                "tracking: %s fails: %s. The run goes on, everything is kept in %s and tried again; %s",
                redact(self._uri),
                self._error,
                self._spool.path,
                self._remedy(),
            )
            log.debug("tracking failed: %s", redact("".join(traceback.format_exception(error))))
        pause = FIRST_PAUSE_S if pause is None else min(2 * pause, LONGEST_PAUSE_S)
        until = time.monotonic() + (FIRST_PAUSE_S if self._closing else pause)
        was_closing = self._closing
        while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
            self._stop.wait(min(left, 0.2))
            if self._closing and not was_closing:  # somebody waits for the end: try at once
                break
        self._wake.set()
        return pause

    def _outcome(self) -> TrackingOutcome:
        cursor = self._delivery.cursor
        registered = cursor.registered
        pending = self._delivery.pending()
        return TrackingOutcome(
            run_id=cursor.run_id,
            url=run_page(self._uri, cursor.experiment_id, cursor.run_id),
            open_with=open_command(self._uri),
            pending=pending,
            refused=self._delivery.refused,
            lost=self._lost,
            registered=Registered(registered["name"], registered["version"], registered.get("alias"))
            if registered
            else None,
            error=self._error or (f"{redact(self._uri)} did not answer in time" if pending else None),
        )

    def _remedy(self) -> str:
        return f"to send it later: python -m ray_jobs.sync_tracking {self._run_dir}"

    def _log_system(self, values: dict[str, float], step: int) -> None:
        self._append({"kind": "metrics", "step": step, "time_ms": now_ms(), "values": values})

    def _inside(self, path: Path) -> str:
        """Relative to the run where it lies in it, so that a run's folder may be moved before it is sent."""
        path = path.resolve()
        return str(path.relative_to(self._run_dir) if path.is_relative_to(self._run_dir) else path)

    def _remember(self) -> int:
        """Learn the points that are in the spool already; return the last step of the system metrics, or -1."""
        last = -1
        for record, _ in read_spool(self._spool.path):
            child = record.get("child")
            if child is not None and record["kind"] in ("child", "resume", "finish"):
                self._children[child] = record["kind"] == "finish"
            elif record["kind"] == "metrics":
                for key, value in record["values"].items():
                    if key.startswith("system/"):
                        last = max(last, record["step"])
                    else:
                        self._points[child, key, record["step"]] = value
        return last


def open_tracker(
    run_dir: Path,
    run_name: str,
    *,
    uri: str | None = None,
    experiment: str = "xray-detector",
    output_dir: Path | None = None,
    tags: Mapping[str, Any] | None = None,
    artifacts: bool = True,
    resume: bool = False,
    system_interval_s: float | None = INTERVAL_S,
) -> Tracker | NullTracker:
    """Begin to track a run, or with ``resume`` go on with the one that ``run_dir`` holds.

    ``uri``: None is ``MLFLOW_TRACKING_URI``, else a SQLite file in ``output_dir`` (the parent of ``run_dir`` unless
    given), where artifacts go to ``mlartifacts`` beside it; "none" is no tracking. ``artifacts=False`` logs no files
    and registers nothing. ``system_interval_s`` is the pause between system metrics, None for none.
    Asks nothing of the network. Raises RunExists for a run that is there without ``resume``, SettingsError for an
    address that cannot be one, OSError for a folder that cannot be written.
    """
    if uri in TRACKING_OFF:
        return NullTracker()
    output_dir = (output_dir or run_dir.parent).resolve()
    address = resolve_uri(uri, output_dir)
    if not resume and _has_records(spool_path(run_dir)):
        raise RunExists(f"{run_dir}: a run is tracked here already; continue it or choose another name")
    start: Record = {
        "kind": "start",
        "uid": uuid.uuid4().hex,
        "run_name": run_name,
        "experiment": experiment,
        "uri": redact(address),
        "artifact_root": str(output_dir / "mlartifacts"),
        "time_ms": now_ms(),
        "tags": _standard_tags() | plain_tags(tags or {}),
    }
    tracker = Tracker(run_dir, address, start, artifacts)
    if system_interval_s is not None:
        tracker.watch_machine(system_interval_s)
    return tracker


def _has_records(spool: Path) -> bool:
    return spool.exists() and next(read_spool(spool), None) is not None


def _standard_tags() -> dict[str, str]:
    """What MLflow's page shows of every run."""
    return {"mlflow.user": _user(), "mlflow.source.name": "ray_jobs.train", "mlflow.source.type": "JOB"}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return "unknown"


def _equal(known: float | None, value: float) -> bool:
    return known is not None and (known == value or (known != known and value != value))
