"""The script that starts a node: what it tells Ray, and that no two workers of a host take the same GPU."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.engine import PROJECT

SCRIPT = PROJECT / "cluster" / "ray-node.sh"
# Stands in for Ray: says how it was called, then stays (as `ray start --block` does) until its input ends.
RAY = '#!/bin/sh\necho "gpus=${CUDA_VISIBLE_DEVICES-unset} $* redis=${RAY_REDIS_ADDRESS-unset}"\ncat >/dev/null\n'


class Nodes:
    """Starts nodes on a pretended host with ``gpus`` GPUs; a node ends when its input is closed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, []
        (folder / "claims").mkdir()
        self.tool("ray", RAY)

    def tool(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def gpus(self, number: int) -> None:
        self.tool("nvidia-smi", "#!/bin/sh\n" + "".join(f"echo GPU-{index}\n" for index in range(number)))

    def start(self, role: str, **variables: str) -> str:
        """What the node told Ray, or what it said before it gave up."""
        node = subprocess.Popen(
            [SCRIPT, role],
            env={"PATH": f"{self.folder}:{os.environ['PATH']}", "GPU_CLAIMS": str(self.folder / "claims"), **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.running.append(node)
        return node.stdout.readline().strip()

    def stop(self, index: int = -1) -> int:
        node = self.running.pop(index)
        node.stdin.close()
        node.stdout.close()
        return node.wait(timeout=10)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    nodes = Nodes(tmp_path)
    yield nodes
    while nodes.running:
        nodes.stop()


def test_the_head_offers_no_cpu_and_no_gpu(nodes: Nodes) -> None:
    said = nodes.start("head", RAY_OBJECT_STORE_BYTES="1000")
    assert said.startswith("gpus=unset start --head")
    assert {"--num-cpus=0", "--num-gpus=0", "--object-store-memory=1000", "--block"} <= set(said.split())


def test_the_head_keeps_its_state_in_its_memory_or_in_redis(nodes: Nodes) -> None:
    assert nodes.start("head", RAY_REDIS_ADDRESS="", RAY_REDIS_PASSWORD="").endswith(" redis=unset")
    said = nodes.start("head", RAY_REDIS_ADDRESS="redis:6379", RAY_REDIS_PASSWORD="x")
    assert said.endswith(" redis=redis:6379")
    assert "--redis-password=x" in said.split()


def test_a_worker_without_gpus_offers_the_cpus_it_is_told(nodes: Nodes) -> None:
    said = nodes.start("worker", RAY_HEAD="ray-head:6379", WORKER_CPUS="3")
    assert said.startswith("gpus=unset start --address=ray-head:6379")
    assert "--num-cpus=3" in said.split()


def test_each_worker_claims_its_own_gpus(nodes: Nodes) -> None:
    nodes.gpus(4)
    claims = [nodes.start("worker", RAY_HEAD="h", WORKER_GPUS="2").split()[0] for _ in range(2)]
    assert claims == ["gpus=GPU-0,GPU-1", "gpus=GPU-2,GPU-3"]


def test_a_worker_without_a_free_gpu_says_so_and_ends(nodes: Nodes) -> None:
    nodes.gpus(1)
    nodes.start("worker", RAY_HEAD="h")
    said = nodes.start("worker", RAY_HEAD="h")
    assert "WORKER_GPUS=1, but only 0 of 1 GPUs of this host are not claimed" in said
    assert nodes.stop() == 1


def test_a_worker_that_ends_gives_its_gpu_back(nodes: Nodes) -> None:
    nodes.gpus(1)
    nodes.start("worker", RAY_HEAD="h")
    nodes.stop()
    assert nodes.start("worker", RAY_HEAD="h", WORKER_GPUS="all").startswith("gpus=GPU-0 ")
