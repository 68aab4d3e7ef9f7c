"""Where chaos happens: three Ray nodes, an object store and MLflow in containers, and a way into all of them.

It is environment 3 as ``tests/cluster/engine.py`` brings it up: a head that drives, two workers of one CPU each, so
that the two ranks of a run are in two containers. Between it and its object store stands a proxy that can be mean.
"""

import ipaddress
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from ray_jobs.storage import S3Storage
from tests.cluster.conftest import SMALL_NODES
from tests.cluster.engine import Environment, build_image, docker
from tests.faults.drive import SMALL, Drive, wait_until
from tests.faults.proxy import Proxy

BUCKET = "xray-ray"
STORE, MLFLOW = "http://127.0.0.1:29000", "http://127.0.0.1:25000"  # as environment 3 publishes them
HANG_TIMEOUT_S = 20
PATIENCE_S = 900.0  # for what takes seconds on a machine that does nothing else


class Site:
    """Everything up; ``close`` takes it down and leaves nothing."""

    def __init__(self, folder: Path, data: Path, epochs: int) -> None:
        """``data``: the folder of a data set with its data.yaml. ``epochs``: of every run."""
        self.epochs = epochs
        self.folder = folder
        config = folder / "config"
        config.mkdir(parents=True)
        config.chmod(0o755)  # read by another user in the containers
        description = yaml.safe_load((data / "data.yaml").read_text()) | {"path": f"/app/datasets/{data.name}"}
        (config / "data.yaml").write_text(yaml.safe_dump(description))
        bridge = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}").strip()
        self.proxy = Proxy(STORE, str(ipaddress.ip_network(bridge)[1]))  # this machine, as containers see it
        folders = {"DATASETS_DIR": str(data.parent), "CONFIG_DIR": str(config)}
        variables = SMALL_NODES | folders | {"XRAY_IMAGE": build_image(), "S3_ENDPOINT_URL": self.proxy.url}
        self.environment = Environment("docker-compose-yolo-ray.yaml", folder / "environment", variables)
        self.environment.down(volumes=True)  # what an interrupted run left
        wait_until(self._up, "all containers are up and healthy", PATIENCE_S)
        names = {str(each["Service"]): [] for each in self.environment.containers()}
        for each in self.environment.containers():
            names[str(each["Service"])].append(str(each["Name"]))
        self.workers: list[str] = sorted(names["ray-worker"])
        [self.head], [self.store], [self.mlflow] = names["ray-head"], names["minio"], names["mlflow"]
        project = self.environment.project
        self.network = f"{project}_default"
        self.runs = Path(docker("volume", "inspect", f"{project}_runs", "--format", "{{.Mountpoint}}").strip())
        secrets = self.environment.secrets
        os.environ |= {
            "AWS_ENDPOINT_URL": STORE,
            "AWS_ACCESS_KEY_ID": BUCKET,
            "AWS_SECRET_ACCESS_KEY": secrets["S3_SECRET_KEY"],
            "AWS_REGION": "us-east-1",
            "MLFLOW_TRACKING_USERNAME": "xray",
            "MLFLOW_TRACKING_PASSWORD": secrets["MLFLOW_PASSWORD"],
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "300",  # read at the end, on a machine that is busy
        }

    def _up(self) -> bool:
        """A busy machine may start a node too slowly for its health check; Docker starts it again, and so do we."""
        services = ("ray-worker", "mlflow")
        return self.environment.compose("up", "--detach", "--wait", *services, timeout=PATIENCE_S).returncode == 0

    def close(self) -> None:
        """Everything down, with its data; its logs stay in the folder."""
        for container in (*self.workers, self.mlflow):
            _quietly("unpause", container)
        self.environment.down(volumes=True)
        self.proxy.close()

    def submit(self, run: str) -> "Submission":
        """The command that begins a run, or goes on with it, in the head's container."""
        return Submission(self, run)

    def storage(self, run: str) -> S3Storage:
        """Where a run keeps its checkpoints, seen from outside and past the proxy."""
        return S3Storage(BUCKET, f"checkpoints/{run}")

    def address(self, container: str) -> str:
        """A container's address in the environment's network."""
        found = json.loads(docker("inspect", container))[0]["NetworkSettings"]["Networks"]
        return str(found[self.network]["IPAddress"])

    def processes(self, container: str, title: str) -> list[int]:
        """The processes of a container, as this machine numbers them, whose title has these words."""
        try:
            lines = docker("top", container, "-eo", "pid,args").splitlines()[1:]
        except RuntimeError:  # it does not run
            return []
        return [int(line.split(None, 1)[0]) for line in lines if title in line.split(None, 1)[1]]

    def rank_process(self, container: str) -> int:
        """The process of the rank that trains in this container."""
        wait_until(
            lambda: len(self.processes(container, "RayTrainWorker")) == 1,
            f"one training worker in {container}",
            PATIENCE_S,
        )
        return self.processes(container, "RayTrainWorker")[0]

    def start(self, container: str) -> None:
        """Start a container that was stopped or killed, and wait until it is healthy."""
        docker("start", container)
        self.healthy(container)

    def healthy(self, container: str) -> None:
        """Wait until a container says that it is healthy."""
        wait_until(
            lambda: docker("inspect", container, "--format", "{{.State.Health.Status}}").strip() == "healthy",
            f"{container} is healthy",
            PATIENCE_S,
        )

    def cable(self, container: str, state: str) -> None:
        """Pull the cable of a container (``down``) or plug it in (``up``); it keeps its address and its routes."""
        index = docker("exec", container, "cat", "/sys/class/net/eth0/iflink").strip()
        links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout.splitlines()
        [name] = [line.split(":")[1].partition("@")[0].strip() for line in links if line.startswith(f"{index}:")]
        subprocess.run(["ip", "link", "set", name, state], check=True)

    def journal(self, run: str) -> list[dict[str, Any]]:
        """The whole lines of a run's journal; one that a kill cut short is none."""
        file = self.runs / run / "journal.jsonl"
        lines = []
        for line in file.read_bytes().splitlines(keepends=True) if file.is_file() else ():
            try:
                lines.append(json.loads(line) if line.endswith(b"\n") else None)
            except ValueError:
                continue
        return [line for line in lines if isinstance(line, dict)]

    def unsent(self, run: str) -> int:
        """How many bytes of a run's record MLflow has not confirmed."""
        folder = self.runs / run / "tracking"
        try:
            offsets = [cursor["offset"] for cursor in json.loads((folder / "cursor.json").read_text()).values()]
            return (folder / "spool.jsonl").stat().st_size - max(offsets)
        except (OSError, ValueError):  # being replaced
            return 1


