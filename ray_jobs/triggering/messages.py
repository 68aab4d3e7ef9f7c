"""What requests and answers of the trigger service look like; requests are strict, unknown fields are refused."""

import math
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ray_jobs.settings import Settings
from ray_jobs.training_arguments import TrainingArguments
from ray_jobs.triggering.options import Alias, ModelName

JOB_ID = r"^[a-z]+-[0-9a-f]{12}$"
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
DataPath = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f]+$")]

# What a request may set: how a model learns. Where things are written, read and logged is the service's own matter.
ALLOWED_SETTINGS = frozenset(TrainingArguments.model_fields) | {
    "model_name",
    "epochs",
    "batch_size",
    "img_size",
    "patience",
    "seed",
    "precision",
    "keep",
    "samples",
}
assert frozenset(Settings.model_fields) >= ALLOWED_SETTINGS


def _known(values: dict[str, bool | int | float | str]) -> dict[str, bool | int | float | str]:
    refused = sorted(set(values) - ALLOWED_SETTINGS)
    if refused:
        raise ValueError(
            f"{', '.join(refused)[:200]}: cannot be set by a request; one of {', '.join(sorted(ALLOWED_SETTINGS))}"
        )
    if not all(math.isfinite(value) for value in values.values() if isinstance(value, float)):
        raise ValueError("numbers must be finite")
    return values


SettingValue = bool | int | float | Annotated[str, Field(max_length=200)]
LearningSettings = Annotated[dict[str, SettingValue], AfterValidator(_known), Field(max_length=100)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TrainingRequest(_Message):
    """Train anew. Everything may be left out."""

    data: Annotated[DataPath | None, Field(description="data.yaml, inside a folder of data_roots")] = None
    run_name: RunName | None = None
    settings: Annotated[LearningSettings, Field(description="training settings such as epochs")] = {}
    queue: Annotated[bool, Field(description="wait for a running job instead of answering 409")] = False


class FinetuneRequest(_Message):
    """Fine-tune a registered model. Without ``data``: on the images that the watch has collected."""

    model: ModelName | None = None
    alias: Alias | None = None
    version: Annotated[int | None, Field(ge=1, le=999_999_999)] = None
    data: Annotated[DataPath | None, Field(description="data.yaml, inside a folder of data_roots")] = None
    run_name: RunName | None = None
    settings: Annotated[LearningSettings, Field(description="training settings such as epochs")] = {}
    queue: Annotated[bool, Field(description="wait for a running job instead of answering 409")] = False


class Links(BaseModel):
    """Where to go on."""

    self: str
    cancel: str


JobState = Literal["QUEUED", "PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]


class Job(BaseModel):
    """A job that this service has started, or that waits."""

    id: str
    kind: Literal["training", "finetune"]
    state: JobState
    run_name: str
    started_by: Literal["request", "watch"]
    submitted: datetime | None = None
    ended: datetime | None = None
    exit_code: int | None = None
    message: str | None = None
    epoch: int | None = None
    epochs: int | None = None
    metrics: dict[str, float | None] = {}
    promotion: Annotated[str | None, Field(description="promoted, refused, waiting, or none yet")] = None
    links: Links


class JobWithLog(Job):
    """A job and the end of its log."""

    log_tail: list[str] = []


class Problem(BaseModel):
    """Why a request was not carried out."""

    detail: str


class Busy(BaseModel):
    """Another job runs."""

    detail: str
    job: Job | None = None


class Part(BaseModel):
    """One part that the service needs."""

    ok: bool
    detail: str


class Health(BaseModel):
    """The parts: ``ray``, ``mlflow``, ``storage``, ``watch``."""

    ok: bool
    parts: dict[str, Part]


class WatchState(BaseModel):
    """What the watch has seen."""

    enabled: bool
    waiting: Annotated[int, Field(description="new images, labelled and sound, that no cycle has used")]
    wanted: Annotated[int, Field(description="how many start a cycle")]
    unlabelled: int
    unsound: Annotated[list[str], Field(description="what is wrong with images that do not count, the first 20")]
    looked: datetime | None
    last_cycle: str | None
    problem: Annotated[str | None, Field(description="why the last look failed")]
