"""The settings of the trigger service, read once; every problem is reported at once.

In: ``config/trigger.yaml`` and the environment (``XRAY_TRIGGER_TOKEN``). Out: ``TriggerOptions``.
"""

import json
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ray_jobs.errors import SettingsError
from ray_jobs.settings import Settings, load_config_with_defaults
from ray_jobs.yaml_source import read_yaml

TOKEN_VARIABLE = "XRAY_TRIGGER_TOKEN"
SHORTEST_TOKEN = 16

_EVERY = re.compile(r"(\d+)\s*(min|h|d)")
_UNITS = {"min": "minutes", "h": "hours", "d": "days"}

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]{0,99}$")]
Alias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,99}$")]


def _every(value: object) -> timedelta | None:
    if value is None:
        return None
    match = _EVERY.fullmatch(str(value))
    if not match or not int(match[1]):
        raise ValueError("must be a time such as 30min, 12h or 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _at(value: object) -> object:
    if value is not None and not (isinstance(value, str) and re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value)):
        raise ValueError('must be a time of day such as "02:00", in quotes')
    return value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobOptions(_Section):
    """What every job of a kind is started with, beside what a request says."""

    config: Path | None = None
    data: Path
    settings: dict[str, bool | int | float | str] = {}

    def pairs(self, asked: Mapping[str, Any] = MappingProxyType({})) -> list[str]:
        """``key=value`` arguments; ``settings`` win over what was ``asked``."""
        return [f"{key}={json.dumps(value)}" for key, value in {**asked, **self.settings}.items()]

    def read_settings(self, asked: Mapping[str, Any] = MappingProxyType({})) -> Settings:
        """As the job will read them; a ``config`` that only the cluster has is not. Raises ``SettingsError``."""
        return load_config_with_defaults(
            self.config if self.config and self.config.is_file() else None, self.pairs(asked)
        )


class WatchOptions(_Section):
    """When new images start fine-tuning by themselves. ``finetune.data`` says where they appear."""

    enabled: bool = False
    min_images: Annotated[int, Field(ge=1)] = 50  # new ones, labelled and sound
    poll_s: Annotated[float, Field(gt=0)] = 30.0
    settle_s: Annotated[float, Field(ge=0)] = 10.0  # a file that changed later than this is still being written
    every: Annotated[timedelta | None, BeforeValidator(_every)] = None  # with at least one new image
    at: Annotated[str | None, BeforeValidator(_at)] = None  # time of day (UTC), with at least one new image


class TriggerOptions(_Section):
    """All of ``config/trigger.yaml``. Paths are those that the cluster's nodes see, too."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8090
    ray: str = "http://127.0.0.1:8265"
    python: str = "python"
    runs: Path = Path("runs")
    state: Path = Path("runs/.trigger")
    data_roots: list[Path] = []
    model: ModelName = "xray-detector"
    alias: Alias = "champion"
    training: JobOptions
    finetune: JobOptions
    watch: WatchOptions = WatchOptions()


def read_options(path: Path, overrides: dict[str, Any] | None = None) -> TriggerOptions:
    """Read the settings; paths become absolute. Raises ``SettingsError`` with every problem and its line."""
    source = read_yaml(path, SettingsError)
    values = source.values | {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        options = TriggerOptions.model_validate(values)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            place = source.place(tuple(str(part) for part in problem["loc"]))
            problems.append(f"{place}: {problem['msg'].removeprefix('Value error, ')}, got {problem['input']!r}")
        raise SettingsError(problems) from None
    options = options.model_copy(
        update={
            "runs": options.runs.expanduser().resolve(),
            "state": options.state.expanduser().resolve(),
            "data_roots": [root.expanduser().resolve() for root in options.data_roots],
            "training": _absolute(options.training),
            "finetune": _absolute(options.finetune),
        }
    )
    _check_settings(path, options)
    return options


def _check_settings(path: Path, options: TriggerOptions) -> None:
    """Raise where a job would refuse what every job of its kind is started with."""
    problems = []
    for kind, job in (("training", options.training), ("finetune", options.finetune)):
        try:
            job.read_settings()
        except SettingsError as error:
            problems += [line.replace("command line: ", f"{path}: {kind}.settings: ") for line in error.problems]
    if problems:
        raise SettingsError(problems)


def _absolute(job: JobOptions) -> JobOptions:
    paths = {"config": job.config, "data": job.data}
    return job.model_copy(update={key: path.expanduser().resolve() for key, path in paths.items() if path})


def read_token() -> str:
    """The token that requests must show. Raises ``SettingsError`` where there is none, or one that can be guessed."""
    token = os.environ.get(TOKEN_VARIABLE, "")
    if len(token) < SHORTEST_TOKEN:
        raise SettingsError(
            f"{TOKEN_VARIABLE}: must be set to at least {SHORTEST_TOKEN} characters, got {len(token)}; "
            "`openssl rand -hex 24` makes a good one"
        )
    return token
