"""A registry with real versions in a SQLite file, and a data set that their detectors can read."""

import shutil
from pathlib import Path

import cv2
from small_detector import NAMES, draw_picture

from ray_jobs.dataset.source import describe_data
from ray_jobs.flows.preparation import check_data
from ray_jobs.flows.promotion import Candidate, promote
from ray_jobs.settings import Settings, load_config_with_defaults
from ray_jobs.storage import sha256_of
from ray_jobs.tracking.client import connect
from ray_jobs.tracking.promotion import Registry
from ray_jobs.tracking.registered_model import ONNX_TAG, WEIGHTS_TAG
from ray_jobs.tracking.registry import RegistryRequest, register_model


def draw_shapes(images: Path, seeds: range) -> None:
    """Pictures of discs and squares, and their labels beside the images' folder."""
    labels = Path(str(images).replace("/images", "/labels"))
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        pixels, boxes = draw_picture(seed)
        cv2.imwrite(str(images / f"{seed}.png"), pixels)
        lines = [f"{int(row[0])} " + " ".join(f"{value:.6f}" for value in row[1:]) for row in boxes]
        (labels / f"{seed}.txt").write_text("\n".join(lines))


def shapes_data(folder: Path, train: int = 1, test: int = 24) -> Path:
    """A data set of discs and squares with one image for val; returns its data.yaml."""
    for split, seeds in {
        "train": range(900, 900 + train),
        "val": range(800, 801),
        "test": range(100, 100 + test),
    }.items():
        draw_shapes(folder / "images" / split, seeds)
    splits = "".join(f"{split}: images/{split}\n" for split in ("train", "val", "test"))
    (folder / "data.yaml").write_text(f"{splits}names: {list(NAMES)}\n")
    return folder / "data.yaml"


class Shop:
    """A registry with versions made from folders of weights."""

    def __init__(self, folder: Path, database: Path, data_yaml: Path, name: str = "shapes") -> None:
        self.folder, self.name = folder, name
        shutil.copy(database, folder / "mlflow.db")
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        keys = [f"data={data_yaml}", f"output_dir={folder}", f"weights_dir={folder / 'weights'}", "device=cpu"]
        self.overrides = [*keys, f"tracking.uri={self.uri}"]
        self.settings: Settings = load_config_with_defaults(None, self.overrides)
        self.report = check_data(self.settings, describe_data(data_yaml))
        self.registry = Registry(self.uri, name)
        self.said: list[str] = []

    def register(self, model: Path, onnx: Path | None = None) -> Candidate:
        client = connect(self.uri)
        found = client.get_experiment_by_name("shapes")
        location = (self.folder / "artifacts").as_uri()
        experiment = found.experiment_id if found else client.create_experiment("shapes", artifact_location=location)
        run_id = client.create_run(experiment).info.run_id
        folder = self.folder / run_id
        folder.mkdir()
        shutil.copy(model / "best.pt", folder)
        shutil.copy((onnx or model) / "best.onnx", folder)
        self.settings.save(folder / "settings.yaml")
        for name, place in (("best.pt", "weights"), ("best.onnx", "weights"), ("settings.yaml", None)):
            client.log_artifact(run_id, str(folder / name), place)
        tags = {WEIGHTS_TAG: sha256_of(folder / "best.pt"), ONNX_TAG: sha256_of(folder / "best.onnx")}
        tags["dataset_fingerprint"] = self.report.fingerprint
        request = RegistryRequest(self.name, folder / "best.onnx", tags=tags, description="A test.")
        version = self.registry.version(register_model(client, run_id, request, folder).version)
        return Candidate(version, folder / "best.pt", folder / "best.onnx", self.report.index)

    def promote(self, candidate: Candidate) -> dict:
        return promote(self.settings, self.registry, candidate, self.said.append)
