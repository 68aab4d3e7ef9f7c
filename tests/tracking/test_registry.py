"""The registered model: one version per run, words for people, and a model that stands on its own."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ray_jobs.tracking.client import connect
from ray_jobs.tracking.model_package import save_model_package, stage_source
from ray_jobs.tracking.registry import Registered, RegistryRequest, model_description, register_model

from .conftest import MlflowServer

PROJECT = Path(__file__).resolve().parents[2]

READ_ALONE = """
import importlib.abc, json, sys, warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType")  # MLflow, of itself

class Forbid(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ultralytics", "torch", "torchvision", "ray", "ray_jobs", "pytest"}:
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Forbid())
uri, model_uri, project = sys.argv[1:]
sys.path[:] = [path for path in sys.path if path not in ("", project)]
import mlflow, numpy
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model(model_uri)
white = numpy.full((128, 256), 255, numpy.uint8)
print(json.dumps([model.predict(white), model.predict([white, white * 0]), model.predict(white[None])]))
"""


@pytest.fixture
def request_(tiny_onnx: Path) -> RegistryRequest:
    return RegistryRequest("detector", tiny_onnx, tags={"fingerprint": "abc"}, description="Trained on phantoms.")


def make_run(uri: str, folder: Path) -> str:
    client = connect(uri)
    found = client.get_experiment_by_name("registry")
    location = None if uri.startswith("http") else (folder / "mlartifacts").as_uri()
    experiment = found.experiment_id if found else client.create_experiment("registry", artifact_location=location)
    return client.create_run(experiment).info.run_id


def read_alone(uri: str, model_uri: str, folder: Path) -> list:
    command = [sys.executable, "-I", "-c", READ_ALONE, uri, model_uri, str(PROJECT)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_version_reads_images_without_this_project_torch_or_ultralytics(
    tmp_path: Path, mlflow_server: MlflowServer, request_: RegistryRequest
) -> None:
    client = connect(mlflow_server.url)
    run_id = make_run(mlflow_server.url, tmp_path)
    request = replace(request_, name="reads-alone")
    assert register_model(client, run_id, request, tmp_path) == Registered("reads-alone", "1", "challenger")
    one, two, batch = read_alone(mlflow_server.url, "models:/reads-alone@challenger", tmp_path)
    assert one == batch
    assert len(two) == 2
    assert two[1] == []
    (finding,) = one[0]
    assert finding["label"] == "Nodule"
    assert finding["box"] == [88.0, 44.0, 168.0, 84.0]  # 20 x 10 in the middle of 64 pixels, at 128 x 256
    assert 0.25 < finding["score"] <= 1
    version = client.get_model_version_by_alias("reads-alone", "challenger")
    assert version.run_id == run_id
    assert version.description == "Trained on phantoms."
    assert version.tags["fingerprint"] == "abc"
    (output,) = client.get_run(run_id).outputs.model_outputs
    assert client.get_logged_model(output.model_id).source_run_id == run_id


def test_again_is_the_same_version_and_another_run_the_next(
    run_dir: Path, database: str, request_: RegistryRequest
) -> None:
    client = connect(database)
    first, second = make_run(database, run_dir), make_run(database, run_dir)
    for _ in range(2):
        assert register_model(client, first, request_, run_dir).version == "1"
    assert str(client.get_model_version_by_alias("detector", "challenger").version) == "1"
    assert register_model(client, second, request_, run_dir).version == "2"
    assert str(client.get_model_version_by_alias("detector", "challenger").version) == "2"
    assert len(client.search_model_versions("name = 'detector'")) == 2
    assert len(client.search_logged_models([client.get_experiment_by_name("registry").experiment_id])) == 2
    assert not (run_dir / "model").exists()


def test_a_version_made_twice_by_a_lost_answer_is_one_again(
    run_dir: Path, database: str, request_: RegistryRequest
) -> None:
    client = connect(database)
    run_id = make_run(database, run_dir)
    register_model(client, run_id, request_, run_dir)
    client.create_model_version("detector", source=client.get_model_version("detector", "1").source, run_id=run_id)
    assert register_model(client, run_id, request_, run_dir).version == "1"
    assert len(client.search_model_versions("name = 'detector'")) == 1


def test_without_an_alias_none_is_moved(run_dir: Path, database: str, tiny_onnx: Path) -> None:
    client = connect(database)
    registered = register_model(
        client, make_run(database, run_dir), RegistryRequest("plain", tiny_onnx, alias=None), run_dir
    )
    assert registered.as_dict() == {"name": "plain", "version": "1"}
    assert client.get_registered_model("plain").aliases == {}


def test_a_missing_file_is_named(run_dir: Path, database: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.onnx"):
        register_model(connect(database), "any", RegistryRequest("m", run_dir / "gone.onnx"), run_dir)


def test_the_package_holds_what_it_needs_and_nothing_else(tmp_path: Path, tiny_onnx: Path) -> None:
    save_model_package(tmp_path / "model", tiny_onnx)
    files = {str(path.relative_to(tmp_path / "model")) for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert {"MLmodel", "requirements.txt", "data/best.onnx"} <= files
    assert not [name for name in files if name.endswith((".png", ".jpg", ".pyc", ".pkl"))]
    requirements = (tmp_path / "model" / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in requirements)
    assert {line.partition("==")[0] for line in requirements} >= {"mlflow", "onnxruntime", "numpy"}


def test_the_packed_source_speaks_of_itself_alone(tmp_path: Path) -> None:
    package = stage_source(tmp_path)
    text = "\n".join(path.read_text() for path in package.rglob("*.py"))
    assert f"from {package.name}.reading.reader import Reader" in text
    assert "from ray_jobs" not in text
    assert "import ray_jobs" not in text
    assert stage_source(tmp_path / "again").name == package.name


def test_the_description_says_what_a_person_asks() -> None:
    text = model_description(
        name="detector",
        alias="challenger",
        model_name="yolo12n",
        classes=["Nodule", "Mass", "Effusion"],
        image_size=320,
        run_name="run-1",
        data_name="phantoms",
        fingerprint="abc123",
        counts={"train": {"images": 70, "boxes": 90}, "test": 22},
        test_metrics={"mAP50": 0.4567},
        date="1 May 2030",
    )
    for part in (
        "not for diagnosis",
        "find Nodule, Mass and Effusion in X-rays",
        "`abc123`",
        "- train: 70 images, 90 boxes",
        "- test: 22 images",
        "| mAP50 | 0.457 |",
        "1 May 2030",
        'load_model("models:/detector@challenger")',
    ):
        assert part in text
