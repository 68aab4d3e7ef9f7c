"""Metrics: declared once, bounded labels, and free for the thread that trains."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ray_jobs import telemetry
from ray_jobs.flows.measures import CAUSES, RankMeasures, RunMeasures, cause_of
from ray_jobs.telemetry import METRICS, Meter, Metric, NullMeter, open_meter

PROJECT = Path(__file__).parents[1]
LABELS = {
    "run",
    "rank",
    "node",
    "stage",
    "loss",
    "state",
    "trial",
    "severity",
    "cause",
    "decision",
    "outcome",
    "service",
}
OF_A_RUN = {"ray_job", "mlflow_experiment", "mlflow_run"}  # one value each
every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)


@every_metric
def test_a_name_follows_prometheus_practice(metric: Metric) -> None:
    assert re.fullmatch(r"xray_[a-z][a-z0-9_]*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    for unit in ("seconds", "bytes"):
        assert (metric.unit == unit) == bool(re.search(rf"_{unit}(_total)?$", metric.name)), metric
    assert metric.help.endswith(".")
    assert metric.series == ("" if metric.exporter == "probe" else "ray_") + metric.name


@every_metric
def test_labels_are_bounded(metric: Metric) -> None:
    assert set(metric.labels) <= LABELS | OF_A_RUN
    assert {"run", "node", "service"} & set(metric.labels)


def test_every_stage_of_the_platform_is_measured() -> None:
    stages = {metric.stage for metric in METRICS.values()}
    assert stages == set(telemetry.Stage.__args__)


def test_a_name_is_declared_once() -> None:
    source = Path(telemetry.__file__).read_text(encoding="utf-8")
    declared = re.findall(r"^[A-Z0-9_]+ = (?:_gauge|_counter|Metric)\(", source, re.MULTILINE)
    assert len(declared) == len(METRICS) > 40


def test_every_metric_is_set_somewhere_and_every_measure_is_told() -> None:
    """A metric that nobody sets leaves its panel empty for ever, and no test of the panel would notice."""
    sources = {file: file.read_text(encoding="utf-8") for file in (PROJECT / "ray_jobs").rglob("*.py")}
    rooms = {file: text for file, text in sources.items() if file.name == "measures.py"}
    names = [name for name, value in vars(telemetry).items() if isinstance(value, Metric) and value.exporter == "ray"]
    assert [name for name in names if not any(f"t.{name}" in text for text in rooms.values())] == []
    calls = re.sub(r"^ *(class|def) .*$", "", "".join(sources.values()), flags=re.MULTILINE)
    for file, text in rooms.items():
        told = {"".join(pair) for pair in re.findall(r"^class (\w+)|^(?:    )?def ([a-z]\w*)", text, re.MULTILINE)}
        assert told
        assert {name for name in told if not re.search(rf"\bmeasures\.{name}\b|\b{name}\(", calls)} == set(), file


def test_without_ray_nothing_is_measured_and_nothing_breaks() -> None:
    """In a process that has no Ray at all."""
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "opentelemetry"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import threading
from ray_jobs.telemetry import EPOCH, RESTARTS, open_meter
meter = open_meter(run="first")
meter.set(EPOCH, 3)
meter.add(RESTARTS, cause="error")
meter.watch(lambda: 1 / 0)
meter.forget(EPOCH)
meter.close()
print(type(meter).__name__, threading.active_count())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "NullMeter 1\n", done.stderr


def test_the_twin_has_the_same_methods() -> None:
    public = {name for name in vars(Meter) if not name.startswith("_")}
    assert public == {name for name in vars(NullMeter) if not name.startswith("_")}
    assert type(open_meter(run="first")) is NullMeter


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("The actor died because its node has died. node failure", "node_lost"),
        ("Task was killed due to the node running low on memory: OutOfMemoryError", "out_of_memory"),
        (  # Ray's words for any SIGKILL
            "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
            "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) "
            "the process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called",
            "worker_died",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out_of_memory"),
        ("s3://bucket/checkpoints: put failed", "storage"),
        ("ZeroDivisionError: division by zero", "error"),
        ("rank 1: did not answer for longer than cluster.hang_timeout_s", "hung"),
    ],
)
def test_restarts_have_few_causes(words: str, cause: str) -> None:
    assert cause_of(words) == cause
    assert cause in CAUSES


def test_measures_without_ray_take_every_event(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"12345")
    rank = RankMeasures("first", 1, "/somewhere")
    with pytest.raises(OSError, match="store"), rank.upload(tmp_path, epoch=1):
        raise OSError("the store is away")
    with rank.upload(tmp_path, epoch=2):
        pass
    rank.close()
    run = RunMeasures("first", 0.0)
    run.stage("train")
    run.restarted("died")
    run.diverged()
    run.close()


@pytest.mark.slow
def test_the_training_thread_is_held_less_than_5_ms_an_epoch() -> None:
    """Also while the metrics endpoint takes connections and never answers."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    script = Path(__file__).with_name("telemetry_cost.py")
    done = subprocess.run([sys.executable, script], env=clean, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    cost = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    print(f"the training thread is held {cost['alive']:.3f} ms an epoch, {cost['dead']:.3f} ms without endpoint")
    assert cost["agents"]
    assert cost["alive"] < 5
    assert cost["dead"] < 5
