"""Reads a YAML file for people: each key remembers its line, and a mistake is shown where it stands.

In: a path. Out: plain values and the line of every key. Errors name file, line and the line's text.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ray_jobs.errors import BadInput

KeyPath = tuple[str, ...]

MOST_VALUES = 100_000  # of a file with its aliases written out; a kilobyte of aliases can stand for billions


@dataclass(frozen=True)
class YamlSource:
    """The values of a YAML mapping and where each key stands."""

    path: Path
    values: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def place(self, key: KeyPath) -> str:
        """``file:line: section.key`` of a key, without the line where the file does not hold the key."""
        line = self.lines.get(key)
        return f"{self.path}{f':{line}' if line else ''}: {'.'.join(key)}"


class _Loader(yaml.SafeLoader):
    """The safe loader, reading ``1e-3`` as a number as every other tool does (YAML 1.1 takes it for text)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?([eE][-+]?\d+)$|^[-+]?\.\d[\d_]*([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)


def parse_scalar(text: str) -> Any:
    """One value as YAML would read it, for ``key=value`` on a command line. Raises ``yaml.YAMLError``."""
    return yaml.load(text, Loader=_Loader)


def quoted(value: object) -> str:
    """As YAML text: a name such as 2024 or no stays a name."""
    return "'" + str(value).replace("'", "''") + "'"


def read_yaml(path: Path, error: type[BadInput] = BadInput) -> YamlSource:
    """Read a YAML mapping with the line of every key.

    Raises ``error`` for a missing or unreadable file, a syntax error, a key given twice, or a file that is no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, ValueError) as problem:
        raise error(f"{path}: cannot be read: {problem}") from None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if _written_out(node, {}) > MOST_VALUES:
            raise error(f"{path}: its aliases stand for more than {MOST_VALUES:,} values, or for themselves")
        values = loader.construct_document(node) if node else {}
    except yaml.YAMLError as problem:
        raise error(_syntax_message(path, text, problem)) from None
    except (ValueError, TypeError, OverflowError, RecursionError, LookupError, AttributeError) as problem:
        raise error(f"{path}: not valid YAML: {problem}") from None
    if not isinstance(values, dict):
        raise error(f"{path}: must hold `key: value` lines, got {type(values).__name__}")
    lines: dict[KeyPath, int] = {}
    repeated = _collect_lines(node, (), lines)
    if repeated:
        raise error([f"{path}:{line}: {'.'.join(key)}: given twice; keep one" for key, line in repeated])
    return YamlSource(path, values, lines)


def _written_out(node: yaml.Node | None, known: dict[int, float]) -> float:
    """How many values a node has once its aliases are written out; infinite for one that holds itself."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = float("inf")  # until it is counted
        inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_written_out(part, known) for part in inner)
    return known[id(node)]


def _collect_lines(node: yaml.Node | None, prefix: KeyPath, lines: dict[KeyPath, int]) -> list[tuple[KeyPath, int]]:
    repeated: list[tuple[KeyPath, int]] = []
    if not isinstance(node, yaml.MappingNode) or len(prefix) > 20:
        return repeated
    for key_node, value_node in node.value:
        key = (*prefix, str(key_node.value))
        line = key_node.start_mark.line + 1
        if key in lines:
            repeated.append((key, line))
        lines[key] = line
        repeated += _collect_lines(value_node, key, lines)
    return repeated


def _syntax_message(path: Path, text: str, problem: yaml.YAMLError) -> str:
    mark = getattr(problem, "problem_mark", None)
    if mark is None:
        return f"{path}: not valid YAML: {problem}"
    rows = text.splitlines()
    row = rows[mark.line] if mark.line < len(rows) else "(end of file)"
    reason = getattr(problem, "problem", None) or "syntax error"
    return f"{path}:{mark.line + 1}: not valid YAML: {reason}\n    {row}\n    {' ' * mark.column}^"
