"""The settings of a search, read once from ``tune.yaml`` and ``tune.key=value``; every problem is reported at once.

In: a YAML file, overrides, and the training settings that trials start from. Out: ``SearchSettings`` and its ``Space``.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from ray_jobs.errors import SettingsError
from ray_jobs.overrides import apply_overrides, describe_problem
from ray_jobs.search.pbt import NOT_CARRIED
from ray_jobs.search.score import METRICS
from ray_jobs.search.searchers import has_optuna
from ray_jobs.search.space import Choice, Space, Value, parse_space
from ray_jobs.settings import Section, Settings
from ray_jobs.training_arguments import TrainingArguments
from ray_jobs.yaml_source import KeyPath, YamlSource, read_yaml

SEARCHABLE = (*TrainingArguments.model_fields, "model_name", "batch_size", "img_size", "precision", "patience", "seed")
POSITIVE_GAINS = ("box", "cls", "dfl")  # the score divides by them
LIMITED_BY_NUMBER = ("hyperband", "pbt")  # plan with the number of trials from the start

Count = Annotated[int, Field(ge=1)]


class Budget(Section):
    """When the search ends: after so many trials, or after so many hours (the first that comes)."""

    samples: Count = 20
    epochs: Count = 30  # of a trial that is never stopped
    hours: Annotated[float, Field(gt=0.0)] | None = None


class TrialResources(Section):
    """What one trial holds while it runs."""

    workers: Count = 1  # processes that train one model together
    gpus: Annotated[float, Field(ge=0.0)] | None = None  # per worker, fractions too; None: 1 where there are GPUs
    cpus: Count | None = None  # per worker; None: an even share of the cores


class SchedulerSettings(Section):
    """Which trials are stopped early."""

    name: Literal["asha", "hyperband", "pbt", "none"] = "asha"
    grace_epochs: Count = 3
    reduction_factor: Annotated[float, Field(gt=1.0)] = 3.0
    interval: Count = 5  # pbt: epochs of a generation
    quantile: Annotated[float, Field(gt=0.0, le=0.5)] = 0.25  # pbt: share that is replaced
    resample: Annotated[float, Field(ge=0.0, le=1.0)] = 0.25  # pbt: how often a parameter is drawn anew


class SearcherSettings(Section):
    """What is tried next."""

    name: Literal["auto", "random", "tpe", "gp", "grid"] = "auto"  # auto: tpe where Optuna is installed, else random
    seed: Annotated[int, Field(ge=0)] = 0
    startup: Annotated[int, Field(ge=1)] = 8  # trials at random before a model is asked
    points: list[dict[str, Any]] = Field(default_factory=list)  # tried first
    earlier: list[str] = Field(default_factory=list)  # names of searches whose trials the model learns from


class SearchSettings(Section):
    """Everything about a search but the training settings that its trials start from."""

    space: dict[str, Any]
    metric: str = "val/map50_95"
    mode: Literal["max", "min"] = "max"
    budget: Budget = Budget()
    resources: TrialResources = TrialResources()
    max_concurrent: Count | None = None  # None: as many trials as find room
    scheduler: SchedulerSettings = SchedulerSettings()
    searcher: SearcherSettings = SearcherSettings()
    max_failures: Annotated[int, Field(ge=0)] = 3  # how often a trial that lost its worker is tried again
    checkpoint_s: Annotated[float, Field(ge=0.0)] = 60.0  # seconds between a trial's checkpoints, besides pauses

    @property
    def searcher_name(self) -> str:
        """The searcher, with ``auto`` resolved."""
        if self.searcher.name == "auto":
            return "tpe" if has_optuna() else "random"
        return self.searcher.name

    def as_dict(self) -> dict[str, Any]:
        """Plain values, complete: reading them back gives the same settings."""
        return self.model_dump(mode="json")

    def save(self, path: Path) -> None:
        """Write the settings so that the search can be repeated from this file and its settings.yaml."""
        path.write_text(yaml.safe_dump(self.as_dict(), sort_keys=False), encoding="utf-8")

    def differences(self, other: "SearchSettings") -> list[str]:
        """What makes it another search, as ``key: here, there``; how much of it, and where, does not."""
        free = {"max_concurrent", "resources", "max_failures", "checkpoint_s"}
        mine, theirs = self.as_dict(), other.as_dict()
        if self.scheduler.name not in LIMITED_BY_NUMBER:
            for values in (mine, theirs):
                values["budget"] = {"epochs": values["budget"]["epochs"]}
        mine, theirs = _flat(mine), _flat(theirs)
        keys = [key for key in dict.fromkeys([*mine, *theirs]) if key.partition(".")[0] not in free]
        missing = "not there"
        return [
            f"{key}: {mine.get(key, missing)}, {theirs.get(key, missing)}"
            for key in keys
            if mine.get(key) != theirs.get(key)
        ]


def load_search_settings(path: Path, overrides: Sequence[str], base: Settings) -> tuple[SearchSettings, Space]:
    """Read ``tune.yaml`` and ``key=value`` overrides (``budget.samples=40``).

    Raises ``SettingsError`` with every problem, each with its place and remedy.
    """
    source = read_yaml(path, SettingsError)
    values = json.loads(json.dumps(source.values, default=str))
    overridden, problems = apply_overrides(values, overrides)
    if not values.get("space"):
        problems.append(f"{source.place(('space',))}: {_EMPTY}")
        values["space"] = {}
    try:
        settings = SearchSettings.model_validate(values)
    except ValidationError as error:
        found = [describe_problem(problem, source, overridden, SearchSettings) for problem in error.errors()]
        problems += [text.replace("command line: ", "command line: tune.", 1) for text in found]
        raise SettingsError(problems) from None
    space, wrong = parse_space(settings.space)
    placed: list[tuple[KeyPath, str]] = [(("space", name) if name else ("space",), text) for name, text in wrong]
    if settings.space:
        placed += _check_parameters(space, base)
    else:
        placed = []
    placed += _check_agreement(settings, space, base)
    problems += [f"{_place(source, overridden, key)}: {text}" for key, text in placed]
    if problems:
        raise SettingsError(problems)
    return settings, space


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """``{"space": {"lr0": ...}}`` as ``{"space.lr0": ...}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        deeper = {f"{key}.{inner}": one for inner, one in value.items()} if isinstance(value, dict) else {key: value}
        flat.update(deeper)
    return flat


