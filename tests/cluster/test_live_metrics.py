"""A real Prometheus scrapes a real Ray cluster while it really trains, and loses a worker on the way.

Every query of every panel and every metric of every alert must return data. The list is printed (pytest -rP).
"""

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml

from tests.cluster.engine import PROJECT, wait_for

HERE = Path(__file__).parent
BOARDS = sorted((PROJECT / "grafana" / "dashboards").glob("*.json"))
RULES = sorted((PROJECT / "cluster" / "prometheus" / "rules").glob("*.yaml"))
SMALL = ["epochs=5", "img_size=96", "batch_size=8", "pretrained=false", "device=cpu", "workers=0", "samples=0"]
WORKERS = ["cluster.num_workers=2", "cluster.cpus_per_worker=1", "cluster.max_failures=3", "export.onnx=false"]
MAKE_BUCKET = """
import boto3, time
for _ in range(100):
    try:
        boto3.client("s3").create_bucket(Bucket="xray-ray")
        break
    except Exception:
        time.sleep(0.2)
"""
# What this machine cannot have: read back from recorded series instead.
RECORDED = {
    "ray_node_gpus_utilization": '{ip="10.0.0.1",GpuIndex="0",instance="10.0.0.1:8080"} 87',
    "ray_node_gram_used": '{ip="10.0.0.1",GpuIndex="0",instance="10.0.0.1:8080"} 21000',
    "ray_xray_gpu_memory_bytes": '{run="live",rank="0",NodeAddress="10.0.0.1"} 2.1e10',
    "xray_probe_up": '{service="mlflow"} 1',
    "xray_probe_seconds": '{service="mlflow"} 0.03',
    "up": '{job="ray",instance="10.0.0.1:8080"} 1',
}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])


class Prometheus:
    """A Prometheus of its own, with the project's rules."""

    def __init__(self, folder: Path, jobs: list[dict[str, Any]]) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules) for rules in RULES],
            "scrape_configs": jobs,
        }
        folder.mkdir(exist_ok=True)
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
        where = self.url.removeprefix("http://")
        command = ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/tsdb"]
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen([*command, f"--web.listen-address={where}"], stdout=self.log, stderr=self.log)
        wait_for("Prometheus", self.ready, timeout=60)

    def ready(self) -> bool:
        try:
            return bool(urllib.request.urlopen(f"{self.url}/-/ready", timeout=2).status == 200)
        except OSError:
            return False

    def between(self, query: str, start: float, end: float) -> list[dict[str, Any]]:
        """The series of a query over a time, two seconds apart."""
        asked = urllib.parse.urlencode({"query": query, "start": start, "end": end, "step": 2})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query_range?{asked}", timeout=30) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from None
        return found

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


