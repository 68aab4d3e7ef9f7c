"""The environments on a real Docker engine, with real parts under the names of images that may not be at hand.

No image is pulled. The project's own image is built from ``cluster/Dockerfile`` on a Debian base, without its packages:
the interpreter and the packages that run these tests are mounted read-only in their place. MinIO's place is taken by
Ceph's S3 gateway, Prometheus, Alertmanager and Redis are Debian's, all from this machine's /usr. Grafana is left out:
there is no server for it here. Everything else (services, order of start, health checks, networks, volumes, secrets,
users) is what the compose files say.
"""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
PARTS = ("ray-worker", "mlflow", "prometheus", "alertmanager", "probe")
BASE_IMAGE = os.environ.get("XRAY_TEST_BASE_IMAGE", "xray-test-base:bookworm")
IMAGE = "xray-test:latest"
COMPOSE = os.environ.get("XRAY_TEST_COMPOSE", "docker-compose")
SECRETS = (
    "RAY_AUTH_TOKEN",
    "MLFLOW_PASSWORD",
    "MLFLOW_SECRET_KEY",
    "OBJECT_STORE_ROOT_USER",
    "OBJECT_STORE_ROOT_PASSWORD",
    "S3_SECRET_KEY",
    "GRAFANA_ADMIN_PASSWORD",
    "XRAY_TRIGGER_TOKEN",
)
OWN_IMAGE_SERVICES = ("ray-head", "ray-worker", "mlflow", "buckets", "object-store-user", "probe")


def new_secrets() -> dict[str, str]:
    """A fresh value for every secret that .env.example names."""
    return {name: secrets.token_hex(16) for name in SECRETS}


