"""The three environments, up for real: each runs its own job, keeps its data, its secrets and its distance.

The tests of this module are steps in one order: a running environment costs most of a minute, so they share it.
"""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cluster.clients import Outside, answers
from tests.cluster.engine import PARTS, Environment, docker, healthy, new_secrets, wait_for

PORTS = (8265, 5000, 9000, 9090, 9093)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


def run_job(environment: Environment, service: str, timeout: float = 360) -> str:
    """`up SERVICE`, which ends when the job has; its log. The job's exit code must be 0."""
    log = environment.compose("up", service, timeout=timeout).stdout
    [job] = [each for each in environment.containers() if each["Service"] == service]
    assert (job["State"], job["ExitCode"]) == ("exited", 0), log[-4000:]
    return log


@pytest.fixture(scope="module")
def training(new_environment: Callable[..., Environment]) -> Environment:
    """Environment 3, up: one head and two workers, and everything they need."""
    environment = new_environment("docker-compose-yolo-ray.yaml", jobs=("train", "retrain", "benchmark"))
    print(f"up to healthy: {environment.up(*PARTS):.0f} s")
    return environment


@pytest.fixture(scope="module")
def outside(training: Environment) -> Outside:
    return Outside(training, digit="2")


@pytest.fixture(scope="module")
def trained(training: Environment, outside: Outside) -> SimpleNamespace:
    """Environment 3 after its job: what the job left in MLflow, in the object store, and when."""
    log = run_job(training, "train")
    [run] = outside.finished_runs()
    objects = outside.objects()
    return SimpleNamespace(log=log, run=run, objects=objects, at=time.time())


def test_everything_is_healthy(training: Environment) -> None:
    parts = ("ray-head", "minio", "mlflow", "prometheus", "alertmanager", "probe")
    assert healthy(training) == dict.fromkeys(parts, 1) | {"ray-worker": 2}


@pytest.mark.usefixtures("training")
def test_the_restricted_user_cannot_leave_its_bucket(outside: Outside) -> None:
    client = outside.bucket().meta.client
    with pytest.raises(client.exceptions.ClientError, match=r"AccessDenied|TooManyBuckets"):
        client.create_bucket(Bucket="elsewhere")


def test_preparing_the_bucket_again_changes_nothing(training: Environment, outside: Outside) -> None:
    again = training.compose("run", "--rm", "--no-deps", "buckets", timeout=60)
    assert (again.returncode, "is ready" in again.stdout) == (0, True), again.stdout
    root = outside.client(training.secrets["OBJECT_STORE_ROOT_USER"], training.secrets["OBJECT_STORE_ROOT_PASSWORD"])
    [rule] = root.get_bucket_lifecycle_configuration(Bucket="xray-ray")["Rules"]
    assert (rule["Status"], rule["AbortIncompleteMultipartUpload"]) == ("Enabled", {"DaysAfterInitiation": 1})


@pytest.mark.usefixtures("trained")
def test_one_model_is_trained_over_two_containers(outside: Outside) -> None:
    actors = outside.dashboard("/api/v0/actors?detail=1&limit=1000")["data"]["result"]["result"]
    nodes = [actor["node_id"] for actor in actors if "TrainWorker" in actor["class_name"]]
    assert len(nodes) == len(set(nodes)) == 2


def test_checkpoints_are_in_the_object_store(trained: SimpleNamespace) -> None:
    sizes = {key: size for key, size in trained.objects.items() if key.startswith("checkpoints/")}
    epochs = {key.split("/")[3] for key in sizes if "/epoch_" in key}
    assert "epoch_00003" in epochs
    assert len(epochs) <= 2, "keep: 1 leaves the last and one more, and nothing of the others"
    assert min(size for key, size in sizes.items() if key.endswith(".pt")) > 1_000_000
    assert not [key for key in trained.objects if ".probe-" in key]


def test_the_run_and_its_artifacts_are_in_mlflow(trained: SimpleNamespace, outside: Outside) -> None:
    names = {path.rsplit("/", 1)[-1] for path in outside.artifacts(trained.run)}
    assert {"best.pt", "best.onnx"} <= names
    assert any(key.startswith("mlflow/") for key in trained.objects)
    # Through the server: whoever logs to it or reads from it needs no key of the store.
    assert trained.run["info"]["artifact_uri"].startswith("mlflow-artifacts:/")


def values(outside: Outside, query: str, label: str) -> set[tuple[str, str]]:
    """A label of each series that Prometheus answers with, and its value."""
    return {(each["metric"][label], each["value"][1]) for each in outside.prometheus(query)}