def in_a_terminal(
    command: list[str], environment: dict[str, str], folder: Path
) -> tuple[subprocess.Popen[bytes], list[bytes]]:
    """Start a command on a pseudo-terminal; what it says is collected while it runs."""
    ours, theirs = pty.openpty()
    variables = environment | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(command, cwd=folder, env=variables, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said: list[bytes] = []

    def collect() -> None:
        while True:
            try:
                said.append(os.read(ours, 65536))
            except OSError:  # the other end is closed
                os.close(ours)
                return

    threading.Thread(target=collect, daemon=True).start()
    return process, said


@pytest.fixture(scope="module")
def live(xrays_mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The run after its end: what Prometheus saw, what the terminal showed, the run's folder."""
    for tool in ("prometheus", "promtool"):
        if shutil.which(tool) is None:
            missing = pytest.fail if os.environ.get("CI") else pytest.skip
            missing(f"{tool} is missing: run .ci/cluster.sh, which installs it")
    folder = tmp_path_factory.mktemp("live")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    environment = {**clean, **token, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(PROJECT)}
    errors = (folder / "errors").open("w+")
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors, "text": True}
    head = subprocess.Popen([sys.executable, HERE / "ray_head.py"], env=environment, **pipes)
    started: list[subprocess.Popen[Any]] = []
    prometheus = None
    try:
        ready = next((line.split() for line in head.stdout if line.startswith("READY")), None)
        assert ready, (folder / "errors").read_text()
        _, address, session = ready
        discovery = f"{session}/prom_metrics_service_discovery.json"
        wait_for("the list of Ray's metrics ports", Path(discovery).is_file, timeout=60)
        probe = start_probe(folder, environment, started)
        jobs = [
            {"job_name": "ray", "file_sd_configs": [{"files": [discovery], "refresh_interval": "1s"}]},
            {"job_name": "probe", "static_configs": [{"targets": [probe]}]},
        ]
        prometheus = Prometheus(folder / "prometheus", jobs)
        began = time.time()
        run = folder / "runs" / "live"
        command = [
            sys.executable,
            "-m",
            "ray_jobs.train",
            "--data",
            str(xrays_mini / "data.yaml"),
            "--run-name",
            "live",
        ]
        joined = environment | {"RAY_ADDRESS": address}
        trainer, said = in_a_terminal([*command, *SMALL, *WORKERS], joined, folder)
        started.append(trainer)
        search = subprocess.Popen([sys.executable, HERE / "small_search.py", address], env=joined, **pipes)
        started.append(search)
        killed = kill_a_worker_after_an_epoch(head.pid, run, trainer)
        code = trainer.wait(600)
        assert code == 0, b"".join(said).decode()
        assert next(search.stdout).startswith("MEASURED"), (folder / "errors").read_text()
        time.sleep(3)  # the last values are scraped
        yield SimpleNamespace(
            prometheus=prometheus, run=run, said=b"".join(said).decode(), began=began, killed=killed, ended=time.time()
        )
    finally:
        for process in started:
            process.kill()
            process.wait(30)
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        if prometheus:
            prometheus.stop()
        head.stdin.close()
        head.wait(60)
        head.stdout.close()
        errors.close()


def start_probe(folder: Path, environment: dict[str, str], started: list[subprocess.Popen[Any]]) -> str:
    """An object store and cluster/probe.py that asks it; returns where the probe answers."""
    store, port = free_port(), free_port()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    variables = environment | keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{store}", "S3_BUCKET": "xray-ray"}
    with (folder / "probe").open("w") as log:
        quiet: dict[str, Any] = {"env": variables, "stdout": log, "stderr": log}
        started.append(subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(store)], **quiet))
        subprocess.run([sys.executable, "-c", MAKE_BUCKET], **quiet, timeout=60)
        started.append(subprocess.Popen([sys.executable, PROJECT / "cluster" / "probe.py", str(port)], **quiet))
    return f"127.0.0.1:{port}"


def kill_a_worker_after_an_epoch(head: int, run: Path, trainer: subprocess.Popen[bytes]) -> float:
    """SIGKILL one of the two training workers once an epoch is finished; returns when."""

    def an_epoch_is_done() -> bool:
        assert trainer.poll() is None, "the run ended before its first epoch"
        return (run / "journal.jsonl").is_file() and b"epoch" in (run / "journal.jsonl").read_bytes()

    wait_for("the first epoch", an_epoch_is_done, timeout=480, poll=0.2)
    time.sleep(2.5)  # its figures are scraped
    workers = [each for each in psutil.Process(head).children(recursive=True) if is_train_worker(each)]
    assert len(workers) == 2
    workers[0].send_signal(signal.SIGKILL)
    return time.time()


def is_train_worker(process: psutil.Process) -> bool:
    try:
        return any("RayTrainWorker" in part for part in process.cmdline())
    except psutil.Error:
        return False


def as_asked(where: str, query: str) -> str:
    """A panel's query with its variables filled in as Grafana would."""
    run = {"tuning": "search", "training": "live"}.get(where.partition(":")[0], ".*")
    for name, value in {"$run": run, "$node": ".*", "$__range": "30m"}.items():
        query = query.replace(name, value)
    return query


def every_query() -> list[tuple[str, str]]:
    """(dashboard and panel, PromQL) of all panels."""
    found = []
    for file in BOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            found += [(f"{file.stem}: {panel['title']}", target["expr"]) for target in panel.get("targets", ())]
    return found


