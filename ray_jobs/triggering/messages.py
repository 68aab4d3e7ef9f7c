"""What requests and answers of the trigger service look like; requests are strict, unknown fields are refused."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from ray_jobs.settings import MODEL_NAMES
from ray_jobs.training_arguments import TrainingArguments

JOB_ID = r"^[a-z]+-[0-9a-f]{12}$"
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
DataPath = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f]+$")]
Model = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]{0,99}(@[A-Za-z][A-Za-z0-9_-]{0,99}|/[1-9][0-9]{0,8})$")
]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _whole_numbers(cls, values: Any) -> Any:
        """JSON knows one kind of number: 3.0 is a whole one."""
        return {key: _whole(value) for key, value in values.items()} if isinstance(values, dict) else values


def _whole(value: Any) -> Any:
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# What a request may set: how a model learns. Where things are written, read and logged is the service's own matter.
_LEARNING: dict[str, Any] = {
    name: Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    for name, field in TrainingArguments.model_fields.items()
} | {
    "model_name": Literal[MODEL_NAMES],
    "epochs": Annotated[int, Field(ge=1, le=100_000)],
    "batch_size": Annotated[int, Field(ge=1, le=100_000)],
    "img_size": Annotated[int, Field(ge=64, le=4096, multiple_of=32)],
    "patience": Annotated[int, Field(ge=0)],
    "seed": Annotated[int, Field(ge=0, le=2**31 - 1)],
    "precision": Literal["auto", "fp32", "bf16", "fp16"],
    "keep": Annotated[int, Field(ge=0)],
    "samples": Annotated[int, Field(ge=0, le=500)],
}
if TYPE_CHECKING:
    LearningSettings = _Message
else:
    LearningSettings = create_model(
        "LearningSettings", __base__=_Message, **{name: (kind | None, None) for name, kind in _LEARNING.items()}
    )


class TrainingRequest(_Message):
    """Train anew. Everything may be left out."""

    data: Annotated[DataPath | None, Field(description="data.yaml, inside a folder of data_roots")] = None
    run_name: RunName | None = None
    settings: Annotated[LearningSettings, Field(description="training settings such as epochs")] = LearningSettings()
    queue: Annotated[bool, Field(description="wait for a running job instead of answering 409")] = False


class FinetuneRequest(TrainingRequest):
    """Fine-tune a registered model. Without ``data``: on the images that no champion has learned."""

    model: Annotated[Model | None, Field(description="NAME@ALIAS or NAME/VERSION; the champion unless given")] = None


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
