"""The folder that findings go to: ``findings.jsonl``, a drawing for each picture, and which detector made them.

In: pictures and readings. Out: files. A reading that was interrupted is continued: what stands in ``findings.jsonl`` is
not read again. Nothing that something else has put there is written over.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ray_jobs.errors import BadInput, StorageError
from ray_jobs.serving.chunk import Reading
from ray_jobs.serving.detector import Detector, DetectorFile
from ray_jobs.serving.pictures import Picture

LINES = "findings.jsonl"
ABOUT = "detector.json"


@dataclass
class FindingsFolder:
    """``waiting`` are the pictures still to be read, ``drawings`` where each one's drawing goes."""

    path: Path
    waiting: list[Picture]
    drawings: dict[str, Path] = field(default_factory=dict)

    def write(self, reading: Reading) -> None:
        """The drawing first, then the line: a line says that all is there. Raises StorageError."""
        target = self.drawings[reading.source]
        try:
            if reading.drawing:
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_name(f".{target.name}.partial")
                partial.write_bytes(reading.drawing)
                partial.replace(target)
            with (self.path / LINES).open("a", encoding="utf-8") as file:
                places = {"source": reading.source, "drawing": target.relative_to(self.path).as_posix()}
                line = {**(reading.line or {}), **places}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise _cannot_write(target, error) from error


def open_folder(path: Path, pictures: Sequence[Picture], file: DetectorFile, detector: Detector) -> FindingsFolder:
    """Prepare a folder for the findings of these pictures; nothing is made where it raises.

    Raises BadInput for a folder with another detector's findings, or with files in the way, StorageError where it
    cannot be written to.
    """
    about = {"model": file.name, "sha256": file.digest, "thresholds": detector.thresholds_by_class()}
    drawings = plan_drawings(pictures, path)
    done = _read_before(path, about)
    waiting = [picture for picture in pictures if picture.source not in done]
    if (path / ABOUT).is_file():
        owners = {path / drawing: source for source, drawing in done.items()}
        targets = [drawings[picture.source] for picture in waiting]
        problems = [
            f"{target}: is the drawing of {owners[target]}; choose another --out"
            for target in targets
            if target in owners
        ]
    else:
        problems = [
            f"{target}: is there already; choose another --out or move it away"
            for target in [path / LINES, *drawings.values()]
            if target.exists()
        ]
    if problems:
        raise BadInput(problems)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not (path / ABOUT).is_file():
            partial = path / f".{ABOUT}.partial"
            partial.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            partial.replace(path / ABOUT)
    except OSError as error:
        raise _cannot_write(path, error) from error
    return FindingsFolder(path, waiting, drawings)


def plan_drawings(pictures: Sequence[Picture], folder: Path) -> dict[str, Path]:
    """Where the drawing of each source goes: its own name below ``folder``, as PNG, and no two in one place.

    Names that would fall together (x.png and x.jpg, also X.png, which some disks take for the same) keep their endings,
    and get a number where that does not tell them apart. The same pictures always get the same names.
    """
    wanted = {picture.source: picture.name.with_suffix(".png") for picture in pictures}
    counts: dict[str, int] = {}
    for name in wanted.values():
        counts[str(name).lower()] = counts.get(str(name).lower(), 0) + 1
    taken = {name for name, count in counts.items() if count == 1}
    planned: dict[str, Path] = {}
    for picture in pictures:
        name = wanted[picture.source]
        if counts[str(name).lower()] > 1:
            name = _free_name(picture.name, taken)
            taken.add(str(name).lower())
        planned[picture.source] = folder / name
    return planned


def _free_name(name: PurePosixPath, taken: set[str]) -> PurePosixPath:
    candidate, number = name.with_name(f"{name.name}.png"), 2
    while str(candidate).lower() in taken:
        candidate, number = name.with_name(f"{name.name}-{number}.png"), number + 1
    return candidate


def _read_before(path: Path, about: dict[str, Any]) -> dict[str, str]:
    """The sources that an earlier, interrupted reading by the same detector has finished with, and their drawings."""
    if not (path / ABOUT).is_file():
        return {}
    try:
        before: dict[str, Any] = json.loads((path / ABOUT).read_text(encoding="utf-8"))
        same = (before["sha256"], before["thresholds"]) == (about["sha256"], about["thresholds"])
    except (ValueError, KeyError, TypeError):
        raise BadInput(
            f"{path / ABOUT}: does not say which detector's findings these are; choose another --out"
        ) from None
    if not same:
        raise BadInput(
            f"{path}: holds findings of {before.get('model')} with thresholds {before.get('thresholds')}; "
            "choose another --out for another detector or other thresholds"
        )
    lines = path / LINES
    if not lines.is_file():
        return {}
    text = lines.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):  # the line that was being written when it was interrupted
        with lines.open("r+b") as file:
            file.truncate(len(whole))
    return dict(filter(None, map(_places_of, whole.splitlines())))


def _places_of(line: bytes) -> tuple[str, str] | None:
    try:
        places = json.loads(line)
        return str(places["source"]), str(places["drawing"])
    except (ValueError, KeyError, TypeError):
        return None  # damaged by something else: its picture is read again


def _cannot_write(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path}: cannot be written ({error.strerror or error}); choose another --out")
