"""What the read server answers: the shapes of its JSON, which its OpenAPI description is made from."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Score = Annotated[float, Field(ge=0, le=1)]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FoundBox(_Shape):
    """Something found. ``box``: x1, y1, x2, y2 in pixels of the picture."""

    label: str
    score: Score
    box: Annotated[list[float], Field(min_length=4, max_length=4)]


class ModelName(_Shape):
    """Which detector answered: its registered name and version, or a file's name and the start of its SHA-256."""

    name: str
    version: str


class ModelFacts(_Shape):
    """The detector that reads now. ``thresholds``: the score from which on each class counts, in the model's order."""

    model: ModelName
    thresholds: dict[str, Score]


class Answer(_Shape):
    """What was found in a picture of ``width`` x ``height`` pixels.

    ``summary`` is "No findings" where there are none. ``candidates``, where asked for: everything from a score of 0.05
    on. ``picture``, where asked for: the gray picture that was read, as a data: address of a PNG.
    """

    width: int
    height: int
    findings: list[FoundBox]
    summary: str | None = None
    model: ModelName
    thresholds: dict[str, Score]
    candidates: list[FoundBox] | None = None
    picture: str | None = None


class Health(_Shape):
    """``status`` is ok; ``registry`` says ok, or since when the model registry has not answered or a new version cannot
    be taken over (the model in use stays in use), or that the model is a file."""

    status: str
    model: ModelName
    registry: str


class Problem(_Shape):
    """What is wrong with a request, and what to do."""

    detail: str
