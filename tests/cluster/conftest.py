"""A Docker engine, the image, settings for a short training, and what a failed test prints."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster import engine
from tests.cluster.engine import Environment

# Small enough for two cores, large enough that two workers share every step.
SHORT_TRAINING = {
    "model_name": "yolo12n",
    "pretrained": False,
    "epochs": 3,
    "img_size": 64,
    "batch_size": 16,
    "device": "cpu",
    "workers": 0,
    "output_dir": "/app/runs",
    "weights_dir": "/app/weights",
    "cluster": {"num_workers": 2, "cpus_per_worker": 1, "gpus_per_worker": 0},
}
# Two nodes, one CPU each: two training workers cannot but be in two containers.
SMALL_NODES = {
    "RAY_WORKERS": "2",
    "WORKER_CPUS": "1",
    "RAY_OBJECT_STORE_BYTES": "200000000",
    "HEAD_SHM_SIZE": "512mb",
    "WORKER_SHM_SIZE": "512mb",
    "DRAIN_SECONDS": "5",
    "MLFLOW_WORKERS": "1",
}
SHORT_FINE_TUNING = {**SHORT_TRAINING, "epochs": 1, "samples": 0}
for key in ("model_name", "pretrained", "img_size"):  # the model's own
    del SHORT_FINE_TUNING[key]
SHORT_SEARCH = {
    "space": {"optimizer": "AdamW", "lr0": {"loguniform": [0.001, 0.01]}},
    "budget": {"samples": 20, "epochs": 1},
    "scheduler": {"name": "none"},
}


@pytest.fixture(scope="session")
def image() -> str:
    """The project's image, built on this engine. Says what is missing where it cannot be."""
    for tool in ("docker", engine.COMPOSE):
        if shutil.which(tool) is None:
            pytest.fail(f"{tool} is missing: run .ci/cluster.sh, which installs and starts what these tests need")
    if subprocess.run(["docker", "image", "inspect", engine.BASE_IMAGE], capture_output=True).returncode:
        pytest.fail(f"no Docker engine, or no image {engine.BASE_IMAGE} on it: run .ci/cluster.sh")
    return engine.build_image()


@pytest.fixture(scope="session")
def new_environment(
    image: str, xrays_mini: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Environment]]:
    """Makes an environment with settings for a short training on real X-rays; takes down what tests left up."""
    config = tmp_path_factory.mktemp("config")
    data = yaml.safe_load((xrays_mini / "data.yaml").read_text()) | {"path": f"/app/datasets/{xrays_mini.name}"}
    (config / "data.yaml").write_text(yaml.safe_dump(data))
    (config / "config.yaml").write_text(yaml.safe_dump(SHORT_TRAINING))
    (config / "retrain.yaml").write_text(yaml.safe_dump(SHORT_FINE_TUNING))
    (config / "tune.yaml").write_text(yaml.safe_dump(SHORT_SEARCH))
    shutil.copy(engine.PROJECT / "config" / "trigger.yaml", config)
    for path in (config, *config.iterdir()):
        path.chmod(0o755)  # read by another user in the containers
    made: list[Environment] = []

    def make(file: str, *, jobs: tuple[str, ...] = (), **variables: str) -> Environment:
        folders = {"DATASETS_DIR": str(xrays_mini.parent), "CONFIG_DIR": str(config)}
        folder = tmp_path_factory.mktemp("environments") / Path(file).stem
        environment = Environment(file, folder, SMALL_NODES | folders | {"XRAY_IMAGE": image} | variables, jobs)
        environment.down(volumes=True)  # what an interrupted run left
        made.append(environment)
        return environment

    yield make
    for environment in made:
        environment.down(volumes=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the last lines of every container's log below a failed test."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Environment):
                report.sections.append((f"containers of {value.project}", value.log_tails()))
    return report