_EMPTY = "is empty: name at least one parameter to search, such as lr0: {loguniform: [1e-4, 1e-1]}"


def _place(source: YamlSource, overridden: set[KeyPath], key: KeyPath) -> str:
    return f"command line: tune.{'.'.join(key)}" if key in overridden else source.place(key)


def _check_parameters(space: Space, base: Settings) -> list[tuple[KeyPath, str]]:
    """Every end and every choice of a parameter must be a value that training takes."""
    problems: list[tuple[KeyPath, str]] = []
    for name in (*space.domains, *space.fixed):
        key = ("space", name)
        if name not in SEARCHABLE:
            near = difflib.get_close_matches(name, SEARCHABLE, n=1, cutoff=0.5)
            known = "cannot be searched" if name in Settings.model_fields else "unknown parameter"
            problems.append((key, f"{known}{_near(near) or '; config/config.yaml names those that there are'}"))
            continue
        for value in space.values_of(name, 0):
            problems += [(key, text) for text in _refused(base, name, value)]
            if name in POSITIVE_GAINS and value == 0:
                problems.append((key, "must be above 0: validation losses are compared without this gain"))
            if name == "batch_size" and isinstance(value, float):
                problems.append((key, "must be whole numbers: a share of GPU memory is another batch on another GPU"))
    return problems


def _refused(base: Settings, name: str, value: Value) -> list[str]:
    """What training says to a value, in its own words."""
    try:
        Settings.model_validate(base.as_dict() | {name: value})
    except ValidationError as error:
        nowhere = YamlSource(Path(), {})
        texts = [describe_problem(problem, nowhere, set(), Settings) for problem in error.errors()]
        return [text.removeprefix(f"{Path()}: ").removeprefix(f"{name}: ") for text in texts]
    return []


