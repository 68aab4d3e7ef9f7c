"""Training over several nodes: a second raylet on this machine, where RANK is not LOCAL_RANK, and too few of them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SMALL = ["epochs=2", "img_size=96", "batch_size=8", "pretrained=false", "device=cpu", "samples=0", "export.onnx=false"]
TWO_NODES = """
import ray.cluster_utils, sys
cluster = ray.cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1, node_ip_address="127.0.0.2")
cluster.wait_for_nodes()
print("READY", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Two nodes of one CPU each, behind a token; the environment of those who join."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    environment = {
        **clean,
        "CUDA_VISIBLE_DEVICES": "",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
    }
    errors = (tmp_path_factory.mktemp("cluster") / "errors").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-c", TWO_NODES],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    address = next((line.split()[1] for line in process.stdout if line.startswith("READY")), None)
    assert address, Path(errors.name).read_text()
    yield {**environment, "RAY_ADDRESS": address}
    process.stdin.close()
    process.wait(60)
    process.stdout.close()
    errors.close()


def train(folder: Path, cluster: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ray_jobs.train", *map(str, arguments), *SMALL, "tracking.uri=none"]
    return subprocess.run(command, cwd=folder, env=cluster, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
def test_two_nodes_train_one_model(cluster: dict[str, str], xrays_mini: Path, tmp_path: Path) -> None:
    done = train(tmp_path, cluster, "--data", xrays_mini / "data.yaml", "--run-name", "a", "cluster.num_workers=2")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = map(json.loads, (tmp_path / "runs" / "a" / "journal.jsonl").read_text().splitlines())
    for line in (line for line in lines if line["kind"] == "epoch"):
        assert line["local_ranks"] == [0, 0]  # each is the first on its node, so RANK 1 has LOCAL_RANK 0
        assert len(line["weights_digests"]) == 2
        assert len(set(line["weights_digests"])) == 1


@pytest.mark.slow
def test_too_few_nodes_are_waited_for_and_then_said(cluster: dict[str, str], xrays_mini: Path, tmp_path: Path) -> None:
    wanted = ["cluster.num_workers=4", "cluster.cpus_per_worker=1", "cluster.wait_s=2"]
    done = train(tmp_path, cluster, "--data", xrays_mini / "data.yaml", *wanted)
    missing = "4 workers with 1 CPU each: the cluster has 2 CPUs and 0 GPUs on 2 node(s), room for 2"
    assert f"waiting for {missing}" in done.stdout
    assert f"waited 2 s for {missing}; add nodes, lower cluster.num_workers, or raise cluster.wait_s" in done.stderr
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