@pytest.mark.usefixtures("trained")
def test_the_series_are_in_prometheus(outside: Outside) -> None:
    nodes = wait_for(
        "the figures of three nodes",
        lambda: len(outside.prometheus("count by (instance) (ray_node_cpu_utilization)")) == 3,
        timeout=60,
    )
    assert nodes
    up = {(job, "1") for job in ("ray", "mlflow", "probe", "prometheus", "alertmanager")}
    up.add(("object-store", "0"))  # Ceph has no page of MinIO's figures
    asked = {("object-store", "1"), ("mlflow", "1")}
    wait_for("all to be up", lambda: values(outside, "up", "job") == up, timeout=60)
    wait_for("all to do what they are for", lambda: values(outside, "xray_probe_up", "service") == asked, timeout=60)
    # Gone from Ray's own page when the run ends; Prometheus has kept them.
    training = 'count(last_over_time({__name__=~"ray_train_.*"}[15m]))'
    ours = "max by (run) (last_over_time(ray_xray_epoch[15m])) == 3"
    assert wait_for("the epochs of the training", lambda: outside.prometheus(ours), timeout=60)
    assert wait_for("the figures of the training", lambda: outside.prometheus(training), timeout=60)


@pytest.mark.usefixtures("training")
def test_nobody_without_a_key_is_served(outside: Outside) -> None:
    job = {"entrypoint": "echo intruder"}
    assert outside.status(8265, "/api/jobs/", body=job) == 401
    assert outside.status(8265, "/api/jobs/", body=job, authorization="Bearer wrong") == 403
    assert outside.status(8265, "/api/cluster_status") == 401
    assert outside.status(8265, "/nodes?view=summary") == 401
    assert outside.status(5000, "/api/2.0/mlflow/experiments/search?max_results=1") == 401
    assert outside.status(5000, "/") == 401
    assert outside.status(9000, "/xray-ray") == 403


@pytest.mark.usefixtures("training")
def test_mlflow_answers_to_its_own_names_alone(outside: Outside) -> None:
    """A page elsewhere must not reach it through a visitor's browser by giving its address another name."""
    assert outside.status(5000, "/health", host="localhost:25000") == 200
    assert outside.status(5000, "/api/2.0/mlflow/experiments/search", host="elsewhere.example") == 403


def test_ray_draws_its_dashboards_for_grafana(training: Environment) -> None:
    [head] = [str(each["Name"]) for each in training.containers() if each["Service"] == "ray-head"]
    drawn = docker("exec", head, "ls", "/ray-dashboards").split()
    assert {"default_grafana_dashboard.json", "train_grafana_dashboard.json"} <= set(drawn)


def test_nothing_answers_at_another_address(training: Environment) -> None:
    gateway = docker(
        "network", "inspect", f"{training.project}_default", "--format", "{{(index .IPAM.Config 0).Gateway}}"
    )
    published = [int(f"2{port}") for port in PORTS]
    assert all(answers("127.0.0.1", port) for port in published)
    others = ["127.0.0.2", gateway.strip()]
    assert not [(address, port) for address in others for port in published if answers(address, port)]


@pytest.mark.usefixtures("trained")
def test_a_wrong_s3_key_stops_the_job_before_training(outside: Outside) -> None:
    done = outside.submit(env_vars={"AWS_SECRET_ACCESS_KEY": "not-the-key"})
    assert done.returncode != 0
    assert "Traceback" not in done.stdout, done.stdout[-3000:]
    assert "s3://xray-ray" in done.stdout, done.stdout[-3000:]
    assert len(outside.finished_runs()) == 1


def test_secrets_are_told_to_nobody(trained: SimpleNamespace, training: Environment, outside: Outside) -> None:
    told = {"container logs": training.logs(), "MLflow": str(trained.run)}
    for node in (each for each in training.containers() if str(each["Service"]).startswith("ray-")):
        logs = ["sh", "-c", "find /tmp/ray/session_latest/logs/ -type f -exec cat {} +"]
        told[f"Ray's logs on {node['Name']}"] = docker("exec", str(node["Name"]), *logs)
    for key, size in outside.objects().items():
        if size < 1_000_000:
            told[key] = outside.bucket().Object(key).get()["Body"].read().decode(errors="replace")
    leaks = [(where, name) for where, text in told.items() for name, value in training.secrets.items() if value in text]
    assert leaks == []


@pytest.mark.usefixtures("trained")
def test_a_second_environment_runs_beside_the_first(
    training: Environment, outside: Outside, new_environment: Callable[..., Environment]
) -> None:
    one_worker = {"RAY_WORKERS": "1", "TUNE_ARGS": "--num-samples 2"}
    tuning = new_environment("docker-compose-ray-tune.yaml", jobs=("tune",), **one_worker)
    tuning.up(*PARTS)
    log = run_job(tuning, "tune")
    assert "2 trials (2 finished)" in log
    assert "best_config.yaml" in log
    search, *trials = sorted(Outside(tuning, digit="1").finished_runs(), key=lambda run: run["info"]["run_name"])
    parents = [{tag["key"]: tag["value"] for tag in trial["data"]["tags"]}["mlflow.parentRunId"] for trial in trials]
    assert parents == [search["info"]["run_id"]] * 2
    assert len(outside.finished_runs()) == 1
    assert healthy(training)["ray-worker"] == 2
    tuning.down(volumes=True)
    assert tuning.left_behind() == []