def _check_agreement(settings: SearchSettings, space: Space, base: Settings) -> list[tuple[KeyPath, str]]:
    """What each key may be because of others."""
    problems: list[tuple[KeyPath, str]] = []
    scheduler, searcher, epochs = settings.scheduler, settings.searcher, settings.budget.epochs
    if settings.metric not in METRICS:
        near = difflib.get_close_matches(settings.metric, METRICS, n=1, cutoff=0.3)
        problems.append(
            (("metric",), f"{settings.metric!r} is never reported; there are {', '.join(METRICS)}{_near(near)}")
        )
    if scheduler.name in ("asha", "hyperband") and scheduler.grace_epochs > epochs:
        text = f"{scheduler.grace_epochs} is above budget.epochs {epochs}: no trial could ever be stopped"
        problems.append((("scheduler", "grace_epochs"), text))
    if scheduler.name == "pbt":
        if scheduler.interval >= epochs:
            text = f"{scheduler.interval} is not below budget.epochs {epochs}: there would be one generation"
            problems.append((("scheduler", "interval"), text))
        fixed = "a checkpoint cannot be carried over to another; write it as a plain value, or take scheduler asha"
        problems += [(("space", name), fixed) for name in space.domains if name in NOT_CARRIED]
        if settings.budget.samples < 2:
            problems.append((("budget", "samples"), "a population has at least 2 members"))
    if searcher.name == "grid":
        ranges = [name for name, domain in space.domains.items() if not isinstance(domain, Choice)]
        text = "cannot be enumerated by searcher grid; write {grid: [a, b, ...]}"
        problems += [(("space", name), text) for name in ranges]
    if searcher.name in ("tpe", "gp") and not has_optuna():
        text = f"{searcher.name} needs Optuna; pip install 'xray-ray[tune]', or take random"
        problems.append((("searcher", "name"), text))
    if searcher.earlier and settings.searcher_name not in ("tpe", "gp"):
        problems.append((("searcher", "earlier"), f"searcher {searcher.name} learns from no trial; take tpe or gp"))
    problems += _check_points(searcher.points, space, settings.budget.samples)
    problems += _check_optimizer(space, base)
    return problems


def _check_points(points: list[dict[str, Any]], space: Space, samples: int) -> list[tuple[KeyPath, str]]:
    problems: list[tuple[KeyPath, str]] = []
    for number, point in enumerate(points, 1):
        for name, value in point.items():
            if name not in space.domains:
                problems.append((("searcher", "points"), f"point {number}: {name} is not searched in space"))
            elif not space.domains[name].holds(value):
                problems.append((("searcher", "points"), f"point {number}: {name}: {value!r} lies outside the space"))
    if len(points) > samples:
        problems.append((("searcher", "points"), f"{len(points)} points are more than budget.samples {samples}"))
    return problems


def _check_optimizer(space: Space, base: Settings) -> list[tuple[KeyPath, str]]:
    if "auto" not in space.values_of("optimizer", base.optimizer):
        return []
    text = "has no effect with optimizer: auto, which chooses it; add a plain optimizer: AdamW to the space"
    return [(("space", name), text) for name in ("lr0", "momentum") if name in space.domains]


def _near(near: list[str]) -> str:
    return f"; did you mean {near[0]}?" if near else ""


def trial_settings(base: Settings, settings: SearchSettings, parameters: Mapping[str, Value]) -> Settings:
    """The training settings of a trial. Raises ``SettingsError`` for parameters that do not agree with each other."""
    values = base.as_dict() | dict(parameters) | {"epochs": settings.budget.epochs}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        nowhere = YamlSource(Path("space"), {})
        raise SettingsError(
            [describe_problem(problem, nowhere, set(), Settings) for problem in error.errors()]
        ) from None
