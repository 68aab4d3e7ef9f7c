"""The whole circle on real X-rays, a real Ray cluster and a real MLflow: drop, check, fine-tune, compare, decide."""

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from model_shop import Shop
from small_detector import SIZE, train_small

from ray_jobs.dataset.layout import label_path
from ray_jobs.detector.export import export_onnx

from .conftest import Cluster, TriggerProcess


def train_on(images: list[Path], names: list[str], folder: Path) -> Path:
    """A detector that has seen these X-rays for a few steps: best.pt and best.onnx."""
    folder.mkdir()
    pictures = [cv2.imread(str(image), cv2.IMREAD_GRAYSCALE) for image in images]
    boxes = [np.array(label_path(image).read_text().split(), np.float32).reshape(-1, 5) for image in images]
    train_small(pictures, boxes, names, folder / "best.pt", steps=10)
    export_onnx(folder / "best.pt", folder / "best.onnx", names=tuple(names), image_size=SIZE)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_new_xrays_become_a_decision_by_themselves(
    ray_cluster: Cluster, xrays_mini: Path, tmp_path: Path, empty_database: Path
) -> None:
    names = list(yaml.safe_load((xrays_mini / "data.yaml").read_text())["names"].values())
    images = sorted((xrays_mini / "images" / "train").iterdir())
    part, rest = images[:30], images[30:]
    (tmp_path / "part.txt").write_text("".join(f"{image}\n" for image in part))
    splits = {"train": "part.txt", **{split: str(xrays_mini / "images" / split) for split in ("val", "test")}}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({**splits, "names": names}))
    runs = tmp_path / "runs"
    runs.mkdir()
    shop = Shop(runs, empty_database, tmp_path / "old.yaml", "shop")
    champion = shop.register(train_on(part, names, tmp_path / "trained"))
    shop.registry._connected().set_registered_model_alias("shop", "champion", champion.version.version)

    incoming = tmp_path / "incoming"
    for kind in ("images", "labels"):
        (incoming / kind).mkdir(parents=True)
    (incoming / "data.yaml").write_text(yaml.safe_dump({"train": "images", "names": names}))
    learning = {"epochs": 1, "batch_size": 8, "device": "cpu", "workers": 0, "mosaic": 0.0, "samples": 2}
    settings = {
        **learning,
        "cluster.num_workers": 1,
        "weights_dir": str(runs / "weights"),
        "retrain.replay": 0.5,
        "tracking.promotion.min_images": 10,
    }
    options = {
        "python": sys.executable,
        "runs": str(runs),
        "state": str(runs / ".trigger"),
        "model": "shop",
        "training": {"data": str(tmp_path / "old.yaml")},
        "finetune": {"data": str(incoming / "data.yaml"), "settings": settings},
        "watch": {"enabled": True, "min_images": len(rest), "poll_s": 0.5, "settle_s": 0},
    }
    trigger = TriggerProcess(tmp_path, ray_cluster, options)
    trigger.start()
    try:
        drop(rest[:-1], incoming)
        trigger.wait(lambda: trigger.ask("GET", "/watch").body["waiting"] == len(rest) - 1, "the images were seen")
        assert trigger.ask("GET", "/jobs").body == []
        drop(rest[-1:], incoming)
        trigger.wait(lambda: trigger.ask("GET", "/jobs").body, "the last one starts a job")
        (job,) = trigger.ask("GET", "/jobs").body
        assert (job["kind"], job["started_by"]) == ("finetune", "watch")

        trigger.kill()  # the job goes on, and is not started twice
        trigger.start()
        trigger.wait(lambda: trigger.state(job["id"]) not in ("PENDING", "RUNNING"), "the job has ended", 600)
        done = trigger.ask("GET", f"/jobs/{job['id']}").body
        assert done["state"] == "SUCCEEDED", "\n".join(done["log_tail"])
        assert (done["epoch"], done["epochs"]) == (1, 1)
        assert 0 <= done["metrics"]["test/map50"] <= 1
        assert done["promotion"] in ("promoted", "refused")
        assert trigger.ask("GET", "/watch").body["waiting"] == 0
        assert len(trigger.ask("GET", "/jobs").body) == 1
    finally:
        trigger.stop()

    run = runs / job["run_name"]
    counts = json.loads((run / "summary.json").read_text())["dataset"]["counts"]
    assert counts["train"]["images"] == len(rest) + 15  # all new ones, half of the old ones
    assert counts["test"]["images"] == 19
    assert yaml.safe_load((run / "settings.yaml").read_text())["pretrained"].startswith(
        str(runs / "weights/registered")
    )
    decision = json.loads((run / "promotion.json").read_text())
    assert decision["champion_before"] == "1"
    version = shop.registry.version("2")
    assert version.tags["promotion"] == decision["state"] == done["promotion"]
    assert version.tags["fine_tuned_from"] == "shop version 1"
    assert shop.registry.champion().version == ("2" if decision["state"] == "promoted" else "1")
    assert 0 <= decision["numbers"]["map50"]["better"] <= 1


def drop(images: list[Path], folder: Path) -> None:
    """As a labelling tool would: the image, then its label file."""
    for image in images:
        shutil.copyfile(image, folder / "images" / image.name)
        shutil.copyfile(label_path(image), folder / "labels" / f"{image.stem}.txt")
