"""Values from the command line, and what is wrong with a value, in words.

Comes in: ``key=value`` texts, pydantic's errors. Goes out: the values put in place, and for each mistake one line with
its place, the value and the remedy.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from ray_jobs.training_arguments import REFUSED, TrainingArguments
from ray_jobs.yaml_source import KeyPath, YamlSource, parse_scalar


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> tuple[set[KeyPath], list[str]]:
    """Put ``key=value`` texts into ``values``; returns the keys that they name, and what is wrong with them."""
    seen: set[KeyPath] = set()
    problems = []
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            problems.append(f"command line: {text!r}: must be key=value, such as epochs=50 or cluster.num_workers=2")
            continue
        key = tuple(name.strip().split("."))
        try:
            parsed = parse_scalar(value) if value.strip() else None
        except yaml.YAMLError:
            problems.append(f"command line: {name}: cannot read the value {value!r}")
            continue
        target = values
        for part in key[:-1]:
            if not isinstance(target.get(part), dict):
                target[part] = {}
            target = target[part]
        target[key[-1]] = parsed
        seen.add(key)
    return seen, problems


def describe_problem(
    problem: Mapping[str, Any], source: YamlSource, overridden: set[KeyPath], root: type[BaseModel]
) -> str:
    """A pydantic error of a ``root`` in a person's words: place, value, remedy."""
    key = tuple(str(part) for part in problem["loc"])
    while key and key not in source.lines and key not in overridden and key[-1].isdigit():
        key = key[:-1]
    place = f"command line: {'.'.join(key)}" if key in overridden else source.place(key)
    kind, context, got = problem["type"], problem.get("ctx", {}), problem["input"]
    if kind == "extra_forbidden":
        return f"{place}: {_unknown_key(key, root)}"
    if kind == "value_error" and not key:  # settings that do not agree with each other name their keys themselves
        return f"{source.path}: {context['error']}"
    wanted = {
        "greater_than_equal": "at least {ge}",
        "greater_than": "above {gt}",
        "less_than_equal": "at most {le}",
        "less_than": "below {lt}",
        "multiple_of": "a multiple of {multiple_of}",
        "literal_error": "one of {expected}",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "string_type": "text",
        "list_type": "a list",
        "dict_type": "a section of `key: value` lines",
        "model_type": "a section of `key: value` lines",
        "string_pattern_mismatch": "letters, digits, dots, dashes and underscores, starting with a letter or digit",
    }.get(kind)
    if wanted:
        return f"{place}: must be {wanted.format(**context)}, got {got!r}"
    message = str(context.get("error", problem["msg"]))
    if key[-1:] == ("uri",):  # what is wrong with an address may be a secret in it
        return f"{place}: {message}"
    return f"{place}: {message}, got {got!r}"


def _unknown_key(key: KeyPath, model: type[BaseModel]) -> str:
    if len(key) == 1 and key[0] in REFUSED and issubclass(model, TrainingArguments):
        return f"not a setting here: {REFUSED[key[0]]}"
    for part in key[:-1]:
        annotation = model.model_fields[part].annotation
        model = annotation if isinstance(annotation, type) else get_args(annotation)[0]
    known = difflib.get_close_matches(key[-1], model.model_fields, n=1, cutoff=0.5)
    section = ".".join(key[:-1])
    nearest = f"; did you mean {'.'.join([*key[:-1], known[0]])}?" if known else ""
    return f"unknown key{f' in {section}' if section else ''}{nearest}"
