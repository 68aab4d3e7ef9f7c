"""The decision on real models and a real MLflow: shuffled labels are refused, a better model is promoted."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_detector import NAMES, SIZE, draw_picture, small_detector, train_small

from ray_jobs import promote as promote_job
from ray_jobs.detector.export import export_onnx
from ray_jobs.errors import DataError
from ray_jobs.flows.preparation import check_data
from ray_jobs.flows.promotion import Candidate, promote
from ray_jobs.settings import Settings, load_config_with_defaults
from ray_jobs.storage import sha256_of
from ray_jobs.tracking.client import connect
from ray_jobs.tracking.promotion import Registry
from ray_jobs.tracking.registered_model import ONNX_TAG, WEIGHTS_TAG
from ray_jobs.tracking.registry import RegistryRequest, register_model


@pytest.fixture(scope="module")
def data_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs and squares: 24 test images, and one for each other split."""
    folder = tmp_path_factory.mktemp("shapes")
    for split, seeds in {"train": [900], "val": [901], "test": range(100, 124)}.items():
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for seed in seeds:
            pixels, boxes = draw_picture(seed)
            cv2.imwrite(str(folder / "images" / split / f"{seed}.png"), pixels)
            lines = [f"{int(row[0])} " + " ".join(f"{value:.6f}" for value in row[1:]) for row in boxes]
            (folder / "labels" / split / f"{seed}.txt").write_text("\n".join(lines))
    splits = "".join(f"{split}: images/{split}\n" for split in ("train", "val", "test"))
    (folder / "data.yaml").write_text(f"{splits}names: {list(NAMES)}\n")
    return folder / "data.yaml"


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that was trained on the labels of other pictures."""
    folder = tmp_path_factory.mktemp("shuffled")
    drawn = [draw_picture(seed) for seed in range(16)]
    boxes = [drawn[number][1] for number in np.random.default_rng(0).permutation(len(drawn))]
    train_small([picture for picture, _ in drawn], boxes, NAMES, folder / "best.pt", 20)
    export_onnx(folder / "best.pt", folder / "best.onnx", names=NAMES, image_size=SIZE)
    return folder


class Shop:
    """A registry with versions made from folders of weights."""

    def __init__(self, folder: Path, database: Path, data_yaml: Path) -> None:
        self.folder = folder
        shutil.copy(database, folder / "mlflow.db")
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        keys = [f"data={data_yaml}", f"output_dir={folder}", f"weights_dir={folder / 'weights'}", "device=cpu"]
        self.overrides = [*keys, f"tracking.uri={self.uri}"]
        self.settings: Settings = load_config_with_defaults(None, self.overrides)
        self.report = check_data(self.settings, data_yaml)
        self.registry = Registry(self.uri, "shapes")
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
        request = RegistryRequest("shapes", folder / "best.onnx", tags=tags, description="Finds shapes.")
        version = self.registry.version(register_model(client, run_id, request, folder).version)
        return Candidate(version, folder / "best.pt", folder / "best.onnx", self.report.index)

    def promote(self, candidate: Candidate) -> dict:
        return promote(self.settings, self.registry, candidate, self.said.append)


@pytest.fixture
def shop(tmp_path: Path, empty_database: Path, data_yaml: Path) -> Shop:
    return Shop(tmp_path, empty_database, data_yaml)


@pytest.mark.slow
def test_a_better_model_is_promoted_and_shuffled_labels_are_refused(
    shop: Shop, shuffled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weak = shop.register(shuffled)
    shop.registry._connected().set_registered_model_alias("shapes", "champion", weak.version.version)
    good = shop.promote(shop.register(small_detector()))
    assert (good["state"], good["version"], good["champion_before"]) == ("promoted", "2", "1")
    assert good["numbers"]["map50"]["better"] > 0.95
    assert shop.registry.champion().version == "2"

    bad = shop.promote(shop.register(shuffled))
    assert bad["state"] == "refused"
    assert bad["reasons"][0].startswith("not surely better: mAP50 -0.")
    assert any(reason.startswith("Disc falls: AP50 -0.") for reason in bad["reasons"])
    assert shop.registry.champion().version == "2"
    assert connect(shop.uri).get_model_version_by_alias("shapes", "challenger").version in (3, "3")
    version = shop.registry.version("3")
    assert version.tags["promotion"] == "refused"
    assert json.loads(version.tags["promotion_numbers"])["fingerprint"] == shop.report.fingerprint
    assert "Refused on" in version.description

    again = shop.promote(shop.register(small_detector()))
    assert again["state"] == "refused"  # as good is not better
    assert again["numbers"]["map50"]["value"] == 0

    assert promote_job.main(["--model", "shapes", *shop.overrides]) == promote_job.REFUSED  # the challenger, fetched
    assert promote_job.main(["--model", "shapes", "--rollback", "--reason", "too slow", *shop.overrides]) == 0
    assert shop.registry.champion().version == "1"
    assert promote_job.main(["--model", "shapes", "--version", "2", *shop.overrides]) == 0
    assert shop.registry.champion().version == "2"
    capsys.readouterr()
    assert promote_job.main(["--model", "shapes", "--history", *shop.overrides]) == 0
    told = capsys.readouterr().out
    assert [line.split("  ")[1].split(":")[0] for line in told.splitlines()] == ["promoted", "rolled back", "promoted"]
    assert "too slow" in told


@pytest.mark.slow
def test_an_onnx_file_of_another_model_is_refused(shop: Shop, shuffled: Path) -> None:
    outcome = shop.promote(shop.register(small_detector(), onnx=shuffled))
    assert outcome["state"] == "refused"
    assert "the ONNX model finds" in outcome["reasons"][0]
    assert shop.registry.champion() is None


@pytest.mark.slow
def test_data_that_has_changed_decides_nothing(shop: Shop, data_yaml: Path, tmp_path: Path) -> None:
    shop.register(small_detector())
    changed = tmp_path / "changed"
    shutil.copytree(data_yaml.parent, changed)
    (changed / "labels" / "test" / "100.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DataError, match="is not the data set that shapes version 1 was registered with"):
        promote_job.main(["--model", "shapes", "--data", str(changed / "data.yaml"), *shop.overrides])
    assert shop.registry.champion() is None
