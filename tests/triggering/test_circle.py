"""The whole circle on real X-rays, real Ray and a real MLflow: drop, check, fine-tune, compare, promote, serve."""

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from model_shop import Shop
from read_server_process import ReadServerProcess, serving
from small_detector import SIZE, train_small

from ray_jobs.dataset.layout import label_path
from ray_jobs.detector.export import export_onnx

from .conftest import Cluster, TriggerProcess

# An epoch on 39 X-rays teaches nothing that is surely better, so any gain will do here. The policy is tested with the
# flows, and a new champion that takes over with the read server.
ANY_GAIN = {"metric": "sensitivity", "probability": 0.5, "max_class_drop": 1.0, "min_images": 10}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_new_xrays_become_a_decision_that_is_served_by_themselves(
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
    trigger = TriggerProcess(tmp_path, ray_cluster, trigger_options(tmp_path, len(rest)))
    xray = next((xrays_mini / "images" / "test").iterdir())
    serves = serving(tmp_path, shop.uri, "models:/shop@champion", "--poll-s", "0.5")
    with serves as reader, asking(reader, xray) as seen:
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
            champion_now = "2" if done["promotion"] == "promoted" else "1"
            trigger.wait(lambda: seen[-1] == (200, champion_now), "the champion is served")
        finally:
            trigger.stop()
    print(f"{len(seen)} requests, {done['promotion']}")
    assert len(seen) > 50
    assert set(seen) == {(200, "1"), (200, champion_now)}, "every request was answered, by whoever was champion"
    assert seen == sorted(seen), "and by the new one from then on"

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
    assert shop.registry.champion().version == champion_now
    assert 0 <= decision["numbers"]["sensitivity"]["better"] <= 1


def trigger_options(folder: Path, new_images: int) -> dict[str, Any]:
    """Settings of the trigger service: fine-tune shortly as soon as so many images have come into ``incoming``."""
    runs = folder / "runs"
    learning = {"epochs": 1, "batch_size": 8, "lr0": 0.002, "mosaic": 0.0, "retrain.replay": 0.5}
    small = {"device": "cpu", "workers": 0, "samples": 2, "cluster.num_workers": 1}
    policy = {f"tracking.promotion.{key}": value for key, value in ANY_GAIN.items()}
    settings = {**learning, **small, **policy, "weights_dir": str(runs / "weights")}
    return {
        "python": sys.executable,
        "runs": str(runs),
        "state": str(runs / ".trigger"),
        "model": "shop",
        "training": {"data": str(folder / "old.yaml")},
        "finetune": {"data": str(folder / "incoming" / "data.yaml"), "settings": settings},
        "watch": {"enabled": True, "min_images": new_images, "poll_s": 0.5, "settle_s": 0},
    }


def train_on(images: list[Path], names: list[str], folder: Path) -> Path:
    """A detector that has only begun to learn from these X-rays, and finds nothing: best.pt and best.onnx."""
    folder.mkdir()
    pictures = [cv2.imread(str(image), cv2.IMREAD_GRAYSCALE) for image in images]
    boxes = [np.array(label_path(image).read_text().split(), np.float32).reshape(-1, 5) for image in images]
    train_small(pictures, boxes, names, folder / "best.pt", steps=2)
    export_onnx(folder / "best.pt", folder / "best.onnx", names=tuple(names), image_size=SIZE)
    return folder


@contextmanager
def asking(reader: ReadServerProcess, xray: Path) -> Iterator[list[tuple[int, str]]]:
    """A client that asks about an X-ray again and again; the status and the model's version of every answer."""
    seen: list[tuple[int, str]] = []
    enough = threading.Event()

    def ask() -> None:
        while not enough.wait(0.1):  # the fine-tuning needs the processor more
            answer = reader.ask(xray.read_bytes(), "image/jpeg")
            seen.append((answer.status_code, answer.json().get("model", {}).get("version", answer.text)))

    with ThreadPoolExecutor(1) as pool:
        client = pool.submit(ask)
        try:
            yield seen
        finally:
            enough.set()
        client.result()


def drop(images: list[Path], folder: Path) -> None:
    """As a labelling tool would: the image, then its label file."""
    for image in images:
        shutil.copyfile(image, folder / "images" / image.name)
        shutil.copyfile(label_path(image), folder / "labels" / f"{image.stem}.txt")
