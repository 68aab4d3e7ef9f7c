"""Reads data.yaml: where the images of each split lie and what the classes are called.

Comes in: a file in the Ultralytics format. Goes out: a ``DataDescription``; nothing later reads the file again.

    path: /data/chest        # optional, relative to this file; without it the file's own folder; or s3://bucket/prefix
    train: images/train      # a folder, a list of folders, or a .txt file with one image a line
    val: images/val
    test: images/test        # optional
    nc: 3                    # optional, must agree with names
    names: [Nodule, Effusion, No finding]

"No finding" is no object. The class is dropped, the classes behind it move up by one, and its boxes leave their image
without boxes: background.
"""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_jobs.dataset.local_copy import Origin
from ray_jobs.errors import DataError
from ray_jobs.yaml_source import YamlSource, read_yaml

SPLITS = ("train", "val", "test")
REQUIRED = ("train", "val")

_KEYS = {"path", "train", "val", "validation", "test", "names", "nc", "channels"}
_NO_FINDING = re.compile(r"no[\s_-]*findings?", re.IGNORECASE)


@dataclass(frozen=True)
class DataDescription:
    """What a data.yaml says, with every path resolved.

    ``names`` are the classes that the detector learns. ``splits`` holds "train", "val" and, where given, "test", each
    with its folders and .txt lists. ``dropped_class`` is the id that label files use for "No finding".
    ``notices`` say what was read but is not used. ``origin`` is the bucket that ``root`` was copied from.
    """

    yaml_path: Path
    root: Path
    names: tuple[str, ...]
    splits: dict[str, tuple[Path, ...]]
    dropped_class: int | None = None
    notices: tuple[str, ...] = ()
    origin: Origin | None = None

    @property
    def label_class_count(self) -> int:
        """How many classes the label files may name: one more than ``names`` where "No finding" was dropped."""
        return len(self.names) + (self.dropped_class is not None)

    def class_id(self, label_class: int) -> int | None:
        """The detector's class for a class of the label files; None for "No finding"."""
        if self.dropped_class is None or label_class < self.dropped_class:
            return label_class
        return None if label_class == self.dropped_class else label_class - 1


def read_description(
    yaml_path: Path, root: Path | None = None, required: Collection[str] = REQUIRED
) -> DataDescription:
    """Read a data.yaml that names at least the ``required`` splits; ``root`` stands for what it says under ``path``.

    Raises ``DataError`` with all its problems at once, each with its line.
    """
    source = read_yaml(Path(yaml_path), DataError)
    problems: list[str] = []
    names, dropped = _read_names(source, problems)
    root = root or _read_root(source, problems)
    splits = _read_splits(source, root, required, problems) if root else {}
    if problems:
        raise DataError(problems)
    assert root is not None
    return DataDescription(Path(yaml_path).resolve(), root, names, splits, dropped, _notices(source))


def _read_root(source: YamlSource, problems: list[str]) -> Path | None:
    value = source.values.get("path") or "."
    if not isinstance(value, str):
        problems.append(f"{source.place(('path',))}: must be a folder, got {value!r}")
        return None
    root = _resolve(source.path.parent, value)
    if root is None or not root.is_dir():
        problems.append(f"{source.place(('path',))}: no such folder: {root or repr(value)}")
        return None
    return root


def _read_splits(
    source: YamlSource, root: Path, required: Collection[str], problems: list[str]
) -> dict[str, tuple[Path, ...]]:
    splits: dict[str, tuple[Path, ...]] = {}
    for split in SPLITS:
        key = "validation" if split == "val" and "val" not in source.values else split
        value = source.values.get(key)
        place = source.place((key,)) if value is not None else source.place((split,))
        if value is None or value == []:
            if split in required:
                problems.append(f"{place}: missing; give the folder of the images, or a .txt file that lists them")
            continue
        entries = value if isinstance(value, list) else [value]
        if not all(isinstance(entry, str) and entry for entry in entries):
            problems.append(f"{place}: must be a folder, a list of folders or a .txt file, got {value!r}")
            continue
        splits[split] = tuple(path for entry in entries if (path := _find_source(root, entry, place, problems)))
    return splits


def _find_source(root: Path, entry: str, place: str, problems: list[str]) -> Path | None:
    path = _resolve(root, entry)
    if entry.startswith("../") and not (path and path.exists()):
        path = _resolve(root, entry[3:])  # Roboflow writes its folders one level too high; Ultralytics looks here too
    if path is None or not path.exists():
        problems.append(f"{place}: no such folder or .txt file: {path or repr(entry)}")
    elif path.is_file() and path.suffix.lower() != ".txt":
        problems.append(f"{place}: must be a folder or a .txt file that lists images, got {path}")
    else:
        return path
    return None


def _resolve(folder: Path, entry: str) -> Path | None:
    """Absolute, links followed, as Ultralytics does; None for what cannot be a path (null bytes, loops, too long)."""
    try:
        resolved = (folder / Path(entry).expanduser()).resolve()
        resolved.exists()
    except (OSError, ValueError, RuntimeError):
        return None
    return resolved


def _read_names(source: YamlSource, problems: list[str]) -> tuple[tuple[str, ...], int | None]:
    listed = _listed_names(source, problems)
    if listed is None:
        return (), None
    _check_class_count(source, len(listed), problems)
    place = source.place(("names",))
    for name, count in Counter(listed).items():
        if count > 1:
            problems.append(f"{place}: {name!r} is there {count} times; each class needs a name of its own")
    dropped = [number for number, name in enumerate(listed) if _NO_FINDING.fullmatch(name)]
    if len(dropped) > 1:
        problems.append(f"{place}: {' and '.join(repr(listed[i]) for i in dropped)} mean the same; keep one")
    names = tuple(name for number, name in enumerate(listed) if number not in dropped)
    if not names:
        problems.append(f"{place}: names no finding at all; a detector needs at least one class")
    return names, dropped[0] if dropped else None


def _listed_names(source: YamlSource, problems: list[str]) -> list[str] | None:
    """The names in the order of their ids; None, with a problem noted, where they cannot be told."""
    value, place = source.values.get("names"), source.place(("names",))
    if value is None:
        problems.append(f"{place}: missing; list the class names in the order of their ids")
        return None
    if isinstance(value, dict):
        if sorted(map(str, value)) != sorted(map(str, range(len(value)))):
            problems.append(f"{place}: ids must be 0 to {len(value) - 1} without gaps, got {list(value)}")
            return None
        value = [name for _, name in sorted(value.items(), key=lambda item: int(item[0]))]
    if not isinstance(value, list):
        problems.append(f"{place}: must be a list or a mapping of ids to names, got {value!r}")
        return None
    wrong = [name for name in value if isinstance(name, bool) or not isinstance(name, str | int) or not _clean(name)]
    if wrong:
        problems.append(f"{place}: each name must be text, got {', '.join(map(repr, wrong[:5]))}; put it in quotes")
        return None
    return [_clean(name) for name in value]


def _clean(name: str | int) -> str:
    return " ".join(str(name).split())


def _check_class_count(source: YamlSource, listed: int, problems: list[str]) -> None:
    count: Any = source.values.get("nc")
    if count is None:
        return
    place = source.place(("nc",))
    if isinstance(count, bool) or not isinstance(count, int):
        problems.append(f"{place}: must be the number of classes, got {count!r}")
    elif count != listed:
        problems.append(f"{place}: says {count}, but names lists {listed}; correct one of them")


def _notices(source: YamlSource) -> tuple[str, ...]:
    return tuple(f"{source.place((str(key),))}: is not used here" for key in source.values if key not in _KEYS)
