"""A read server as a person starts it, following a champion in a registry of its own."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from read_server_process import ReadServerProcess, serving
from small_detector import small_detector

from ray_jobs.storage import sha256_of
from ray_jobs.tracking.client import connect
from ray_jobs.tracking.registered_model import ONNX_TAG
from ray_jobs.tracking.registry import RegistryRequest, register_model

NAME = "reader"


@dataclass
class ReadServer(ReadServerProcess):
    """A server that follows the champion of a registry."""

    registry: str

    def register(self, onnx: Path) -> str:
        """Register another champion; returns its version."""
        return crown(self.registry, self.folder, onnx)


def crown(registry: str, folder: Path, onnx: Path) -> str:
    """Register a detector, make it the champion, and return its version."""
    client = connect(registry)
    found = client.get_experiment_by_name("reader")
    experiment = found.experiment_id if found else client.create_experiment("reader", str(folder / "models"))
    run_id = client.create_run(experiment).info.run_id
    client.log_artifact(run_id, str(onnx), "weights")
    request = RegistryRequest(NAME, onnx, alias="champion", tags={ONNX_TAG: sha256_of(onnx)})
    return register_model(client, run_id, request, folder).version


@pytest.fixture(scope="module")
def read_server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[ReadServer]:
    """``python -m ray_jobs.read_server`` with the small detector as champion."""
    folder = tmp_path_factory.mktemp("reading")
    registry = f"sqlite:///{shutil.copy(empty_database, folder / 'mlflow.db')}"
    assert crown(registry, folder, small_detector() / "best.onnx") == "1"
    options = ["--poll-s", "0.5", "--at-once", "8", "--waiting", "8", "--max-mb", "2"]
    with serving(folder, registry, f"models:/{NAME}@champion", *options) as server:
        yield ReadServer(server.client, server.pid, folder, registry)
