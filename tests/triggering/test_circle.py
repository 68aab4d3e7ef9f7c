"""The whole circle on a real Ray cluster and a real MLflow: drop, check, fine-tune, compare, decide."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from model_shop import Shop, draw_shapes, shapes_data
from small_detector import NAMES, small_detector

from .conftest import Cluster, TriggerProcess


@pytest.mark.slow
def test_new_images_become_a_decision_by_themselves(ray_cluster: Cluster, tmp_path: Path, empty_database: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    shop = Shop(runs, empty_database, shapes_data(tmp_path / "old", train=8))
    champion = shop.register(small_detector())
    shop.registry._connected().set_registered_model_alias("shapes", "champion", champion.version.version)

    incoming = tmp_path / "incoming"
    (incoming / "images").mkdir(parents=True)
    (incoming / "data.yaml").write_text(f"train: images\nnames: {list(NAMES)}\n")
    learning = {"epochs": 1, "batch_size": 8, "device": "cpu", "workers": 0, "mosaic": 0.0, "samples": 2}
    options = {
        "python": sys.executable,
        "runs": str(runs),
        "state": str(runs / ".trigger"),
        "model": "shapes",
        "training": {"data": str(tmp_path / "old" / "data.yaml")},
        "finetune": {
            "data": str(incoming / "data.yaml"),
            "settings": {
                **learning,
                "cluster.num_workers": 1,
                "weights_dir": str(runs / "weights"),
                "retrain.replay": 0.5,
            },
        },
        "watch": {"enabled": True, "min_images": 8, "poll_s": 0.5, "settle_s": 0},
    }
    trigger = TriggerProcess(tmp_path, ray_cluster, options)
    trigger.start()
    try:
        draw_shapes(incoming / "images", range(200, 207))
        trigger.wait(lambda: trigger.ask("GET", "/watch").body["waiting"] == 7, "seven images were seen")
        assert trigger.ask("GET", "/jobs").body == []
        draw_shapes(incoming / "images", range(207, 208))
        trigger.wait(lambda: trigger.ask("GET", "/jobs").body, "the eighth starts a job")
        (job,) = trigger.ask("GET", "/jobs").body
        assert (job["kind"], job["started_by"]) == ("finetune", "watch")

        trigger.kill()  # the job goes on, and is not started twice
        trigger.start()
        trigger.wait(lambda: trigger.state(job["id"]) not in ("PENDING", "RUNNING"), "the job has ended", 280)
        done = trigger.ask("GET", f"/jobs/{job['id']}").body
        assert done["state"] == "SUCCEEDED", "\n".join(done["log_tail"])
        assert (done["epoch"], done["epochs"]) == (1, 1)
        assert 0 <= done["metrics"]["test/map50"] <= 1
        assert done["promotion"] in ("promoted", "refused")
        trigger.wait(lambda: trigger.ask("GET", "/watch").body["waiting"] == 0, "all images are used")
        assert len(trigger.ask("GET", "/jobs").body) == 1
    finally:
        trigger.stop()

    run = runs / job["run_name"]
    counts = json.loads((run / "summary.json").read_text())["dataset"]["counts"]
    assert counts["train"]["images"] == 8 + 4  # all new ones, half of the old ones
    assert counts["test"]["images"] == 24
    assert yaml.safe_load((run / "settings.yaml").read_text())["pretrained"].startswith(
        str(runs / "weights/registered")
    )
    decision = json.loads((run / "promotion.json").read_text())
    assert decision["champion_before"] == "1"
    version = shop.registry.version("2")
    assert version.tags["promotion"] == decision["state"] == done["promotion"]
    assert shop.registry.champion().version == ("2" if decision["state"] == "promoted" else "1")
    assert decision["numbers"]["map50"]["better"] >= 0
