"""Everything that is checked before a GPU is taken: data, weights, storage, tracking, the run's name, the cluster.

In: settings. Out: ``Prepared``, or an error with all that is wrong. Nothing of a run exists yet when it is raised.
"""

import importlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ray_jobs.dataset.check import check_dataset
from ray_jobs.dataset.description import DataDescription
from ray_jobs.dataset.report import DatasetReport
from ray_jobs.dataset.source import describe_data
from ray_jobs.dataset.table import print_report
from ray_jobs.detector.weights import resolve_weights
from ray_jobs.errors import DataError, TrackingError
from ray_jobs.flows.ray_cluster import (
    WorkerPlan,
    check_batch,
    cluster_address,
    connect,
    prepare_environment,
    wait_for_workers,
    wanted_workers,
)
from ray_jobs.flows.run_folder import RunFolder
from ray_jobs.settings import Settings
from ray_jobs.storage import FolderStorage, Patience, Storage, open_storage
from ray_jobs.tracking.addresses import TRACKING_OFF, redact, resolve_uri
from ray_jobs.tracking.client import probe


@dataclass(frozen=True)
class Prepared:
    """A run that can start. ``weights`` None: from scratch. ``check_s``: seconds that the data check took."""

    settings: Settings
    run: RunFolder
    data_yaml: Path
    report: DatasetReport
    weights: Path | None
    storage: Storage
    plan: WorkerPlan
    check_s: float


def prepare(settings: Settings, run: RunFolder, say: Callable[[str], None]) -> Prepared:
    """Check everything a run needs and join the cluster. Raises the errors of ``ray_jobs.errors``."""
    for warning in settings.warnings():
        say(f"warning: {warning}")
    if "working_dir_files" in str(run.path):
        say(f"warning: {run.path} lies in Ray's copy of the uploaded folder and goes with it; set another output_dir")
    run.check_free(settings)
    if workers := wanted_workers(settings):
        check_batch(settings.batch_size, *workers)
    weights = resolve_weights(settings)
    if not run.exists:
        say(f"starting weights: {weights or 'none, from scratch'}")
    storage = probe_storage(settings, run)
    started = time.perf_counter()
    description = describe_data(find_data(settings), settings.storage.data_cache, say)
    report = check_data(settings, description)
    check_s = time.perf_counter() - started
    run.check_free(settings, report.fingerprint)
    if settings.tracking.uri not in TRACKING_OFF:
        resolve_uri(settings.tracking.uri, run.path.parent)
    prepare_environment(settings.cluster)
    address = cluster_address(settings.cluster)
    say(f"joining the Ray cluster at {address}" if address else "starting Ray on this machine, for this run alone")
    threading.Thread(target=_import_ahead, args=(address is None,)).start()
    connect(settings)
    plan = wait_for_workers(settings, say)
    return Prepared(settings, run, description.yaml_path, report, weights, storage, plan, check_s)


def _import_ahead(ray_starts: bool) -> None:
    """Import what the driver needs next, seconds in which it would only wait for Ray's own processes.

    Where Ray starts here, what it imports for that comes first: both threads share one interpreter.
    """
    if ray_starts:
        importlib.import_module("ray.dashboard.optional_deps")
    importlib.import_module("ray_jobs.flows.lean_trainer")  # Ray Train and PyTorch


def find_data(settings: Settings) -> str:
    """The data.yaml of the settings, a path or ``s3://...``. Raises ``DataError`` where none is named."""
    if settings.data:
        return settings.data
    if settings.yolo_data_dir:
        return f"{settings.yolo_data_dir.rstrip('/')}/data.yaml"
    raise DataError("no data set: give --data PATH/data.yaml, or set data or yolo_data_dir in the settings")


def check_data(settings: Settings, description: DataDescription) -> DatasetReport:
    """Check the data set and print what was found. Raises ``DataError`` for what cannot be trained on."""
    check = settings.data_check
    report = check_dataset(description, patient_id_pattern=check.patient_id_pattern, allow=check.allow)
    report.raise_for_errors()
    print_report(report)
    if settings.single_cls:
        return replace(report, index=report.index.as_one_class())
    return report


def probe_storage(settings: Settings, run: RunFolder) -> Storage:
    """The run's own place for checkpoints, after a small file was written there, read back and deleted."""
    if settings.storage.url is None:
        FolderStorage(run.path.parent).probe()
        return FolderStorage(run.path)
    open_storage(settings.storage.url, run.path).probe()
    patience = Patience(settings.storage.patience_s)
    return open_storage(f"{settings.storage.url.rstrip('/')}/{run.name}", run.path, patience)


def describe_plan(prepared: Prepared) -> list[str]:
    """What a run would do, one line each; asks the tracking server whether it is there."""
    settings = prepared.settings
    return [
        f"would train {settings.model_name} for {settings.epochs} epochs on {prepared.plan.describe()}, "
        f"{settings.img_size} px, batch {settings.batch_size}, seed {settings.seed}",
        f"would write {prepared.run.path}, checkpoints to {prepared.storage.url}",
        _describe_tracking(prepared),
    ]


def _describe_tracking(prepared: Prepared) -> str:
    tracking = prepared.settings.tracking
    if tracking.uri in TRACKING_OFF:
        return "would not track"
    uri = resolve_uri(tracking.uri, prepared.run.path.parent)
    model = f", register {tracking.registry}@{tracking.alias}" if tracking.registry else ""
    try:
        probe(uri)
    except TrackingError as error:
        return f"warning: {error}; the run would go on, keep everything, and python -m ray_jobs.sync_tracking sends it"
    return f"would log to {redact(uri)}, experiment {tracking.experiment}{model}"
