"""Every metric of the platform, declared once, and the way of its values to Prometheus.

In: values from rooms and flows, through a ``Meter``. Out: ``ray_<name>`` on the metrics port of every Ray node, with
the labels declared here and those that Ray adds (``WorkerId`` and ``SessionName`` change with every restart, so
queries aggregate them away: ``max by (run, rank) (...)``).

Two habits of Ray 2.60 shape the meter. A gauge that is not set again within two report intervals (20 s) is dropped,
even while its process lives; so a thread of the meter sets every gauge again each second. Counters of dead processes
stay until their node ends; so what a worker counts is a gauge, and counters belong to the driver.
The thread also keeps Ray off the training thread: to set a value is to write into a dictionary. Where there is no Ray,
``open_meter`` gives a twin that does nothing.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

logger = logging.getLogger(__name__)

REFRESH_S = 1.0  # Ray reports every 10 s, never more often than each second, and forgets gauges after two reports
WATCH_S = 5.0

Stage = Literal[
    "run", "training", "checkpoints", "tuning", "data", "tracking", "faults", "registry", "reading", "cluster"
]


@dataclass(frozen=True)
class Metric:
    """Labels are few and bounded: never a file, an image or a patient. ``exporter``: whose endpoint it is found at."""

    name: str
    kind: Literal["gauge", "counter"]
    unit: str
    labels: tuple[str, ...]
    help: str
    stage: Stage
    exporter: Literal["ray", "probe"] = "ray"

    @property
    def series(self) -> str:
        """The name in Prometheus."""
        return f"ray_{self.name}" if self.exporter == "ray" else self.name


def _gauge(stage: Stage, name: str, unit: str, help: str, *labels: str) -> Metric:
    return Metric(f"xray_{name}", "gauge", unit, labels or ("run",), help, stage)


def _counter(stage: Stage, name: str, unit: str, help: str, *labels: str) -> Metric:
    return Metric(f"xray_{name}_total", "counter", unit, labels or ("run",), help, stage)


# The run, from its driver. Stages: start, train, assess, log, search, finished, failed, stopped.
RUN_STAGE = _gauge("run", "run_stage", "bool", "1 for the stage it is in now, 0 for those it left.", "run", "stage")
RUN_INFO = _gauge(
    "run", "run_info", "1", "Where to find it elsewhere.", "run", "ray_job", "mlflow_experiment", "mlflow_run"
)
RUN_START = _gauge("run", "run_start_timestamp_seconds", "seconds", "Unix time at which this command began.")
STAGE_START = _gauge(
    "run", "stage_start_timestamp_seconds", "seconds", "Unix time at which each stage began.", "run", "stage"
)

# Training, from the driver, after every epoch.
EPOCHS_PLANNED = _gauge("training", "epochs_planned", "epochs", "Epochs that the run was asked for.")
EPOCH = _gauge("training", "epoch", "epochs", "Epochs that are finished.")
EPOCH_SECONDS = _gauge("training", "epoch_seconds", "seconds", "What the last epoch took, validation included.")
VALIDATION_SECONDS = _gauge("training", "validation_seconds", "seconds", "What the last validation took.")
TRAIN_LOSS = _gauge("training", "train_loss", "loss", "Mean training loss of the last epoch, by part.", "run", "loss")
VAL_LOSS = _gauge("training", "val_loss", "loss", "Validation loss of the last epoch, by part.", "run", "loss")
VAL_MAP50 = _gauge("training", "val_map50", "ratio", "Validation mAP at an IoU of 0.5.")
VAL_MAP50_95 = _gauge("training", "val_map50_95", "ratio", "Validation mAP over IoUs from 0.5 to 0.95.")
VAL_PRECISION = _gauge("training", "val_precision", "ratio", "Validation precision.")
VAL_RECALL = _gauge("training", "val_recall", "ratio", "Validation recall.")
BEST_MAP50_95 = _gauge("training", "best_map50_95", "ratio", "Validation mAP50-95 of the best epoch so far.")
BEST_EPOCH = _gauge("training", "best_epoch", "epochs", "The epoch whose weights are best.pt so far.")
LEARNING_RATE = _gauge("training", "learning_rate", "1", "Learning rate of the first parameter group.")
IMAGES_PER_SECOND = _gauge("training", "images_per_second", "images/s", "Training speed over all ranks, last epoch.")
TEST_MAP50 = _gauge("training", "test_map50", "ratio", "mAP50 of the best weights on the split they are tested on.")

# Training, from every rank.
RANK_UP = _gauge("training", "rank_up", "bool", "1 while this rank trains.", "run", "rank")
STEP = _gauge("training", "step", "steps", "Batches done since the run began.", "run", "rank")
LAST_STEP = _gauge(
    "training", "last_step_timestamp_seconds", "seconds", "Unix time of the last batch seen.", "run", "rank"
)
STEP_LOSS = _gauge("training", "step_loss", "loss", "Mean loss of the epoch so far.", "run", "rank")
LOSS_FINITE = _gauge("training", "loss_finite", "bool", "0 once a loss was not a number.", "run", "rank")
DATA_WAIT_SECONDS = _gauge(
    "training", "data_wait_seconds", "seconds", "Waited for batches in the last epoch.", "run", "rank"
)
DATA_WAIT_RATIO = _gauge(
    "training", "data_wait_ratio", "ratio", "Share of the training time spent waiting for batches.", "run", "rank"
)
GPU_MEMORY = _gauge(
    "training", "gpu_memory_bytes", "bytes", "Most GPU memory that this rank's tensors held.", "run", "rank"
)

# Checkpoints, from rank 0.
CHECKPOINT_BLOCKED = _gauge(
    "checkpoints", "checkpoint_blocked_seconds", "seconds", "What the last checkpoint held training up."
)
CHECKPOINT_SECONDS = _gauge(
    "checkpoints", "checkpoint_upload_seconds", "seconds", "What the last upload took, until verified."
)
CHECKPOINT_BYTES = _gauge("checkpoints", "checkpoint_bytes", "bytes", "Size of the last checkpoint.")
CHECKPOINT_BACKLOG = _gauge(
    "checkpoints", "checkpoint_backlog_epochs", "epochs", "Epochs finished since the last stored checkpoint."
)
CHECKPOINT_LAST_GOOD = _gauge(
    "checkpoints",
    "checkpoint_last_good_timestamp_seconds",
    "seconds",
    "Unix time at which a checkpoint was last stored and verified.",
)
CHECKPOINT_FAILURES = _gauge(
    "checkpoints", "checkpoint_failures", "uploads", "Uploads that failed since the last one that did not."
)

# A search, from its driver.
TRIALS = _gauge("tuning", "trials", "trials", "Trials in each state.", "run", "state")
SEARCH_BEST = _gauge("tuning", "search_best", "ratio", "Best value of the search's metric so far.")
SEARCH_EPOCHS = _gauge("tuning", "search_epochs", "epochs", "Epochs that all trials have trained.")
SEARCH_EPOCHS_SAVED = _gauge("tuning", "search_epochs_saved", "epochs", "Epochs that stopped trials did not train.")
TRIAL_METRIC = _gauge("tuning", "trial_metric", "ratio", "Best value of each trial so far.", "run", "trial")
TRIAL_EPOCH = _gauge("tuning", "trial_epoch", "epochs", "Epochs that each trial has trained.", "run", "trial")
TRIAL_SECONDS = _gauge("tuning", "trial_seconds", "seconds", "How long each trial has run.", "run", "trial")

# Data.
CHECK_FINDINGS = _gauge("data", "check_findings", "findings", "What the data check found.", "run", "severity")
CHECK_SECONDS = _gauge("data", "check_seconds", "seconds", "What the data check took.")
CHECK_IMAGES = _gauge("data", "check_images", "images", "Images in the data set.")
CACHE_HITS = _gauge("data", "cache_hits", "images", "Images read from the node's pixel cache.", "run", "rank")
CACHE_MISSES = _gauge("data", "cache_misses", "images", "Images that had to be decoded.", "run", "rank")
COPIED_BYTES = _gauge("data", "copied_bytes", "bytes", "Bytes copied to this node for the run.", "run", "node")

# Tracking, from the driver.
SPOOLED = _gauge("tracking", "tracking_spooled_records", "records", "Records that the server has not confirmed.")
TRACKING_SENT = _gauge("tracking", "tracking_sent_records", "records", "Records that it has confirmed.")
TRACKING_REPLAYED = _gauge(
    "tracking", "tracking_replayed_records", "records", "Records that were sent late, after the server had failed."
)

# Faults, from the driver. Causes: see ray_jobs.flows.measures.
RESTARTS = _counter("faults", "restarts", "restarts", "Times the workers were started again.", "run", "cause")
WORLD_SIZE_WANTED = _gauge("faults", "world_size_wanted", "ranks", "Ranks that the run wants.")
WORLD_SIZE = _gauge("faults", "world_size", "ranks", "Ranks that trained the last epoch.")

# Registry and reading.
REGISTERED = _counter("registry", "registered_models", "models", "Model versions registered.")
PROMOTIONS = _counter("registry", "promotions", "decisions", "Decisions on promotion.", "run", "decision")
READS = _counter("reading", "reads", "images", "Images read.", "node", "outcome")
READ_SECONDS = _counter("reading", "read_seconds", "seconds", "Time spent reading images.", "node")
READ_FINDINGS = _counter("reading", "read_findings", "findings", "Findings in the images read.", "node")

# The services beside Ray, from cluster/probe.py.
PROBE_UP = Metric("xray_probe_up", "gauge", "bool", ("service",), "1 where the API does its work.", "cluster", "probe")
PROBE_SECONDS = Metric(
    "xray_probe_seconds", "gauge", "seconds", ("service",), "What asking the API took.", "cluster", "probe"
)

METRICS: dict[str, Metric] = {value.name: value for value in list(globals().values()) if isinstance(value, Metric)}

_Key = tuple[Metric, tuple[tuple[str, str], ...]]


class NullMeter:
    """Takes every call and does nothing."""

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Nothing."""

    def add(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """Nothing."""

    def watch(self, look: Callable[[], None]) -> None:
        """Nothing."""

    def forget(self, metric: Metric) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Meter(NullMeter):
    """Hands values to Ray from a thread of its own; every method returns at once. ``labels`` go with every value."""

    def __init__(self, **labels: str) -> None:
        self._labels = labels
        self._lock = threading.Lock()
        self._gauges: dict[_Key, float] = {}
        self._added: dict[_Key, float] = {}
        self._looks: list[Callable[[], None]] = []
        self._instruments: dict[Metric, Any] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """The present value of a gauge. Ray drops what is not a number, and so does this."""
        key = self._key(metric, labels)
        with self._lock:
            self._gauges[key] = float(value)

    def add(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """Count. With 0 the series appears: ``increase()`` does not see the step from nothing to 1."""
        key = self._key(metric, labels)
        with self._lock:
            self._added[key] = self._added.get(key, 0.0) + amount

    def watch(self, look: Callable[[], None]) -> None:
        """Call this every few seconds and at the end, in the meter's thread, to set what has to be asked for."""
        self._looks.append(look)

    def forget(self, metric: Metric) -> None:
        """Stop saying a gauge; its series end within 20 s."""
        with self._lock:
            self._gauges = {key: value for key, value in self._gauges.items() if key[0] != metric}

    def close(self) -> None:
        """Hand over what is left. Ray sends it on when the process ends in good order."""
        self._closed.set()
        self._thread.join(timeout=2.0)

    def _key(self, metric: Metric, labels: dict[str, str]) -> _Key:
        given = {**self._labels, **labels}
        return metric, tuple((name, given[name]) for name in metric.labels)

    def _run(self) -> None:
        """Until the end: what was counted, what is watched, and every gauge again."""
        looked = 0.0
        try:
            open_still = True
            while open_still:
                open_still = not self._closed.wait(REFRESH_S)
                if not open_still or time.monotonic() - looked >= WATCH_S:
                    looked = time.monotonic()
                    for look in self._looks:
                        look()
                self._publish()
        except Exception as error:  # the boundary: what nobody can see may not stop what is trained
            logger.warning("no metrics from here on: %s: %s", type(error).__name__, error)

    def _publish(self) -> None:
        with self._lock:
            gauges, added = dict(self._gauges), self._added
            self._added = {}
        for (metric, labels), value in gauges.items():
            self._instrument(metric).set(value, dict(labels))
        for (metric, labels), amount in added.items():
            # Ray refuses to add zero; the smallest number makes a series appear and changes no sum.
            self._instrument(metric).inc(amount or sys.float_info.min, dict(labels))

    def _instrument(self, metric: Metric) -> Any:
        if metric not in self._instruments:
            from ray.util.metrics import Counter, Gauge

            make = Gauge if metric.kind == "gauge" else Counter
            self._instruments[metric] = make(metric.name, f"{metric.help} [{metric.unit}]", metric.labels)
        return self._instruments[metric]


def open_meter(**labels: str) -> NullMeter:
    """A meter whose values all have these labels; one that does nothing where this process is in no Ray cluster."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return NullMeter()
    return Meter(**labels)