@pytest.fixture(scope="module")
def recorded(live: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A second Prometheus with series that this machine cannot make, over the same time."""
    folder = tmp_path_factory.mktemp("recorded")
    lines = []
    for name, series in RECORDED.items():
        labels, value = series.rsplit(" ", 1)
        lines += [f"{name}{labels} {value} {at}" for at in range(int(live.began), int(live.ended) + 1)]
    (folder / "series").write_text("\n".join(sorted(lines, key=lambda line: line.split("{")[0])) + "\n# EOF\n")
    made = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(folder / "series"), str(folder / "tsdb")]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    prometheus = Prometheus(folder, [])
    yield prometheus
    prometheus.stop()


def test_every_query_of_every_panel_returns_data(live: SimpleNamespace, recorded: Prometheus) -> None:
    empty, answers = [], {}
    for where, query in every_query():
        asked = as_asked(where, query)
        source, found = "live", live.prometheus.between(asked, live.began, live.ended)
        if not found and any(name in query for name in RECORDED):
            source, found = "recorded", recorded.between(asked, live.began, live.ended)
        print(f"{source:8} {len(found):3} series  {where}  |  {query}")
        answers[query] = found
        if not found:
            empty.append((where, asked))
    if folder := os.environ.get("XRAY_KEEP_ANSWERS"):
        kept = {"began": live.began, "ended": live.ended, "answers": answers}
        Path(folder, "answers.json").write_text(json.dumps(kept))
    assert empty == []


def test_every_metric_of_every_alert_returns_data(live: SimpleNamespace, recorded: Prometheus) -> None:
    """That the alerts fire, and when they do not, is shown by alerts.test.yaml."""
    rules = [rule for file in RULES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]
    for rule in rules:
        for series in sorted(set(re.findall(r"\b(?:ray_|xray_|up\b)\w*", rule["expr"]))):
            found = live.prometheus.between(series, live.began, live.ended)
            source = "live"
            if not found and series in RECORDED:
                source, found = "recorded", recorded.between(series, live.began, live.ended)
            print(f"{source:8} {len(found):3} series  {rule['alert']}  |  {series}")
            assert found, (rule["alert"], series)
        live.prometheus.between(rule["expr"], live.began, live.ended)  # is at least accepted


def test_a_restarted_worker_leaves_no_second_series(live: SimpleNamespace) -> None:
    end = (live.began, live.ended)
    by_process = live.prometheus.between('ray_xray_step{run="live"}', *end)
    by_rank = live.prometheus.between('max by (run, rank) (ray_xray_step{run="live"})', *end)
    assert len(by_process) == 4  # two ranks, each started twice
    assert len(by_rank) == 2
    for rank in ("0", "1"):  # the first attempt's series ends when its worker does, not at the end of the run
        first, second = sorted(
            (series["values"] for series in by_process if series["metric"]["rank"] == rank),
            key=lambda values: values[0],
        )
        assert float(first[0][0]) < live.killed < float(second[0][0])
        assert float(first[-1][0]) < float(second[0][0]) + 5
    restarts = live.prometheus.between('round(sum(ray_xray_restarts_total{run="live"}))', *end)
    assert [value for _, value in restarts[0]["values"]][-1] == "1"
    assert restarts[0]["values"][0][1] == "0"  # seen before it rises, so increase() sees the rise
    grown = live.prometheus.between('sum by (run) (increase(ray_xray_restarts_total{run="live"}[5m]))', *end)
    assert max(float(value) for _, value in grown[0]["values"]) > 0.9


def test_the_last_stage_is_kept_after_the_driver_has_gone(live: SimpleNamespace) -> None:
    query = "topk by (run) (1, max by (run, stage) (last_over_time(ray_xray_stage_start_timestamp_seconds[30m])))"
    found = live.prometheus.between(query, live.ended - 1, live.ended)
    assert {each["metric"]["stage"] for each in found if each["metric"]["run"] == "live"} == {"finished"}


def test_the_terminal_shows_the_run_as_one_calm_block(live: SimpleNamespace) -> None:
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", live.said)
    assert "joining the Ray cluster at" in plain
    assert "the workers are starting" in plain
    assert re.search(r"step \d+/\d+", plain)
    assert re.search(r"epoch +3/5", plain)
    assert re.search(r"mAP50-95 +0\.\d+ +[▁-█]+  best", plain)
    assert re.search(r"waited \d+% for data", plain)
    assert re.search(r"checkpoint +epoch \d stored", plain)
    assert "workers were lost: " in plain
    assert re.search(r"restarts +1", plain)
    assert "Run live: test split" in plain
    assert "Traceback" not in plain
