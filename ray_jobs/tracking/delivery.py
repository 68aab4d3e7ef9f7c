"""From the spool to the server, each record once, however often this is interrupted.

In: a run folder with a spool, and an address. Out: the MLflow run, and a cursor that says how far it got.

Nothing here is assumed to have happened because it was asked for: the cursor moves only after the server confirmed,
and what was confirmed but not written down is found again. The run by its tag ``xray.run_uid``; metric points by
MLflow's primary key, which includes the timestamp that they carry from the spool; parameters by their name; artifacts
by their path; the data set by name and digest; the model and its version by the run they come from.
"""

import fcntl
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.errors import BadInput, TrackingError
from ray_jobs.tracking.addresses import is_server, redact
from ray_jobs.tracking.client import cause, connect, is_missing, is_refusal
from ray_jobs.tracking.registry import RegistryRequest, register_model
from ray_jobs.tracking.spool import CURSOR_NAME, REFUSED_NAME, Cursor, CursorFile, Record, read_spool, spool_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

RUN_UID_TAG = "xray.run_uid"
PARENT_TAG = "mlflow.parentRunId"
CHANGED_PARAM_TAG = "xray.changed."
DIGEST_LENGTH = 36  # MLflow's limit for a data set's digest

_BATCHED = frozenset({"params", "metrics", "tags"})
_RECORDS_PER_CALL = 200
_POINTS_PER_CALL = 1000  # MLflow's limit for one log_batch


