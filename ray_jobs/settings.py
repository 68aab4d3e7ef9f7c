"""One typed tree of settings, read once from YAML and ``key=value`` overrides; every problem is reported at once.

The flat keys are those of the first system and Ultralytics' training arguments; what is new lives in sections.
Environment variables carry addresses and secrets only, and never end up in a settings file.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ray_jobs.errors import SettingsError
from ray_jobs.overrides import apply_overrides, describe_problem
from ray_jobs.training_arguments import Share, TrainingArguments
from ray_jobs.yaml_source import YamlSource, read_yaml

MODEL_NAMES = ("yolo12n", "yolo12s", "yolo12m", "yolo12l", "yolo12x")
_NOT_DECISIVE = {
    "run_name",
    "output_dir",
    "weights_dir",
    "device",
    "cluster",
    "workers",
    "tracking",
    "retrain",  # it is in the data set that was mixed
    "keep",
    "samples",
    "export",
}
DataProblem = Literal["duplicate_images", "shared_patients", "label_duplicates"]


def _model_name(value: object) -> str:
    name = value.removesuffix(".pt").removesuffix(".yaml") if isinstance(value, str) else value
    if name not in MODEL_NAMES:
        raise ValueError(f"must be one of {', '.join(MODEL_NAMES)}")
    return str(name)


def _device(value: object) -> str | list[int]:
    if value in ("auto", "cpu"):
        return str(value)
    parts: list[Any] = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    gpus = [int(part) for part in parts if not isinstance(part, bool) and str(part).strip().isdigit()]
    if not gpus or len(gpus) != len(parts) or len(set(gpus)) != len(gpus):
        raise ValueError("must be auto, cpu, or a list of different GPU numbers such as [0, 1]")
    return gpus


def _pretrained(value: object) -> bool | str:
    if isinstance(value, bool) or (isinstance(value, str) and value.strip()):
        return value
    raise ValueError("must be true, false, or the path of a weights file")


def _batch_size(value: object) -> int | float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and (value >= 1 and value == int(value)):  # type: ignore[operator,call-overload]
        return int(value)  # type: ignore[call-overload]
    if isinstance(value, float) and 0.0 < value < 1.0:
        return value
    raise ValueError("must be a whole number of images, or a share of GPU memory between 0 and 1")


def _num_workers(value: object) -> str | int | list[int]:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    pair = isinstance(value, list | tuple) and len(value) == 2 and all(type(n) is int for n in value)
    if pair and 1 <= value[0] <= value[1]:  # type: ignore[index]
        return list(value)  # type: ignore[call-overload]
    raise ValueError("must be auto, a whole number of at least 1, or a range such as [1, 4]")


def _without_password(uri: str | None) -> str | None:
    if uri and "@" in uri.partition("://")[2].partition("/")[0]:
        raise ValueError("must hold no password; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead")
    return uri


def _false_or_name(value: object) -> str | None:
    if value in (None, False, "off", "none"):
        return None
    if isinstance(value, str) and value.strip() and not set(value) & set("/:.%\"'"):
        return value
    raise ValueError("must be a name without / : . % or quotes, or false to register nothing")


class Section(BaseModel):
    """A group of settings; unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


SectionT = TypeVar("SectionT", bound=Section)


class DataCheckSettings(Section):
    """What the check of a data set may let pass."""

    patient_id_pattern: str | None = None  # regular expression whose first group in a file's name is the patient
    allow: list[DataProblem] = []  # problems that are known and accepted


class ClusterSettings(Section):
    """Where training runs and on how much."""

    address: str | None = None  # None: RAY_ADDRESS, else Ray inside this process; "auto": the cluster of this machine
    num_workers: Annotated[str | int | list[int], BeforeValidator(_num_workers)] = "auto"
    gpus_per_worker: Annotated[float, Field(ge=0.0)] | None = None  # None: 1 where there are GPUs
    cpus_per_worker: Annotated[int, Field(ge=1)] | None = None  # None: the cores of a node divided by its workers
    wait_s: Annotated[float, Field(ge=0.0)] = 60.0  # how long to wait for resources that the cluster does not have yet
    lost_node_wait_s: Annotated[float, Field(ge=0.0)] = 3600.0  # the same in mid-run, where a node was lost
    max_failures: Annotated[int, Field(ge=-1)] = 3  # restarts after lost workers; -1: any number
    hang_timeout_s: Annotated[float, Field(ge=0.0)] = 600.0  # a worker that stands still this long is lost; 0: never
    max_rollbacks: Annotated[int, Field(ge=0)] = 3  # roll-backs, each with half the learning rate, after NaN


