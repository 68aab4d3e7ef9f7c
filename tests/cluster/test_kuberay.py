"""The Kubernetes manifests: the same image, folders and command as the compose files."""

import importlib.metadata

import pytest
import yaml

from tests.cluster.engine import PROJECT

KUBERAY = PROJECT / "cluster" / "kuberay"


@pytest.fixture(scope="module")
def cluster() -> dict:
    documents = yaml.safe_load_all((KUBERAY / "raycluster.yaml").read_text())
    return next(each for each in documents if each["kind"] == "RayCluster")["spec"]


def test_every_node_runs_the_image_as_its_user_in_the_same_folders(cluster: dict) -> None:
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        assert container["image"] == "xray-ray:latest"
        assert pod["securityContext"]["runAsUser"] == 1000
        mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
        assert mounts == {
            "/app/config": True,
            "/app/datasets": True,
            "/app/runs": False,
            "/app/weights": False,
            "/data-cache": False,
            "/dev/shm": False,
        }


def test_the_versions_agree(cluster: dict) -> None:
    assert cluster["rayVersion"] == importlib.metadata.version("ray")


def test_the_cluster_asks_for_a_token_and_its_head_offers_nothing(cluster: dict) -> None:
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_job_is_the_one_of_the_compose_files() -> None:
    job = yaml.safe_load((KUBERAY / "rayjob.yaml").read_text())["spec"]
    services = yaml.safe_load((PROJECT / "docker-compose-yolo-ray.yaml").read_text())["services"]
    submitted = services["train"]["command"].replace("${S3_BUCKET:-xray-ray}", "xray-ray").split()
    assert job["entrypoint"].split() == [word for word in submitted if word not in ("--", "${TRAIN_ARGS:-}")]
    assert job["backoffLimit"] == 0