class Delivery:
    """Sends one run's spool to one server. Not for two threads at once; two processes keep each other out."""

    def __init__(self, run_dir: Path, uri: str) -> None:
        """``uri`` may hold a password: it is used to connect and never written down."""
        self.sent: Counter[str] = Counter()
        self.refused = 0
        self._run_dir = run_dir
        self._spool = spool_path(run_dir)
        self._uri = uri
        self._server = redact(uri)
        self._cursors = CursorFile(self._spool.with_name(CURSOR_NAME))
        self._cursor = self._cursors.load(self._server)
        self._client: MlflowClient | None = None
        self._lock_file: int | None = None
        self._params: dict[str | None, dict[str, str]] = {}  # that a run has, by its child's name
        self._run_uid = ""

    @property
    def cursor(self) -> Cursor:
        """How far the server has confirmed; a copy."""
        return replace(self._cursor)

    def pending(self) -> int:
        """Records that the server has not confirmed yet."""
        return sum(1 for _ in read_spool(self._spool, self._cursor.offset))

    def send_pending(self) -> int:
        """Send everything that waits; return how many records that was.

        Raises whatever MLflow raises when the server fails; what was confirmed before stays confirmed. A record that
        the server refuses for good is set aside in ``refused.jsonl`` and said, so that it cannot hold up the others.
        """
        self._lock()
        if self._cursor.offset > self._spool.stat().st_size:
            self._cursor = Cursor()
        if next(read_spool(self._spool, self._cursor.offset), None) is None:
            return 0
        try:
            client = self._attach()
            before = self._cursor.records
            for group, end in _groups(read_spool(self._spool, self._cursor.offset)):
                self._send(client, group)
                self._cursor.offset = end
                self._cursor.records += len(group)
                self._cursors.save(self._server, self._cursor)
                self.sent.update(record["kind"] for record in group)
        except BaseException:
            self._client = None  # look for the run again next time: the server may come back without it
            raise
        return self._cursor.records - before

    def close(self) -> None:
        """Let other processes send."""
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _lock(self) -> None:
        if self._lock_file is not None:
            return
        file = os.open(self._spool.with_name("lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise TrackingError(f"{self._run_dir}: another process is sending this run; wait for it to end") from None
        self._lock_file = file

    def _attach(self) -> "MlflowClient":
        """Connect, and find or make the run; sends nothing when that was done before in this process."""
        if self._client is not None:
            return self._client
        start = self._start_record()
        self._run_uid = start["uid"]
        client = connect(self._uri)
        if self._cursor.run_id and not _run_exists(client, self._cursor.run_id):
            log.warning("run %s is gone from %s; sending all of it again", self._cursor.run_id, self._server)
            self._cursor = Cursor()
        if not self._cursor.run_id:
            self._cursor.experiment_id = _find_or_make_experiment(client, start, self._uri)
            self._cursor.run_id = self._find_or_make_run(client, start)
            self._cursors.save(self._server, self._cursor)
        self._params = {}
        self._client = client
        return client

    def _start_record(self) -> Record:
        first, _ = next(read_spool(self._spool), ({}, 0))
        if first.get("kind") != "start":
            raise BadInput(f"{self._spool}: does not begin with the start of a run; it cannot be sent")
        return first

    def _find_or_make_run(self, client: "MlflowClient", start: Record) -> str:
        uid = self._uid(start.get("child"))
        if found := self._runs_of(client, uid):
            return found[0].info.run_id
        made = client.create_run(
            self._cursor.experiment_id,
            start_time=start["time_ms"],
            tags=start["tags"] | {RUN_UID_TAG: uid},
            run_name=start["run_name"],
        )
        return made.info.run_id

    def _uid(self, child: str | None) -> str:
        return self._run_uid if child is None else f"{self._run_uid}/{child}"

    def _run_of(self, record: Record) -> str:
        """The id of the run that a record is for: this spool's own, or a child of it."""
        child = record.get("child")
        return self._cursor.children[child] if child is not None else self._cursor.run_id or ""

    def _runs_of(self, client: "MlflowClient", uid: str) -> list[Any]:
        """The run that carries this tag, and twins of it.

        A twin is made when a request that this side gave up on was carried out after all.
        """
        query = f"tags.`{RUN_UID_TAG}` = '{uid}'"
        runs = client.search_runs([self._cursor.experiment_id], filter_string=query, max_results=50)
        known = {self._cursor.run_id, *self._cursor.children.values()}
        return sorted(runs, key=lambda run: (run.info.run_id not in known, run.info.run_id))

    def _send(self, client: "MlflowClient", group: list[Record]) -> None:
        try:
            self._dispatch(client, group)
        except Exception as error:
            if not is_refusal(error):
                raise
            _check_run_is_active(client, self._cursor.run_id)
            if len(group) > 1:
                for record in group:
                    self._send(client, [record])
            else:
                self._set_aside(group[0], cause(error))

    def _set_aside(self, record: Record, reason: str) -> None:
        self.refused += 1
        log.warning("tracking: a record of kind %r was refused and set aside: %s", record["kind"], reason)
        with self._spool.with_name(REFUSED_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"reason": reason, "record": record}) + "\n")

    def _dispatch(self, client: "MlflowClient", group: list[Record]) -> None:
        kind = group[0]["kind"]
        if kind in _BATCHED:
            return self._log_batch(client, group)
        handler = getattr(self, f"_on_{kind}", None)
        if handler is None:
            raise BadInput(f"{self._spool}: unknown kind of record {kind!r}; it was written by a newer version")
        return handler(client, group[0])

    def _log_batch(self, client: "MlflowClient", group: list[Record]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [
            Metric(key, value, record["time_ms"], record["step"])
            for record in group
            if record["kind"] == "metrics"
            for key, value in record["values"].items()
        ]
        run_id, child = self._run_of(group[0]), group[0].get("child")
        if child not in self._params:
            self._params[child] = dict(client.get_run(run_id).data.params)
        params, tags = self._params[child].copy(), {}
        for record in group:
            if record["kind"] == "params":
                for key, value in record["values"].items():
                    if params.setdefault(key, value) != value:
                        tags[CHANGED_PARAM_TAG + key] = value  # MLflow's parameters are written once
            elif record["kind"] == "tags":
                tags |= record["values"]
        client.log_batch(
            run_id,
            metrics=metrics,
            params=[Param(key, value) for key, value in params.items() if key not in self._params[child]],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        self._params[child] = params

    def _on_start(self, client: "MlflowClient", record: Record) -> None:
        """Done by ``_attach``."""

    def _on_child(self, client: "MlflowClient", record: Record) -> None:
        tags = record["tags"] | {PARENT_TAG: self._cursor.run_id}
        self._cursor.children[record["child"]] = self._find_or_make_run(client, {**record, "tags": tags})

    def _on_resume(self, client: "MlflowClient", record: Record) -> None:
        client.update_run(self._run_of(record), status="RUNNING")

    def _on_artifact(self, client: "MlflowClient", record: Record) -> None:
        path = self._run_dir / record["path"]
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file any more")
        client.log_artifact(self._cursor.run_id, str(path), record["folder"] or None)

    def _on_dataset(self, client: "MlflowClient", record: Record) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=record["name"],
            digest=record["fingerprint"][:DIGEST_LENGTH],
            source_type="local",
            source=json.dumps({"uri": record["source"]}),
            profile=json.dumps({"fingerprint": record["fingerprint"], "counts": record["counts"]}),
        )
        tags = [InputTag("mlflow.data.context", "training")]
        client.log_inputs(self._cursor.run_id, datasets=[DatasetInput(dataset, tags)])

    def _on_register(self, client: "MlflowClient", record: Record) -> None:
        registered = register_model(
            client,
            self._cursor.run_id or "",
            RegistryRequest.from_record(record, self._run_dir),
            work_dir=self._spool.parent,
        )
        self._cursor.registered = registered.as_dict()

    def _on_finish(self, client: "MlflowClient", record: Record) -> None:
        client.set_terminated(self._run_of(record), record["status"], record["time_ms"])
        if "child" in record:
            return
        for twin in self._runs_of(client, self._run_uid)[1:]:
            client.delete_run(twin.info.run_id)


def _groups(records: Iterator[tuple[Record, int]]) -> Iterator[tuple[list[Record], int]]:
    """Neighbouring parameters, metrics and tags of one run together, all else alone, with the offset of its end."""
    group: list[Record] = []
    end = points = 0
    for record, record_end in records:
        size = len(record.get("values", ())) if record["kind"] in _BATCHED else _POINTS_PER_CALL
        other_run = bool(group) and group[-1].get("child") != record.get("child")
        if group and (other_run or points + size > _POINTS_PER_CALL or len(group) >= _RECORDS_PER_CALL):
            yield group, end
            group, points = [], 0
        group, end, points = [*group, record], record_end, points + size
    if group:
        yield group, end


def _run_exists(client: "MlflowClient", run_id: str) -> bool:
    try:
        _check_run_is_active(client, run_id)
    except Exception as error:
        if is_missing(error):
            return False
        raise
    return True


def _check_run_is_active(client: "MlflowClient", run_id: str | None) -> None:
    if client.get_run(run_id).info.lifecycle_stage != "active":
        raise TrackingError(f"run {run_id} was deleted on the server; restore it there, then send again")


def _find_or_make_experiment(client: "MlflowClient", start: Record, uri: str) -> str:
    name = start["experiment"]
    if found := client.get_experiment_by_name(name):
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"experiment {name!r} was deleted on the server; restore it there or choose another name"
            )
        return found.experiment_id
    location = None if is_server(uri) else Path(start["artifact_root"]).as_uri()
    try:
        return client.create_experiment(name, artifact_location=location)
    except Exception as error:  # somebody else made it just now
        if getattr(error, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_experiment_by_name(name).experiment_id