class StorageSettings(Section):
    """Where checkpoints go, and where copies of data sets from buckets lie."""

    url: str | None = None  # None: the run's own folder; another folder, or s3://bucket/prefix
    patience_s: Annotated[float, Field(ge=0.0)] = 900.0  # how long a store that fails in mid-run is waited for
    data_cache: str | None = None  # a folder on each node's own disk; None: XRAY_DATA_CACHE, else the user's cache


class PromotionSettings(Section):
    """When a registered version becomes the champion."""

    when: Literal["never", "retrain", "always"] = "retrain"  # who decides: nobody, retraining, training too
    champion: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")] = "champion"  # the alias of the one in use
    metric: Literal["map50", "map50_95", "sensitivity"] = "map50"  # what must be better on the test images
    probability: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.95  # how sure the paired bootstrap must be of that
    max_class_drop: Share = 0.05  # how much AP50 any class may lose
    min_images: Annotated[int, Field(ge=2)] = 20  # fewer test images decide nothing


class TrackingSettings(Section):
    """MLflow: where, under which names, and how much."""

    uri: Annotated[str | None, AfterValidator(_without_password)] = (
        None  # None: MLFLOW_TRACKING_URI, else a SQLite file in output_dir; "none": no tracking
    )
    experiment: str = "xray-detector"
    registry: Annotated[str | None, BeforeValidator(_false_or_name)] = "xray-detector"
    alias: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")] = "challenger"
    tags: dict[str, str] = {}
    artifacts: bool = True
    promotion: PromotionSettings = PromotionSettings()


class RetrainSettings(Section):
    """What keeps a fine-tuned model from forgetting."""

    replay: Share = 0.3  # part of the old training images that is mixed in
    replay_data: str | None = None  # data.yaml of the old images; None: what the model's run was trained on


class SpeedSettings(Section):
    """What makes training faster; each can be switched off."""

    gpu_augmentation: bool = True  # batches are made on the GPU where its memory holds the pixels
    gpu_graph: bool = True  # a step is recorded once and replayed; one GPU per run, one batch size
    fused_optimizer: bool = True  # one kernel for all parameters
    fused_attention: bool = True  # PyTorch's attention kernel for the area attention of YOLO12


class ExportSettings(Section):
    """The ONNX file."""

    onnx: bool = True
    opset: Annotated[int, Field(ge=12, le=20)] | None = None  # None: the newest that runs everywhere


