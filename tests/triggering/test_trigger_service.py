"""The trigger service on a real Ray cluster: who may ask, one job at a time, and nothing lost when it dies."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Cluster, TriggerProcess

# Stands for Python on the cluster: says how it was called, and works until it is stopped.
STUB = '#!/bin/sh\necho "called with $*"\necho "a line of the log"\nexec sleep 600\n'


@pytest.fixture(scope="module")
def service(ray_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TriggerProcess]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "stub").write_text(STUB)
    (folder / "stub").chmod(0o755)
    (folder / "datasets").mkdir()
    for name in ("train", "new"):
        (folder / "datasets" / f"{name}.yaml").write_text("train: images\nval: images\nnames: [Mass]\n")
    (folder / "datasets" / "images").mkdir()
    (folder / "secret.yaml").write_text("password: 1\n")
    (folder / "datasets" / "link.yaml").symlink_to(folder / "secret.yaml")
    options = {
        "python": str(folder / "stub"),
        "runs": str(folder / "runs"),
        "state": str(folder / "runs" / ".trigger"),
        "data_roots": [str(folder / "datasets")],
        "training": {"data": str(folder / "datasets" / "train.yaml"), "settings": {"tracking.uri": "none"}},
        "finetune": {"data": str(folder / "datasets" / "new.yaml")},
        "watch": {"poll_s": 0.3},
    }
    trigger = TriggerProcess(folder, ray_cluster, options)
    trigger.start()
    yield trigger
    trigger.stop()


@pytest.fixture(autouse=True)
def _nothing_runs(service: TriggerProcess) -> Iterator[None]:
    yield
    for _ in range(2):  # what waited is started when what ran was stopped
        for job in service.ask("GET", "/jobs").body:
            if job["state"] in ("QUEUED", "PENDING", "RUNNING"):
                assert service.ask("POST", job["links"]["cancel"]).status == 202
    service.wait(lambda: not running(service), "all jobs have ended")


def running(service: TriggerProcess) -> list[dict]:
    return [job for job in service.ask("GET", "/jobs").body if job["state"] in ("QUEUED", "PENDING", "RUNNING")]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_job_at_a_time_and_a_queue_that_outlives_the_service(service: TriggerProcess) -> None:
    first = service.ask("POST", "/trigger-training", {"run_name": "first", "settings": {"epochs": 3, "lr0": 0.001}})
    assert first.status == 202
    job_id = first.body["id"]
    assert first.body["links"] == {"self": f"/jobs/{job_id}", "cancel": f"/jobs/{job_id}/cancel"}
    refused = service.ask("POST", "/trigger-training", {})
    assert (refused.status, refused.body["job"]["id"]) == (409, job_id)
    queued = service.ask(
        "POST", "/trigger-finetune", {"queue": True, "data": str(service.folder / "datasets/new.yaml")}
    )
    assert (queued.status, queued.body["state"]) == (202, "QUEUED")
    withdrawn = service.ask("POST", "/trigger-training", {"queue": True}).body

    service.wait(lambda: service.state(job_id) == "RUNNING", "the job runs")
    service.wait(lambda: "a line" in str(service.ask("GET", f"/jobs/{job_id}").body["log_tail"]), "it has a log")
    log = service.ask("GET", f"/jobs/{job_id}").body["log_tail"]
    data = service.folder / "datasets" / "train.yaml"
    assert f'-m ray_jobs.train --data {data} --run-name first lr0=0.001 epochs=3 tracking.uri="none"' in "\n".join(log)
    assert f'output_dir="{service.folder / "runs"}"' in "\n".join(log)

    service.kill()
    service.start()
    states = {job["id"]: job["state"] for job in service.ask("GET", "/jobs").body}
    assert states[job_id] == "RUNNING"
    assert states[queued.body["id"]] == "QUEUED"
    cancelled = service.ask("POST", withdrawn["links"]["cancel"])
    assert (cancelled.status, cancelled.body["state"]) == (202, "STOPPED")
    assert service.ask("GET", withdrawn["links"]["self"]).status == 404

    assert service.ask("POST", f"/jobs/{job_id}/cancel").status == 202
    service.wait(lambda: service.state(job_id) == "STOPPED", "the job has stopped")
    service.wait(lambda: service.state(queued.body["id"]) == "RUNNING", "the next one runs")
    assert service.ask("GET", f"/jobs/{queued.body['id']}").body["started_by"] == "request"
    assert service.ask("POST", f"/jobs/{job_id}/cancel").body["state"] == "STOPPED"


@pytest.mark.slow
@pytest.mark.parametrize("token", [None, "wrong", "ünïcode", "x" * 5000])
def test_without_the_token_nothing_is_told_or_done(service: TriggerProcess, token: str | None) -> None:
    for method, path in (
        ("GET", "/jobs"),
        ("GET", "/config"),
        ("GET", "/watch"),
        ("GET", "/jobs/training-0123456789ab"),
        ("POST", "/trigger-training"),
        ("POST", "/trigger-finetune"),
        ("POST", "/jobs/training-0123456789ab/cancel"),
    ):
        answer = service.ask(method, path, {} if method == "POST" else None, token and token.encode().decode("latin-1"))
        assert answer.status == 401, path
        assert answer.headers.get("www-authenticate") == "Bearer"
    assert running(service) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"run_name": "../outside"}, 422),
        ({"run_name": ".hidden"}, 422),
        ({"run_name": "a/b"}, 422),
        ({"run_name": "a\n"}, 422),
        ({"data": "/etc/passwd"}, 404),
        ({"data": "FOLDER/secret.yaml"}, 404),
        ({"data": "FOLDER/datasets/../secret.yaml"}, 404),
        ({"data": "FOLDER/datasets/link.yaml"}, 404),
        ({"data": "FOLDER/datasets/images"}, 404),
        ({"data": "FOLDER/datasets/train.yaml\u0000"}, 422),
        ({"data": "s3://elsewhere/data.yaml"}, 404),
        ({"settings": {"output_dir": "/tmp"}}, 422),
        ({"settings": {"pretrained": "/tmp/evil.pt"}}, 422),
        ({"settings": {"tracking.uri": "http://elsewhere"}}, 422),
        ({"settings": {"epochs": "3 --config x"}}, 422),
        ({"settings": {"epochs": 0}}, 422),
        ({"settings": {"epochs": True}}, 422),
        ({"model": "../../x@champion"}, 422),
        ({"model": "xray@champion; rm -rf /"}, 422),
        ({"model": "xray"}, 422),
        ({"unknown": 1}, 422),
        (b"{", 422),
        (b"[]", 422),
        (b"x" * 70_000, 413),
    ],
)
def test_tricks_are_refused(service: TriggerProcess, body: object, status: int) -> None:
    if isinstance(body, dict) and "data" in body:
        body = {"data": body["data"].replace("FOLDER", str(service.folder))}
    answer = service.ask("POST", "/trigger-finetune", body)
    assert answer.status == status, answer.body
    assert running(service) == []
    assert service.ask("GET", "/jobs/..%2f..%2fetc").status in (404, 422)


@pytest.mark.slow
def test_health_tells_of_the_parts_and_config_no_secret(service: TriggerProcess) -> None:
    health = service.ask("GET", "/health", token=None)
    assert health.status == 200, health.body
    assert {name: part["ok"] for name, part in health.body["parts"].items()} == dict.fromkeys(
        ("ray", "mlflow", "storage", "watch"), True
    )
    config = service.ask("GET", "/config")
    assert config.body["model"] == "xray-detector"
    for secret in (service.token, service.cluster.token):
        assert secret not in str(config.body)
        assert secret not in service.log()
    page = service.ask("GET", "/docs", token=None).body
    assert "/trigger-finetune" in page
    assert "http://" not in page
    assert "https://" not in page
    other = subprocess.run(
        [sys.executable, "-m", "ray_jobs.trigger", "--config", str(service.folder / "trigger.yaml")],
        env={"XRAY_TRIGGER_TOKEN": "x" * 16, "PATH": "", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert other.returncode == 2
    assert "another trigger service uses it" in other.stderr


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_said(service: TriggerProcess, tmp_path: Path) -> None:
    lost = TriggerProcess(tmp_path, Cluster("http://127.0.0.1:9", "x" * 16), service.options)
    lost.options = {**service.options, "state": str(tmp_path / "state")}
    lost.start()
    try:
        answer = lost.ask("POST", "/trigger-training", {})
        assert answer.status == 503
        assert "http://127.0.0.1:9 does not do it" in answer.body["detail"]
        health = lost.ask("GET", "/health", token=None)
        assert health.status == 503
        assert health.body["parts"]["ray"]["ok"] is False
        assert health.body["parts"]["storage"]["ok"] is True
    finally:
        lost.stop()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_schemathesis_finds_nothing(service: TriggerProcess) -> None:
    """Every request of the description, with good and bad values, while a job runs."""
    assert service.ask("POST", "/trigger-training", {}).status == 202
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "run", f"{service.url}/openapi.json", "--header", f"Authorization: Bearer {service.token}"]
    done = subprocess.run(
        [*command, "--max-examples", "12", "--seed", "1", "--no-color", "--request-timeout", "60"],
        cwd=service.folder,
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-500:]
