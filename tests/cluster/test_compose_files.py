"""What the three compose files and .env.example say, as the current compose reads them."""

import itertools
import json
import re
from pathlib import Path

import pytest
import yaml

from tests.cluster.engine import PROJECT, SECRETS, compose, new_secrets

FILES = ("docker-compose-ray-cuda.yaml", "docker-compose-ray-tune.yaml", "docker-compose-yolo-ray.yaml")
SHARED = "cluster/services.yaml"
CPU = "cluster/cpu.override.yaml"
EVERY_PROFILE = ("--profile", "retrain", "--profile", "benchmark", "--profile", "redis")
every_file = pytest.mark.parametrize("file", FILES)


def resolved(file: str, overrides: tuple[str, ...] = (), **variables: str) -> dict:
    """The configuration as compose resolves it with fresh secrets; it never leaves the test."""
    done = compose(
        file, *EVERY_PROFILE, "config", "--format", "json", environment=new_secrets() | variables, overrides=overrides
    )
    assert done.returncode == 0, "compose refused the file; run its `config` by hand"
    return json.loads(done.stdout)


def published(configuration: dict) -> set[tuple[str, str]]:
    """Every (address, port) that the host would listen on."""
    return {
        (port["host_ip"], port["published"])
        for service in configuration["services"].values()
        for port in service.get("ports", ())
    }


@every_file
def test_the_file_is_valid_with_and_without_a_gpu(file: str) -> None:
    with_gpu, without = resolved(file), resolved(file, (CPU,))
    reservations = with_gpu["services"]["ray-worker"]["deploy"]["resources"]["reservations"]
    assert reservations["devices"][0]["driver"] == "nvidia"
    assert "devices" not in str(without["services"]["ray-worker"]["deploy"])


@every_file
@pytest.mark.parametrize("secret", SECRETS)
def test_a_missing_secret_stops_with_its_name(file: str, secret: str) -> None:
    done = compose(file, "config", "--quiet", environment=new_secrets() | {secret: ""})
    assert done.returncode != 0
    assert f"required variable {secret} is missing a value" in done.stdout


def test_the_example_names_every_variable_and_gives_no_secret() -> None:
    used = {
        name for file in (*FILES, SHARED, CPU) for name in re.findall(r"\$\{([A-Z0-9_]+)", (PROJECT / file).read_text())
    }
    lines = (PROJECT / ".env.example").read_text().splitlines()
    described = {match[1]: match[2] for line in lines if (match := re.fullmatch(r"#?([A-Z0-9_]+)=(.*)", line))}
    assert set(described) == used | {"COMPOSE_PROFILES"}  # compose's own
    assert {name: described[name] for name in SECRETS} == dict.fromkeys(SECRETS, "")


def test_every_variable_of_the_example_has_a_comment_above_it() -> None:
    variable = re.compile(r"#?[A-Z0-9_]+=.*")
    lines = (PROJECT / ".env.example").read_text().splitlines()
    pairs = itertools.pairwise(lines)
    assert [line for above, line in pairs if variable.fullmatch(line) and not re.match(r"# \w", above)] == []


def test_no_secret_has_a_default() -> None:
    text = "".join((PROJECT / file).read_text() for file in (*FILES, SHARED))
    for name in SECRETS:
        assert not re.search(rf"\$\{{{name}(:?-|:?\+|\}})", text), name


@every_file
def test_every_service_comes_from_the_shared_file(file: str) -> None:
    services = yaml.safe_load((PROJECT / file).read_text())["services"]
    assert {service["extends"]["file"] for service in services.values()} == {SHARED}
    assert not any({"image", "build", "volumes"} & service.keys() for service in services.values())


def test_the_three_share_no_port_no_network_and_no_volume() -> None:
    configurations = [resolved(file) for file in FILES]
    ports = [published(each) for each in configurations]
    assert len(set.union(*ports)) == sum(map(len, ports)) == 7 * len(FILES) + 1  # the trigger
    volumes = [{volume["name"] for volume in each["volumes"].values()} for each in configurations]
    # The GPUs of a host are one stock: the claims on them are shared on purpose.
    assert set.intersection(*volumes) == {"xray-gpu-claims"}
    assert len(set.union(*volumes)) == 9 * len(FILES) + 1
    assert len({each["networks"]["default"]["name"] for each in configurations}) == len(FILES)


@every_file
def test_every_port_is_bound_to_the_bind_address(file: str) -> None:
    assert {address for address, _ in published(resolved(file))} == {"127.0.0.1"}
    assert {address for address, _ in published(resolved(file, BIND_ADDRESS="192.0.2.7"))} == {"192.0.2.7"}