def compose(
    file: str, *arguments: str, environment: dict[str, str], overrides: Iterable[Path | str] = (), timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run compose on one of the project's files with these variables and no others (no .env of the checkout)."""
    files = [part for each in (file, *overrides) for part in ("--file", str(each))]
    return subprocess.run(
        [COMPOSE, "--env-file", os.devnull, *files, *arguments],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
        | {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
        | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
    )


def docker(*arguments: str, timeout: float = 60) -> str:
    """Run the docker client; raise with what it said if it fails."""
    done = subprocess.run(["docker", *arguments], text=True, capture_output=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def build_image() -> str:
    """Build the project's image on the test base, leaving the heavy packages to the mount; returns its name."""
    build = ["build", "--quiet", "--tag", IMAGE, "--file", "cluster/Dockerfile", str(PROJECT)]
    arguments = {"BASE_IMAGE": BASE_IMAGE, "REQUIREMENTS": "cluster/requirements.txt"}
    done = subprocess.run(
        ["docker", *build, *(part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}"))],
        cwd=PROJECT,
        env=os.environ | {"DOCKER_BUILDKIT": "0"},  # the engine's own builder: buildx may not be installed
        text=True,
        capture_output=True,
        timeout=300,
    )
    if done.returncode:
        raise RuntimeError(f"building the image failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return IMAGE


def real_parts(job_services: Iterable[str]) -> dict[str, object]:
    """The override that puts real parts under the names of the images that are not at hand."""
    packages, interpreter = Path(sys.prefix).resolve(), Path(sys.base_prefix)
    mounted = [packages] if interpreter == Path("/usr") else [packages, interpreter]
    python = {
        "volumes": [f"{folder}:{folder}:ro" for folder in mounted],
        "environment": {"PATH": f"{packages}/bin:/usr/local/bin:/usr/bin:/bin"},
    }
    # /usr of this machine holds the parts; init must go, for Docker would mount its own under /usr as well.
    debian = {"image": BASE_IMAGE, "init": False, "volumes": ["/usr:/usr:ro"]}
    services: dict[str, dict[str, object]] = {name: dict(python) for name in (*OWN_IMAGE_SERVICES, *job_services)}
    services["object-store-user"] |= {
        "image": IMAGE,
        "entrypoint": ["python", "/grant.py"],
        "volumes": [*python["volumes"], f"{HERE}/grant.py:/grant.py:ro"],
        "environment": python["environment"] | {"AWS_ENDPOINT_URL": "http://minio:9000"},
    }
    services["minio"] = debian | {
        "entrypoint": ["sh", "/ceph.sh"],
        "command": [],
        "volumes": ["/usr:/usr:ro", f"{HERE}/ceph.sh:/ceph.sh:ro"],
        "environment": {"S3_ACCESS_KEY": "${S3_ACCESS_KEY:-xray-ray}", "S3_SECRET_KEY": "${S3_SECRET_KEY}"},
        "healthcheck": {"test": ["CMD", "curl", "-fsS", "http://127.0.0.1:9000"]},
    }
    services["prometheus"] = debian | {"entrypoint": ["prometheus"]}
    services["alertmanager"] = debian | {"entrypoint": ["prometheus-alertmanager"]}
    services["redis"] = debian | {"tmpfs": ["/data:mode=1777"]}
    services["grafana"] = {"profiles": ["absent"]}
    return {"services": services}


class Environment:
    """One compose file, up for real. ``folder`` takes its settings, its override and its logs."""

    def __init__(self, file: str, folder: Path, variables: dict[str, str], job_services: Iterable[str] = ()) -> None:
        folder.mkdir(parents=True)
        self.file, self.folder = file, folder
        self.secrets = new_secrets()
        self.variables = variables | self.secrets
        self.project = str(yaml.safe_load((PROJECT / file).read_text())["name"])
        override = folder / "real-parts.yaml"
        override.write_text(yaml.safe_dump(real_parts(job_services)))
        self._overrides = (PROJECT / "cluster" / "cpu.override.yaml", override)

    def change(self, **values: str) -> None:
        """What a person does who writes other secrets into .env."""
        self.secrets |= values
        self.variables |= values

    def compose(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a compose command on this environment."""
        return compose(self.file, *arguments, environment=self.variables, overrides=self._overrides, timeout=timeout)

    def up(self, *services: str, timeout: float = 240) -> float:
        """Start these services and what they need, wait until all are healthy; returns the seconds that took."""
        began = time.monotonic()
        done = self.compose("up", "--detach", "--wait", "--quiet-pull", *services, timeout=timeout)
        assert done.returncode == 0, f"{self.file} did not come up:\n{done.stdout[-3000:]}\n{self.log_tails()}"
        return time.monotonic() - began

    def down(self, *, volumes: bool) -> None:
        """Stop and remove everything, with its data if asked; the logs are kept in the folder first."""
        self.keep_logs()
        done = self.compose(
            "--profile", "*", "down", "--remove-orphans", *(["--volumes"] if volumes else []), timeout=180
        )
        assert done.returncode == 0, done.stdout[-3000:]

    def containers(self) -> list[dict[str, object]]:
        """One entry per container, the ended ones too: Service, State, Health, ExitCode, ID ..."""
        lines = self.compose("ps", "--all", "--format", "json").stdout.splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def left_behind(self) -> list[str]:
        """Containers, volumes and networks that carry this project's label."""
        label = f"label=com.docker.compose.project={self.project}"
        listings = (["ps", "--all", "--quiet"], ["volume", "ls", "--quiet"], ["network", "ls", "--quiet"])
        return [name for listing in listings for name in docker(*listing, "--filter", label).split()]

    def logs(self) -> str:
        """Everything that every container said."""
        return self.compose("logs", "--no-color", "--timestamps").stdout

    def keep_logs(self) -> None:
        """Write each service's log into the folder."""
        for service in {str(each["Service"]) for each in self.containers()}:
            log = self.compose("logs", "--no-color", "--no-log-prefix", service).stdout
            with (self.folder / f"{service}.log").open("a") as file:
                file.write(log)

    def log_tails(self, lines: int = 25) -> str:
        """The last lines of every service's log, for a failed test."""
        self.keep_logs()
        tails = [
            f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-lines:]) for log in self.folder.glob("*.log")
        ]
        text = "\n".join(tails)
        for value in self.secrets.values():
            text = text.replace(value, "***")
        return text


def wait_for(what: str, ready: Callable[[], object], timeout: float, poll: float = 0.5) -> object:
    """The first true answer of ``ready``, or a failure that names what was waited for."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if answer := ready():
            return answer
        time.sleep(poll)
    raise AssertionError(f"waited {timeout:.0f} s in vain for {what}")


def healthy(environment: Environment) -> dict[str, int]:
    """How many healthy containers each service has."""
    services = [str(each["Service"]) for each in environment.containers() if each["Health"] == "healthy"]
    return {service: services.count(service) for service in services}