class Settings(TrainingArguments):
    """Everything a run depends on but its data and the addresses in the environment."""

    data: str | None = None
    yolo_data_dir: str | None = None
    output_dir: str = "runs"
    weights_dir: str = "weights"
    run_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None

    model_name: Annotated[str, BeforeValidator(_model_name)] = "yolo12n"
    pretrained: Annotated[bool | str, BeforeValidator(_pretrained)] = True
    epochs: Annotated[int, Field(ge=1)] = 100
    batch_size: Annotated[int | float, BeforeValidator(_batch_size)] = 16
    img_size: Annotated[int, Field(ge=64, le=4096, multiple_of=32)] = 640
    device: Annotated[str | list[int], BeforeValidator(_device)] = "auto"
    workers: Annotated[int, Field(ge=0)] = 8
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    patience: Annotated[int, Field(ge=0)] = 100
    keep: Annotated[int, Field(ge=0)] = 1  # checkpoints to keep beside the last (which carries the best)
    samples: Annotated[int, Field(ge=0, le=500)] = 12  # validation images to draw; X-rays on the report, at most

    auto_augment: str | None = None
    erasing: float | None = None

    data_check: DataCheckSettings = DataCheckSettings()
    cluster: ClusterSettings = ClusterSettings()
    storage: StorageSettings = StorageSettings()
    tracking: TrackingSettings = TrackingSettings()
    export: ExportSettings = ExportSettings()
    speed: SpeedSettings = SpeedSettings()
    retrain: RetrainSettings = RetrainSettings()

    @model_validator(mode="after")
    def _agree_with_each_other(self) -> Self:
        if self.cluster.num_workers != "auto" and isinstance(self.device, list):
            wanted = self.cluster.num_workers
            if isinstance(wanted, int) and wanted != len(self.device):
                raise ValueError(
                    f"device: lists {len(self.device)} GPUs, but cluster.num_workers is {wanted}; make them agree"
                )
        if self.device == "cpu" and self.precision == "fp16":
            raise ValueError("precision: fp16 needs a GPU; use fp32 or bf16 with device: cpu")
        if self.device == "cpu" and self.cluster.gpus_per_worker:
            raise ValueError("cluster.gpus_per_worker: must be 0 with device: cpu")
        if self.tracking.alias == self.tracking.promotion.champion:
            raise ValueError(
                f"tracking.alias: is {self.tracking.alias}, the alias of the champion (tracking.promotion.champion), "
                "which no version gets without being compared; use another, such as challenger"
            )
        return self

    def warnings(self) -> list[str]:
        """What is set and has no effect, one line each."""
        lines = [
            f"{name}: has no effect: Ultralytics uses it for classification only"
            for name in ("auto_augment", "erasing")
            if getattr(self, name) is not None
        ]
        if self.optimizer == "auto":
            given = [name for name in ("lr0", "momentum") if getattr(self, name) != Settings.model_fields[name].default]
            lines += [
                f"{name}: has no effect with optimizer: auto, which chooses it; name an optimizer" for name in given
            ]
        if self.tracking.registry and not self.export.onnx:
            lines.append("tracking.registry: nothing is registered with export.onnx: false; the model is the ONNX file")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Plain values, complete: reading them back gives the same settings."""
        return self.model_dump(mode="json")

    def differences(self, other: "Settings") -> list[str]:
        """The keys whose values would make another model, as ``key: here, there``."""
        mine, theirs = self.as_dict(), other.as_dict()
        for values in (mine, theirs):
            values["storage"] = values["storage"]["url"]
            values["speed"] = values["speed"]["gpu_augmentation"]  # the others compute the same
        decisive = [key for key in mine if key not in _NOT_DECISIVE and (key, mine[key]) != ("precision", "auto")]
        return [f"{key}: {mine[key]}, {theirs[key]}" for key in decisive if mine[key] != theirs[key]]

    def with_absolute_paths(self) -> Self:
        """The same settings, usable from any folder."""
        keys = ("data", "yolo_data_dir", "output_dir", "weights_dir", "pretrained")
        paths = {key: value for key in keys if isinstance(value := getattr(self, key), str)}
        places = {
            "storage": _with_absolute(self.storage, "url", "data_cache"),
            "retrain": _with_absolute(self.retrain, "replay_data"),
        }
        return self.model_copy(update={key: _absolute(path) for key, path in paths.items()} | places)

    def save(self, path: Path) -> None:
        """Write the settings so that the run can be repeated from this file alone."""
        path.write_text(yaml.safe_dump(self.as_dict(), sort_keys=False), encoding="utf-8")


def _with_absolute(section: SectionT, *keys: str) -> SectionT:
    return section.model_copy(update={key: _absolute(path) for key in keys if (path := getattr(section, key))})


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().resolve())


def load_config_with_defaults(
    path: Path | None, overrides: Sequence[str] = (), defaults: Mapping[str, Any] = MappingProxyType({})
) -> Settings:
    """Read settings from a YAML file (None: defaults alone) and ``key=value`` overrides (``section.key=value``).

    ``defaults`` are a job's own, for top-level keys that neither the file nor an override gives. Raises
    ``SettingsError`` with every problem of the file and of the overrides, each with its place and remedy.
    """
    source = read_yaml(path, SettingsError) if path else YamlSource(Path("defaults"), {})
    values = {**defaults, **json.loads(json.dumps(source.values, default=str))}
    overridden, problems = apply_overrides(values, overrides)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems += [describe_problem(problem, source, overridden, Settings) for problem in error.errors()]
    if problems:
        raise SettingsError(problems)
    return settings
