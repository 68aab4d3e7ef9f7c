"""From a registered model and new X-rays to the settings of a training run; the run itself is that of ``train``.

In: the model's address, the data.yaml of the new images, settings. Out: settings whose weights are the model's and
whose data set is new images mixed with a share of the old ones (``dataset.mixture``).
"""

import shlex
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ray_jobs.dataset.description import DataDescription
from ray_jobs.dataset.mixture import mix
from ray_jobs.dataset.source import describe_data, is_in_bucket
from ray_jobs.entry import how_to_run
from ray_jobs.errors import BadInput, DataError, SettingsError
from ray_jobs.settings import Settings, load_config_with_defaults
from ray_jobs.tracking.addresses import TRACKING_OFF, resolve_uri
from ray_jobs.tracking.registered_model import (
    ModelAddress,
    ModelVersion,
    fetch_file,
    fetch_weights,
    find_version,
    parse_address,
)

Say = Callable[[str], None]

# A trained model is moved a little, not taught anew: a tenth of the usual steps, and small ones.
FINE_TUNING: Mapping[str, Any] = MappingProxyType(
    {
        "epochs": 20,
        "patience": 10,
        "optimizer": "AdamW",
        "lr0": 0.0002,
        "lrf": 0.1,
        "warmup_epochs": 1.0,
        "close_mosaic": 5,
    }
)


@dataclass(frozen=True)
class StartingModel:
    """The registered version that is fine-tuned, its weights on this disk, and what it can do."""

    version: ModelVersion
    weights: Path
    names: tuple[str, ...]
    img_size: int


def fetch_starting_model(settings: Settings, address: str) -> StartingModel:
    """Find the version and bring its weights here, verified. Raises ``BadInput`` or ``TrackingError``."""
    from ray_jobs.detector.evaluation import model_facts

    wanted = parse_address(address)
    uri = tracking_uri(settings)
    version = _find(uri, wanted, settings.tracking.promotion.champion)
    weights = fetch_weights(uri, version, Path(settings.weights_dir) / "registered")
    names, img_size = model_facts(weights)
    return StartingModel(version, weights.resolve(), names, img_size)


def _find(uri: str, wanted: ModelAddress, champion: str) -> ModelVersion:
    try:
        return find_version(uri, wanted)
    except BadInput as error:
        if wanted.alias != champion:
            raise
        raise BadInput(
            [
                *error.problems,
                f"    training registers a challenger; it becomes the first {champion} with: {how_to_run('promote')} "
                f"--model {shlex.quote(wanted.name)}",
            ]
        ) from None


def fine_tuning_settings(settings: Settings, model: StartingModel, given: set[str]) -> Settings:
    """The settings of the run: the model's weights, size and name unless ``given``, and its place in the registry.

    Raises ``SettingsError`` where what was given does not fit the model.
    """
    model_name = model.version.tags.get("model_name", settings.model_name)
    problems = []
    if "model_name" in given and settings.model_name != model_name:
        problems.append(f"model_name: {model.version} is {model_name}, not {settings.model_name}; leave it out")
    if "pretrained" in given:
        problems.append("pretrained: the starting weights are those of --from; leave it out")
    if problems:
        raise SettingsError(problems)
    changes: dict[str, Any] = {
        "model_name": model_name,
        "pretrained": str(model.weights),
        "tracking": settings.tracking.model_copy(
            update={
                "registry": model.version.name if settings.tracking.registry else None,
                "tags": {**settings.tracking.tags, "fine_tuned_from": str(model.version)},
            }
        ),
    }
    if "img_size" not in given:
        changes["img_size"] = model.img_size
    return settings.model_copy(update=changes)


def mix_data(settings: Settings, model: StartingModel, folder: Path, say: Say) -> Settings:
    """The settings with ``data`` being a mixture of their data set and the old one, written into ``folder``.

    Raises ``DataError`` where the classes are not the model's, naming both lists.
    """
    if not settings.data:
        raise DataError("no new images: give --data config/finetune-data.yaml")
    new = describe_data(settings.data, settings.storage.data_cache, say, required=("train",))
    if new.names != model.names:
        raise DataError(
            [
                f"{settings.data}: the classes must be those of {model.version}, in the same order:",
                f"    here: {', '.join(new.names)}",
                f"    the model: {', '.join(model.names)}",
            ]
        )
    old = _old_data(settings, model, say)
    mixture = mix(
        new,
        old,
        folder,
        replay=settings.retrain.replay,
        seed=settings.seed,
        patient_id_pattern=settings.data_check.patient_id_pattern,
    )
    say(f"fine-tuning {model.version}")
    say(f"mixed in {folder}: {mixture.new['train']} new images and {mixture.old['train']} old ones to learn from")
    for split in ("val", "test"):
        if mixture.new[split] + mixture.old[split]:
            say(f"{split}: {mixture.old[split]} images of the old data, {mixture.new[split]} of the new")
    for notice in mixture.notices:
        say(f"left out: {notice}")
    return settings.model_copy(update={"data": str(mixture.data_yaml), "yolo_data_dir": None})


def _old_data(settings: Settings, model: StartingModel, say: Say) -> DataDescription:
    """What the model has learned from: ``retrain.replay_data``, else the data set in the settings of its run."""
    if settings.retrain.replay_data:
        return describe_data(settings.retrain.replay_data, settings.storage.data_cache, say)
    place = run_settings(tracking_uri(settings), model.version).data
    if not place or not (is_in_bucket(place) or Path(place).is_file()):
        raise BadInput(
            f"retrain.replay_data: {model.version} was trained on {place}, which is not on this machine; give the "
            "data.yaml of the old images (val and test are taken from it)"
        )
    return describe_data(place, settings.storage.data_cache, say)


def run_settings(uri: str, version: ModelVersion) -> Settings:
    """The settings of the run that a version came from. Raises ``BadInput`` or ``TrackingError``."""
    with tempfile.TemporaryDirectory() as folder:
        settings = load_config_with_defaults(fetch_file(uri, version, "settings.yaml", None, Path(folder)))
    if not settings.data and settings.yolo_data_dir:
        return settings.model_copy(update={"data": str(Path(settings.yolo_data_dir) / "data.yaml")})
    return settings


def tracking_uri(settings: Settings) -> str:
    """The address of the registry. Raises ``SettingsError`` where tracking is off."""
    if settings.tracking.uri in TRACKING_OFF:
        raise SettingsError("tracking.uri: a registered model is asked for, so tracking cannot be off")
    return resolve_uri(settings.tracking.uri, Path(settings.output_dir))