class Submission(Drive):
    """A run's driver in the head's container."""

    def __init__(self, site: Site, run: str) -> None:
        self._site = site
        options = [option for option in SMALL if not option.startswith(("epochs=", "keep=", "export."))]
        places = ["output_dir=/app/runs", "weights_dir=/app/weights", f"storage.url=s3://{BUCKET}/checkpoints"]
        limits = ["cluster.max_failures=-1", f"cluster.hang_timeout_s={HANG_TIMEOUT_S}", "cluster.wait_s=900"]
        super().__init__(
            site.folder,
            *("--data", "/app/config/data.yaml", "--run-name", run, "cluster.address=auto"),
            *(*options, *places, *limits, f"epochs={site.epochs}", "patience=1000", "keep=3"),
            tracking=True,
            train=["docker", "exec", site.head, "python", "-m", "ray_jobs.train"],
        )

    def kill(self) -> None:
        """SIGKILL to the driver, in its container."""
        for pid in self._site.processes(self._site.head, "-m ray_jobs.train"):
            os.kill(pid, 9)
        self.process.wait(60)

    @property
    def ended(self) -> bool:
        """Whether the driver has ended."""
        return self.process.poll() is not None


def _quietly(*arguments: str) -> None:
    try:
        docker(*arguments)
    except RuntimeError:
        return