@pytest.fixture(scope="module")
def stored_xrays(outside: Outside, xrays_mini: Path) -> list[str]:
    """The mini X-rays in the bucket, put there with the restricted key; their names."""
    names = [str(file.relative_to(xrays_mini)) for file in sorted(xrays_mini.rglob("*")) if file.is_file()]
    for name in names:
        outside.bucket().upload_file(str(xrays_mini / name), f"datasets/mini/{name}")
    return names


def copied(environment: Environment, folder: str) -> dict[str, Counter[str]]:
    """What arrived in the copies below ``folder`` of each Ray node, and how often."""
    arrived = {}
    for node in (each for each in environment.containers() if str(each["Service"]).startswith("ray-")):
        journals = docker("exec", str(node["Name"]), "sh", "-c", f"cat {folder}/*/journal.jsonl")
        arrived[str(node["Name"])] = Counter(json.loads(line)["name"] for line in journals.split("\n") if line)
    return arrived


@pytest.mark.usefixtures("trained")
def test_retraining_with_x_rays_from_a_bucket(training: Environment, outside: Outside, stored_xrays: list[str]) -> None:
    """Profile `retrain`. The nodes of one host share one copy, made by one of them."""
    training.variables["RETRAIN_MODEL"] = "models:/xray-detector@challenger"
    training.variables["RETRAIN_ARGS"] = "--data s3://xray-ray/datasets/mini/data.yaml"
    log = run_job(training, "retrain")
    assert "fine-tuning xray-detector" in log
    assert "promotion: " in log  # a detector that finds nothing becomes nobody's champion
    assert f"copying {len(stored_xrays)} of {len(stored_xrays)} files" in log
    assert all(names == Counter(stored_xrays) for names in copied(training, "/data-cache").values())
    assert len(outside.finished_runs()) == 2


@pytest.mark.long
def test_the_benchmark_logs_figures_and_no_files(
    training: Environment, trained: SimpleNamespace, outside: Outside, stored_xrays: list[str]
) -> None:
    """Profile `benchmark`. Each container has a disk of its own for copies, as the hosts of a larger cluster have."""
    before = {run["info"]["run_id"] for run in outside.finished_runs()}
    place = "--data s3://xray-ray/datasets/mini/data.yaml storage.data_cache=/tmp/xrays"
    training.variables["BENCHMARK_ARGS"] = f"epochs=1 samples=0 {place}"
    run_job(training, "benchmark")
    [run] = [run for run in outside.finished_runs() if run["info"]["run_id"] not in before]
    assert outside.artifacts(run) == set()
    assert {"train/box_loss", "test/map50"} <= {metric["key"] for metric in run["data"]["metrics"]}
    arrived = copied(training, "/tmp/xrays")
    assert len(arrived) == 3
    assert all(names == Counter(stored_xrays) for names in arrived.values())
    # The same X-rays from the mounted folder and from the bucket are the same data set.
    assert (
        len({each["dataset"]["digest"] for one in (run, trained.run) for each in one["inputs"]["dataset_inputs"]}) == 1
    )


@pytest.mark.usefixtures("trained")
def test_keys_are_rotated_as_the_runbook_says(training: Environment, outside: Outside) -> None:
    runs = outside.finished_runs()
    artifacts = outside.artifacts(runs[0])
    old, new = dict(training.secrets), new_secrets()
    password = {"username": "xray", "current_password": old["MLFLOW_PASSWORD"], "password": new["MLFLOW_PASSWORD"]}
    outside.mlflow("/users/update-password", password, method="PATCH")
    training.change(
        **{name: new[name] for name in ("S3_SECRET_KEY", "RAY_AUTH_TOKEN", "MLFLOW_PASSWORD", "MLFLOW_SECRET_KEY")}
    )
    print(f"all replaced after a change of keys: {training.up(*PARTS):.0f} s")
    now = Outside(training, digit="2")
    assert now.finished_runs() == runs
    assert now.artifacts(runs[0]) == artifacts
    assert healthy(training)["ray-worker"] == 2
    assert now.status(8265, "/api/cluster_status", authorization=f"Bearer {old['RAY_AUTH_TOKEN']}") == 403
    assert now.dashboard("/api/cluster_status")
    client = now.bucket(secret_key=old["S3_SECRET_KEY"]).meta.client
    with pytest.raises(client.exceptions.ClientError, match="SignatureDoesNotMatch"):
        client.list_objects_v2(Bucket="xray-ray")
    assert list(now.bucket().objects.limit(1))


def test_data_is_still_there_after_down_and_up(trained: SimpleNamespace, training: Environment) -> None:
    outside = Outside(training, digit="2")
    runs, objects = outside.finished_runs(), outside.objects()
    artifacts = outside.artifacts(trained.run)
    training.down(volumes=False)
    assert training.containers() == []
    training.up("mlflow", "prometheus")
    assert outside.finished_runs() == runs
    assert outside.artifacts(trained.run) == artifacts
    assert outside.objects() == objects
    assert outside.prometheus("count(ray_node_cpu_utilization)", time=trained.at)


def test_down_with_volumes_leaves_nothing(training: Environment) -> None:
    training.down(volumes=True)
    assert training.left_behind() == []
