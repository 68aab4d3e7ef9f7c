"""A real Prometheus scrapes a real Ray cluster while jobs really run, one of which loses a worker on the way.

A training on phantoms from a bucket, which a detector learns in minutes, with its promotion; a search; a read server.
Every query of every panel and every metric of every alert must return data. The list is printed (pytest -rP).
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml

from ray_jobs.dataset.phantom import draw_phantoms
from tests.cluster.engine import PROJECT, wait_for
from tests.cluster.live_cluster import BUCKET, RULES, TOKEN, LiveCluster, Prometheus, free_port

BOARDS = sorted((PROJECT / "grafana" / "dashboards").glob("*.json"))
SMALL = ["batch_size=8", "pretrained=false", "device=cpu", "workers=0", "samples=0", "cluster.cpus_per_worker=1"]
TRAINING = [
    *SMALL,
    "epochs=16",
    "img_size=160",
    "cluster.num_workers=2",
    "cluster.max_failures=3",
    "tracking.promotion.when=always",
]
IMAGES = 120
SEARCH = {
    "space": {"optimizer": "AdamW", "lr0": {"loguniform": [0.001, 0.01]}},
    "budget": {"samples": 6, "epochs": 8},
    "scheduler": {"grace_epochs": 2, "reduction_factor": 2.0},
    "resources": {"cpus": 1},  # the training has the other two
    "max_concurrent": 1,
}
# What this machine cannot have: read back from recorded series instead.
RECORDED = {
    "ray_node_gpus_utilization": '{ip="10.0.0.1",GpuIndex="0",instance="10.0.0.1:8080"} 87',
    "ray_node_gram_used": '{ip="10.0.0.1",GpuIndex="0",instance="10.0.0.1:8080"} 21000',
    "ray_xray_gpu_memory_bytes": '{run="live",rank="0",NodeAddress="10.0.0.1"} 2.1e10',
    "xray_probe_up": '{service="mlflow"} 1',
    "xray_probe_seconds": '{service="mlflow"} 0.03',
    "up": '{job="ray",instance="10.0.0.1:8080"} 1',
}
pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The jobs after their end: what Prometheus saw, what the terminal showed, the run's folder."""
    for tool in ("prometheus", "promtool"):
        if shutil.which(tool) is None:
            missing = pytest.fail if os.environ.get("CI") else pytest.skip
            missing(f"{tool} is missing: run .ci/cluster.sh, which installs it")
    folder = tmp_path_factory.mktemp("live")
    phantoms = folder / "phantoms"
    draw_phantoms(phantoms, size=192, train=IMAGES, val=30, test=8, seed=0)
    cluster = LiveCluster(folder)
    try:
        cluster.start()
        size = cluster.put(phantoms, "phantoms")
        began = time.time()
        run = folder / "runs" / "live"
        data = ["--data", f"s3://{BUCKET}/phantoms/data.yaml", f"storage.data_cache={folder / 'cache'}"]
        trainer, said = cluster.in_a_terminal("train", *data, "--run-name", "live", *TRAINING)
        (folder / "tune.yaml").write_text(yaml.safe_dump(SEARCH))
        tuning = ["--data", phantoms / "data.yaml", "--tune", folder / "tune.yaml", "--run-name", "search"]
        search = cluster.job("tune", *tuning, *SMALL, "img_size=128", "export.onnx=false")
        killed = kill_a_worker_after_an_epoch(cluster.head.pid, run, trainer)
        assert trainer.wait(900) == 0, b"".join(said).decode()
        trained = time.time()
        assert search.wait(600) == 0, cluster.said()
        read_some_x_rays(cluster, run / "weights" / "best.onnx", phantoms)
        yield SimpleNamespace(
            prometheus=cluster.prometheus,
            run=run,
            said=b"".join(said).decode(),
            began=began,
            killed=killed,
            trained=trained,
            ended=time.time(),
            size=size,
        )
    finally:
        cluster.close()


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


def read_some_x_rays(cluster: LiveCluster, model: Path, xrays: Path) -> None:
    """Three, one after the other, by a read server of the cluster."""
    port = free_port()
    server = cluster.job("read_server", "--model", model, "--port", port)

    def reads() -> bool:
        assert server.poll() is None, cluster.said()
        return "reading with" in cluster.said()

    wait_for("the read server", reads, timeout=240)
    time.sleep(4)  # the counters' first samples are scraped
    for image in sorted((xrays / "images" / "test").iterdir())[:3]:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "image/png"}
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/v1/findings", image.read_bytes(), headers)
        assert urllib.request.urlopen(asked, timeout=60).status == 200
        time.sleep(1.5)
    time.sleep(3)  # the last values are scraped
    server.send_signal(signal.SIGTERM)
    server.wait(60)


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


def test_what_is_measured_is_what_happened(live: SimpleNamespace) -> None:
    def last(query: str) -> dict[str, float]:
        found = live.prometheus.between(f"max by (run) (last_over_time({query}[1h]))", live.ended - 1, live.ended)
        return {each["metric"]["run"]: float(each["values"][-1][1]) for each in found}

    assert last("ray_xray_copied_bytes") == {"live": live.size}
    decoded = last('ray_xray_cache_misses{rank="0"}')["live"] + last('ray_xray_cache_misses{rank="1"}')["live"]
    assert decoded < 2 * IMAGES  # each once, but for those that both ranks wanted at the same moment
    assert last('ray_xray_cache_hits{rank="0"}')["live"] > IMAGES
    assert last("ray_xray_registered_models_total") == {"live": 1}
    decided = json.loads((live.run / "promotion.json").read_text())["state"]
    assert last(f'ray_xray_promotions_total{{decision="{decided}"}}') == {"live": 1}
    trials = [last(f'ray_xray_trials{{state="{state}"}}')["search"] for state in ("finished", "stopped", "failed")]
    assert [sum(trials), trials[2]] == [6, 0]
    summary = json.loads((live.run.parent / "search" / "summary.json").read_text())
    assert last("ray_xray_search_epochs") == {"search": summary["epochs_run"]}
    assert last("ray_xray_search_epochs_saved") == {"search": summary["epochs_saved"]}


def test_links_find_the_run_and_the_search_in_mlflow(live: SimpleNamespace) -> None:
    found = live.prometheus.between("ray_xray_run_info != 0", live.began, live.ended)
    labels = [each["metric"] for each in found if "mlflow_run" in each["metric"]]  # Prometheus drops an empty label
    told = {(each["run"], each["mlflow_run"]) for each in labels}
    summaries = {name: live.run.parent / name / "summary.json" for name in ("live", "search")}
    assert told == {(name, json.loads(file.read_text())["mlflow_run_id"]) for name, file in summaries.items()}
    assert all(each["ray_job"] and each["mlflow_experiment"] for each in labels)


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
    assert re.search(r"epoch +3/16", plain)
    assert re.search(r"mAP50-95 +0\.\d+ +[▁-█]+  best", plain)
    assert re.search(r"waited \d+% for data", plain)
    assert re.search(r"checkpoint +epoch \d stored", plain)
    assert "workers were lost: " in plain
    assert re.search(r"restarts +1", plain)
    assert "Run live: test split" in plain
    assert "Traceback" not in plain
