"""The search space: which values a parameter may take, written in plain YAML.

In: ``{"lr0": {"loguniform": [1e-4, 1e-1]}, "optimizer": {"choice": ["SGD", "AdamW"]}, "cos_lr": True}``.
Out: ``Space``; a plain value is fixed for all trials. Problems are returned with the parameter that they belong to.
"""

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Value = int | float | str | bool
RANGES = ("uniform", "loguniform", "randint")
LISTS = ("choice", "grid")


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both ends included; ``randint`` whole ones, ``loguniform`` evenly in log."""

    kind: Literal["uniform", "loguniform", "randint"]
    low: float
    high: float

    def sample(self, rng: random.Random) -> Value:
        """A value drawn evenly."""
        if self.kind == "randint":
            return rng.randint(int(self.low), int(self.high))
        if self.kind == "loguniform":
            return self.clip(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        return rng.uniform(self.low, self.high)

    def clip(self, value: float) -> Value:
        """The nearest value of the range."""
        inside = min(max(value, self.low), self.high)
        return round(inside) if self.kind == "randint" else inside

    def holds(self, value: object) -> bool:
        """Whether a value lies in the range."""
        number = isinstance(value, int if self.kind == "randint" else int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high  # type: ignore[operator]

    def bounds(self) -> tuple[Value, ...]:
        """The values that stand for all: valid ends make a valid range."""
        return (int(self.low), int(self.high)) if self.kind == "randint" else (self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of ``values``."""

    kind: Literal["choice", "grid"]
    values: tuple[Value, ...]

    def sample(self, rng: random.Random) -> Value:
        """A value drawn evenly."""
        return rng.choice(self.values)

    def holds(self, value: object) -> bool:
        """Whether a value is among them, of the same type."""
        return any(type(value) is type(known) and value == known for known in self.values)

    def bounds(self) -> tuple[Value, ...]:
        """All of them."""
        return self.values


Domain = Range | Choice


@dataclass(frozen=True)
class Space:
    """``domains`` are searched, ``fixed`` parameters have the same value in every trial."""

    domains: Mapping[str, Domain]
    fixed: Mapping[str, Value]

    def sample(self, rng: random.Random) -> dict[str, Value]:
        """One point, without the fixed parameters."""
        return {name: domain.sample(rng) for name, domain in self.domains.items()}

    def grid(self) -> Iterator[dict[str, Value]]:
        """Every combination of the lists, the last parameter changing fastest."""
        lists = {name: domain.values for name, domain in self.domains.items() if isinstance(domain, Choice)}
        for values in itertools.product(*lists.values()):
            yield dict(zip(lists, values, strict=True))

    def grid_size(self) -> int:
        """How many combinations ``grid`` gives."""
        return math.prod(len(domain.values) for domain in self.domains.values() if isinstance(domain, Choice))

    def values_of(self, name: str, otherwise: Value) -> tuple[Value, ...]:
        """The values a parameter may take: of a range both ends; ``otherwise`` where the space does not name it."""
        if name in self.domains:
            return self.domains[name].bounds()
        return (self.fixed.get(name, otherwise),)


def parse_space(values: Mapping[str, Any]) -> tuple[Space, list[tuple[str, str]]]:
    """Read a space; also returns each problem as (parameter, message)."""
    domains: dict[str, Domain] = {}
    fixed: dict[str, Value] = {}
    problems: list[tuple[str, str]] = []
    for name, value in values.items():
        try:
            if isinstance(value, Value):
                fixed[name] = value
            else:
                domains[name] = _domain(value)
        except ValueError as error:
            problems.append((name, str(error)))
    if not domains and not problems:
        problems.append(
            ("", "is empty: name at least one parameter to search, such as lr0: {loguniform: [1e-4, 1e-1]}")
        )
    return Space(domains, fixed), problems


def _domain(value: object) -> Domain:
    if not isinstance(value, Mapping) or len(value) != 1:
        raise ValueError(f"must be a value or one of {_forms()}, got {value!r}")
    kind, given = next(iter(value.items()))
    if kind in LISTS:
        return _choice(kind, given)
    if kind in RANGES:
        return _range(kind, given)
    raise ValueError(f"unknown kind of values {kind!r}; write one of {_forms()}")


def _choice(kind: Any, given: object) -> Choice:
    plain = isinstance(given, list) and given and all(isinstance(value, Value) for value in given)
    if not plain:
        raise ValueError(f"{kind} must be a list of values such as [16, 32], got {given!r}")
    assert isinstance(given, list)
    unique = {(type(value), value) for value in given}
    if len(unique) != len(given):
        raise ValueError(f"{kind} names a value twice: {given!r}")
    return Choice(kind, tuple(given))


def _range(kind: Any, given: object) -> Range:
    ends = given if isinstance(given, list) else []
    low, high = ends if len(ends) == 2 else (None, None)
    if (
        isinstance(low, bool)
        or isinstance(high, bool)
        or not (isinstance(low, int | float) and isinstance(high, int | float))
    ):
        raise ValueError(f"{kind} must be two numbers [low, high], got {given!r}")
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{kind} must have finite ends, got {given!r}")
    if low > high:
        raise ValueError(f"the range is upside down: {given!r}; write [{high!r}, {low!r}]")
    if low == high:
        raise ValueError(f"the range {given!r} holds one value; write it as a plain value: {low!r}")
    if kind == "loguniform" and low <= 0:
        raise ValueError(f"loguniform must begin above 0, got {given!r}")
    if kind == "randint" and (type(low) is not int or type(high) is not int):
        raise ValueError(f"randint must have whole numbers, got {given!r}")
    return Range(kind, low, high)


def _forms() -> str:
    return ", ".join([f"{{{kind}: [low, high]}}" for kind in RANGES] + [f"{{{kind}: [a, b, ...]}}" for kind in LISTS])
