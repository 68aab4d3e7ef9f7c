"""The decision on real models and a real MLflow: shuffled labels are refused, a better model is promoted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from model_shop import Shop, shapes_data
from small_detector import NAMES, SIZE, draw_picture, small_detector, train_small

from ray_jobs import promote as promote_job
from ray_jobs.detector.export import export_onnx
from ray_jobs.errors import DataError
from ray_jobs.flows.promotion import is_undecided
from ray_jobs.flows.run_folder import RunFolder
from ray_jobs.settings import load_config_with_defaults
from ray_jobs.tracking.client import connect


@pytest.fixture(scope="module")
def data_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes_data(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that was trained on the labels of other pictures."""
    folder = tmp_path_factory.mktemp("shuffled")
    drawn = [draw_picture(seed) for seed in range(16)]
    boxes = [drawn[number][1] for number in np.random.default_rng(0).permutation(len(drawn))]
    train_small([picture for picture, _ in drawn], boxes, NAMES, folder / "best.pt", 20)
    export_onnx(folder / "best.pt", folder / "best.onnx", names=NAMES, image_size=SIZE)
    return folder


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


def test_a_promotion_by_hand_decides_by_the_rules_of_the_version_s_own_run(tmp_path: Path) -> None:
    own = ["data_check.patient_id_pattern=^(.)_", "tracking.promotion.min_images=3", "tracking.promotion.champion=best"]
    run = load_config_with_defaults(None, [*own, "tracking.experiment=theirs", "tracking.promotion.metric=map50_95"])
    config = tmp_path / "config.yaml"
    config.write_text("tracking:\n  promotion:\n    metric: sensitivity\n")
    options = promote_job._parse(
        ["--model", "shapes", "--config", str(config), "tracking.promotion.min_images=5", "tracking.uri=sqlite:///x.db"]
    )
    settings = load_config_with_defaults(options.config, options.overrides)
    used = promote_job._with_rules_of(run, settings, promote_job._given(options))
    rules = used.tracking.promotion
    assert (rules.min_images, rules.metric, rules.champion) == (5, "sensitivity", "best")
    assert used.data_check.patient_id_pattern == "^(.)_"
    assert (used.tracking.uri, used.tracking.experiment) == ("sqlite:///x.db", "xray-detector")


def test_only_a_finished_run_of_these_settings_without_a_decision_is_undecided(tmp_path: Path) -> None:
    settings = load_config_with_defaults(None, ["tracking.tags.fine_tuned_from=shapes version 1"])
    run = RunFolder(tmp_path / "run")
    assert not is_undecided(run, settings)
    run.claim(settings, "f" * 64)
    assert not is_undecided(run, settings)
    run.write_state(status="finished")
    assert is_undecided(run, settings)
    assert not is_undecided(run, settings.model_copy(update={"epochs": 7}))
    (run.path / "promotion.json").write_text("{}")
    assert not is_undecided(run, settings)
    run.release()
