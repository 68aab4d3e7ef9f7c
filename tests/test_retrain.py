"""What fine-tuning refuses before anything is half-made. That it works is shown in tests/triggering/test_circle.py."""

from pathlib import Path

import pytest
from model_shop import Shop, draw_shapes, shapes_data
from small_detector import SIZE, small_detector

from ray_jobs import retrain
from ray_jobs.errors import BadInput, DataError, PlatformError, RunExists, SettingsError, WeightsError
from ray_jobs.flows.retraining import fetch_starting_model, fine_tuning_settings
from ray_jobs.flows.run_folder import RunFolder
from ray_jobs.settings import load_config_with_defaults


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Shop:
    """Version 1 of ``shapes``, and four new pictures in ``new/``."""
    folder = tmp_path_factory.mktemp("retrain")
    (folder / "runs").mkdir()
    made = Shop(folder / "runs", empty_database, shapes_data(folder / "old", train=2, test=2))
    made.register(small_detector())
    draw_shapes(folder / "new" / "images", range(200, 204))
    return made


def new_data(shop: Shop, names: str = "[Disc, Square]") -> str:
    data = shop.folder.parent / "new" / "data.yaml"
    data.write_text(f"train: images\nnames: {names}\n")
    return str(data)


def refused(shop: Shop, kind: type[PlatformError], *arguments: str, data: str | None = None, model: str = "") -> str:
    before = sorted(shop.folder.iterdir())
    with pytest.raises(kind) as caught:
        retrain.main(
            [
                "--from",
                model or "models:/shapes@challenger",
                "--data",
                data or new_data(shop),
                *shop.overrides[1:],
                *arguments,
            ]
        )
    assert set(shop.folder.iterdir()) - set(before) <= {shop.folder / "weights"}  # no run, nothing half-made
    return str(caught.value)


@pytest.mark.slow
def test_bad_input_is_refused_before_anything_is_made(shop: Shop) -> None:
    said = refused(shop, DataError, data=new_data(shop, "[Square, Disc]"))
    assert "the classes must be those of shapes version 1, in the same order" in said
    assert "here: Square, Disc" in said
    assert "the model: Disc, Square" in said
    assert "it has shapes" in refused(shop, BadInput, model="models:/nothing@champion")
    said = refused(shop, BadInput, model="models:/shapes@champion")
    assert "its aliases: @challenger (version 1)" in said
    assert "it becomes the first champion with: " in said
    assert "-m ray_jobs.promote --model shapes" in said
    assert "no such alias or version" in refused(shop, BadInput, model="models:/shapes/7")
    assert "must be models:/NAME@ALIAS" in refused(shop, BadInput, model="models:/../shapes@challenger")
    assert "no such file" in refused(shop, DataError, data="nowhere.yaml")
    assert "tracking cannot be off" in refused(shop, SettingsError, "tracking.uri=none")
    assert "leave it out" in refused(shop, SettingsError, "pretrained=yolo12n.pt")
    assert "is not on this machine" in refused(shop, BadInput, *_without_old_data(shop))


def _without_old_data(shop: Shop) -> list[str]:
    """The old data has moved since the model was trained."""
    place = Path(shop.settings.data or "")
    if place.is_file():
        place.rename(place.with_suffix(".moved"))
    return []


@pytest.mark.slow
def test_the_model_says_what_is_fine_tuned(shop: Shop) -> None:
    settings = load_config_with_defaults(None, shop.overrides[1:], retrain.FINE_TUNING)
    assert (settings.epochs, settings.optimizer, settings.lr0) == (20, "AdamW", 0.0002)
    assert load_config_with_defaults(None, ["epochs=3"], retrain.FINE_TUNING).epochs == 3
    model = fetch_starting_model(settings, "models:/shapes/1")
    assert model.names == ("Disc", "Square")
    fine = fine_tuning_settings(settings, model, set())
    assert (fine.img_size, fine.pretrained, fine.tracking.registry) == (SIZE, str(model.weights), "shapes")
    assert fine.tracking.tags == {"fine_tuned_from": "shapes version 1"}
    assert fine_tuning_settings(settings.model_copy(update={"img_size": 128}), model, {"img_size"}).img_size == 128
    assert model.weights.read_bytes() == (small_detector() / "best.pt").read_bytes()
    again = fetch_starting_model(settings, "models:/shapes/1").weights
    assert again.stat().st_mtime_ns == model.weights.stat().st_mtime_ns  # fetched once


@pytest.mark.slow
def test_a_run_that_was_lost_before_its_decision_is_decided(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--data", new_data(shop), "--run-name", "lost", *shop.overrides[1:]]
    options = retrain._parse(["--from", "models:/shapes/1", *arguments])
    settings, given = retrain._settings(options)
    settings = fine_tuning_settings(settings, fetch_starting_model(settings, options.model), given)
    run = RunFolder(shop.folder / "lost")
    mixture = str(shop.folder / ".mixtures" / "lost" / "data.yaml")
    run.claim(settings.model_copy(update={"data": mixture}), "f" * 64).release()
    run.write_state(status="finished")
    decided: list[str] = []
    monkeypatch.setattr(retrain, "promote_finished", lambda run, _: decided.append(run.name))
    assert retrain.main(["--from", "models:/shapes/1", *arguments]) == 0
    assert decided == ["lost"]
    with pytest.raises(RunExists, match="this run is finished"):
        retrain.main(["--from", "models:/shapes/1", *arguments, "epochs=3"])


@pytest.mark.slow
def test_weights_that_are_not_the_registered_ones_are_refused(shop: Shop) -> None:
    for kept in (shop.folder / "weights").rglob("*.pt"):
        kept.unlink()
    (artifact,) = (shop.folder / "artifacts").rglob("weights/best.pt")
    artifact.write_bytes(artifact.read_bytes() + b"x")
    settings = load_config_with_defaults(None, shop.overrides[1:])
    with pytest.raises(WeightsError, match="is not the file that was registered"):
        fetch_starting_model(settings, "models:/shapes/1")
    artifact.unlink()
    with pytest.raises(WeightsError, match=r"keeps no weights/best\.pt"):
        fetch_starting_model(settings, "models:/shapes/1")