@every_file
def test_every_service_gives_up_privileges_and_limits_its_log(file: str) -> None:
    for name, service in resolved(file)["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}, name


@every_file
def test_every_lasting_service_is_watched_and_comes_back(file: str) -> None:
    services = resolved(file)["services"]
    lasting = {name for name, service in services.items() if service["restart"] == "unless-stopped"}
    once = {"object-store-user", "buckets"} | {"tune", "train", "retrain", "benchmark"} & services.keys()
    assert services.keys() - lasting == once
    assert all("healthcheck" in services[name] for name in lasting)


@every_file
def test_every_node_has_the_same_folders(file: str) -> None:
    services = resolved(file, DATASETS_DIR="/data/xrays")["services"]
    for node in ("ray-head", "ray-worker"):
        mounts = {mount["target"]: mount for mount in services[node]["volumes"]}
        assert mounts["/app/datasets"]["source"] == "/data/xrays"
        assert mounts["/app/datasets"]["read_only"]
        assert Path(mounts["/app/config"]["source"]) == PROJECT / "config"
        assert mounts["/app/config"]["read_only"]
        own = {target: mounts[target]["source"] for target in ("/app/runs", "/app/weights", "/data-cache")}
        assert own == {"/app/runs": "runs", "/app/weights": "weights", "/data-cache": "data-cache"}
        assert services[node]["environment"]["XRAY_DATA_CACHE"] == "/data-cache"


@every_file
def test_what_must_last_lies_in_volumes_of_the_environment(file: str) -> None:
    configuration = resolved(file)
    kept = {
        "ray-head": {"/app/runs", "/app/weights"},
        "mlflow": {"/mlflow"},
        "minio": {"/data"},
        "prometheus": {"/prometheus"},
        "alertmanager": {"/alertmanager"},
        "grafana": {"/var/lib/grafana"},
    }
    for service, folders in kept.items():
        mounts = {mount["target"]: mount for mount in configuration["services"][service]["volumes"]}
        for folder in folders:
            assert mounts[folder]["type"] == "volume", (service, folder)
            volume = configuration["volumes"][mounts[folder]["source"]]["name"]
            assert volume.startswith(f"{configuration['name']}_"), volume


@every_file
def test_the_object_store_is_another_one_by_one_variable(file: str) -> None:
    services = resolved(file, OBJECT_STORE_IMAGE="quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z")["services"]
    assert services["minio"]["image"] == services["object-store-user"]["image"]
    assert services["minio"]["image"].startswith("quay.io/")


@every_file
def test_grafana_asks_for_a_login_and_can_stand_in_frames(file: str) -> None:
    services = resolved(file)["services"]
    settings, head = services["grafana"]["environment"], services["ray-head"]["environment"]
    assert settings["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert settings["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert settings["GF_SECURITY_ALLOW_EMBEDDING"] == "true"
    [port] = services["grafana"]["ports"]
    assert head["RAY_GRAFANA_IFRAME_HOST"] == f"http://localhost:{port['published']}"
    assert head["RAY_GRAFANA_HOST"] == f"http://grafana:{port['target']}"
    asked_for = resolved(file, GRAFANA_ANONYMOUS="true")["services"]["grafana"]["environment"]
    assert asked_for["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert asked_for["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


@every_file
def test_parts_that_stand_elsewhere_are_not_started(file: str) -> None:
    elsewhere = {"S3_ENDPOINT_URL": "https://s3.example.org", "MLFLOW_TRACKING_URI": "https://mlflow.example.org"}
    services = resolved(file, LOCAL_OBJECT_STORE="0", LOCAL_MLFLOW="0", **elsewhere)["services"]
    left_out = {name for name, service in services.items() if service.get("deploy", {}).get("replicas") == 0}
    assert left_out == {"minio", "object-store-user", "buckets", "mlflow"}
    for node in ("ray-head", "ray-worker"):
        assert services[node]["environment"]["AWS_ENDPOINT_URL"] == elsewhere["S3_ENDPOINT_URL"]
        assert services[node]["environment"]["MLFLOW_TRACKING_URI"] == elsewhere["MLFLOW_TRACKING_URI"]


@every_file
def test_the_head_keeps_its_state_in_redis_where_an_address_says_so(file: str) -> None:
    def services(**variables: str) -> dict:
        done = compose(file, "config", "--format", "json", environment=new_secrets() | variables)
        assert done.returncode == 0, done.stdout[-300:]
        return json.loads(done.stdout)["services"]

    without = services()
    assert "redis" not in without
    assert without["ray-head"]["environment"]["RAY_REDIS_ADDRESS"] == ""
    secret = {"RAY_REDIS_ADDRESS": "redis:6379", "RAY_REDIS_PASSWORD": "a-secret"}
    kept = services(**secret, COMPOSE_PROFILES="redis")
    assert {kept["ray-head"]["environment"][name] for name in secret} == set(secret.values())
    assert kept["ray-head"]["depends_on"]["redis"]["condition"] == "service_healthy"
    assert kept["redis"]["environment"] == {"REDISCLI_AUTH": "a-secret"}
    assert "a-secret" not in str(kept["redis"]["command"])
    assert "a-secret" not in str(kept["ray-worker"])
    assert "ports" not in kept["redis"]
    assert "redis" not in services(**secret)  # a server elsewhere


@every_file
def test_a_redis_without_a_password_is_refused(file: str) -> None:
    done = compose(file, "config", "--quiet", environment=new_secrets() | {"RAY_REDIS_ADDRESS": "redis:6379"})
    assert done.returncode != 0
    assert "required variable RAY_REDIS_PASSWORD is missing a value" in done.stdout


@every_file
def test_one_image_for_head_workers_jobs_and_tracking(file: str) -> None:
    services = resolved(file)["services"]
    own = {"ray-head", "ray-worker", "mlflow", "buckets", "tune", "train", "retrain", "benchmark"} & services.keys()
    assert {services[name]["image"] for name in own} == {"xray-ray:latest"}


@every_file
def test_images_from_elsewhere_are_pinned(file: str) -> None:
    images = {service["image"] for service in resolved(file)["services"].values()} - {"xray-ray:latest"}
    assert len(images) == 5
    assert all(re.search(r":(v?\d|RELEASE\.\d)", image) for image in images), images
