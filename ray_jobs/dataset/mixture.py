"""Mixes new images with a share of the old ones, so that fine-tuning does not forget.

In: the data.yaml of the new images and that of the old ones. Out: a folder with lists of images and a data.yaml of its
own; no image is copied, and the same inputs give the same lists.

Which image goes where, so that a comparison of old and new model stays fair:

1. ``test`` and ``val`` are those of the old data, plus what the new data has of its own.
2. A new image for ``test`` or ``val`` is left out where the old model may have learned from it or from its patient.
3. A new image for ``train`` is left out where it, or its patient, is in ``test`` or ``val``.
4. Of the old ``train``, a share comes in; where a picture is in the new data too, the new labels count.

Where the old data is a mixture itself, its ``train`` is only a share of what was learned. So beside each mixture lies
``all-learned.txt``, with everything since the first training: what rules 2 and 4 call old ``train`` is all of that.

Two files are the same image where their pixels are (SHA-256). Patients are told apart only with a pattern for names.
"""

import hashlib
import re
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from ray_jobs.dataset.description import SPLITS, DataDescription
from ray_jobs.dataset.inspection import inspect_images
from ray_jobs.dataset.layout import ImageFile, can_be_listed, read_layout
from ray_jobs.errors import DataError

HELD_OUT = ("test", "val")
LEARNED = "all-learned.txt"  # one "HASH PATH" a line: a picture stays learned when its file is gone


@dataclass(frozen=True)
class Mixture:
    """``data_yaml`` of the mixed data set; ``new`` and ``old`` count the images of each split that came from where;
    ``notices`` say what was left out and why."""

    data_yaml: Path
    new: dict[str, int]
    old: dict[str, int]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Image:
    """An image file with its identity."""

    path: Path
    split: str
    pixels: str
    patient: str | None
    gone: bool = False  # learned once, but no longer there to be learned again


class _Group:
    """Images in the order in which they came, and what they are known by."""

    def __init__(self, images: Iterable[_Image] = ()) -> None:
        self.images: list[_Image] = []
        self._pixels: set[str] = set()
        self._patients: set[str] = set()
        for image in images:
            self.add(image)

    def add(self, image: _Image) -> None:
        self.images.append(image)
        self._pixels.add(image.pixels)
        if image.patient is not None:
            self._patients.add(image.patient)

    def has_picture(self, image: _Image) -> bool:
        return image.pixels in self._pixels

    def has_patient(self, image: _Image) -> bool:
        """Whether it holds this picture or another one of its patient."""
        return image.pixels in self._pixels or image.patient in self._patients


def mix(
    new: DataDescription,
    old: DataDescription,
    folder: Path,
    *,
    replay: float = 0.3,
    seed: int = 0,
    patient_id_pattern: str | None = None,
) -> Mixture:
    """Write a mixed data set into ``folder``, replacing one that is there.

    ``replay`` is the share (0..1) of the old training images that comes in, chosen by a hash of their pixels and
    ``seed``. Raises ``DataError`` where the classes differ, naming both lists, or where nothing new is left.
    """
    names, dropped = _agree(new, old)
    pattern = re.compile(patient_id_pattern) if patient_id_pattern else None
    left_out: Counter[str] = Counter()
    fresh, known = _read(new, pattern, left_out), _read(old, pattern, left_out, may_be_gone=True)
    chosen = _held_out(fresh, known, left_out)
    chosen["train"] = _to_learn(fresh, [chosen[split] for split in HELD_OUT], left_out)
    notices = tuple(f"{count} {reason}" for reason, count in left_out.items())
    if not chosen["train"].images:
        raise DataError([f"{new.yaml_path}: no new image is left to learn from", *(f"    {line}" for line in notices)])
    replayed = _replayed(known, [chosen[split] for split in SPLITS], replay, seed)
    new_ones = set(fresh)
    new_counts = {split: sum(image in new_ones for image in chosen[split].images) for split in SPLITS}
    for image in replayed:
        chosen["train"].add(image)
    old_counts = {split: len(chosen[split].images) - new_counts[split] for split in SPLITS}
    data_yaml = _write(folder, chosen, names, dropped)
    _write_learned(folder, chosen["train"], known)
    return Mixture(data_yaml, new_counts, old_counts, notices)


def _agree(new: DataDescription, old: DataDescription) -> tuple[tuple[str, ...], int | None]:
    """The classes and the id of "No finding", which must mean the same in both sets of label files."""
    if new.names != old.names:
        raise DataError(
            [
                f"{new.yaml_path}: the classes must be those that the model knows, in the same order:",
                f"    here: {', '.join(new.names)}",
                f"    {old.yaml_path}: {', '.join(old.names)}",
            ]
        )
    at_end = {None, len(new.names)}
    if new.dropped_class != old.dropped_class and {new.dropped_class, old.dropped_class} != at_end:
        raise DataError(
            f'{new.yaml_path}: "No finding" stands elsewhere among the names than in {old.yaml_path}, so that the same '
            "number in a label file means another class; put it last in both"
        )
    dropped = new.dropped_class if new.dropped_class is not None else old.dropped_class
    return new.names, dropped


def _read(
    description: DataDescription, pattern: re.Pattern[str] | None, left_out: Counter[str], may_be_gone: bool = False
) -> list[_Image]:
    """Every image, once; what cannot be read stays for the data check to report, except that training images
    ``may_be_gone``: a folder of new images is tidied up some day."""
    record = _read_learned(description)
    files = {file.image: file for members in read_layout(description).images.values() for file in members}
    for path in record.values():
        files.setdefault(path, ImageFile("train", path.name, path))
    listed = [file for file in files.values() if can_be_listed(file.image)]
    if len(listed) < len(files):
        left_out["images whose names are not UTF-8 or hold a line break: rename them"] += len(files) - len(listed)
    images: dict[str, _Image] = {}
    order = (*HELD_OUT, "train")  # a picture that is in two splits is never trained on
    pairs = zip(listed, inspect_images(listed, description), strict=True)
    for file, (pixels, _) in sorted(pairs, key=lambda pair: order.index(pair[0].split)):
        if may_be_gone and file.split == "train" and not pixels and _is_gone(file.image):
            left_out["images that were learned from are gone: they cannot be learned again"] += 1
            continue
        identity = pixels or f"unreadable {file.image}"
        images.setdefault(identity, _Image(file.image, file.split, identity, _patient(file.image, pattern)))
    for pixels, path in record.items():
        images.setdefault(pixels, _Image(path, "train", pixels, _patient(path, pattern), gone=True))
    return list(images.values())


def _is_gone(image: Path) -> bool:
    try:
        image.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # a disk that does not answer is for the data check to report
        return False
    return False


def _read_learned(description: DataDescription) -> dict[str, Path]:
    """What the mixture says was learned, hash of the pixels to file; nothing where the data set is no mixture."""
    try:
        lines = (description.yaml_path.parent / LEARNED).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return {pixels: Path(path) for pixels, _, path in (line.partition(" ") for line in lines) if path}


def _write_learned(folder: Path, train: _Group, known: list[_Image]) -> None:
    """Everything that this mixture teaches and everything that was learned before."""
    learned = {image.pixels: image.path for image in known if image.split == "train"}
    learned |= {image.pixels: image.path for image in train.images}
    _replace(folder / LEARNED, "".join(f"{pixels} {path}\n" for pixels, path in learned.items() if " " not in pixels))


def _patient(image: Path, pattern: re.Pattern[str] | None) -> str | None:
    match = pattern.search(image.name) if pattern else None
    return match.group(1 if pattern and pattern.groups else 0) if match else None


def _held_out(fresh: list[_Image], known: list[_Image], left_out: Counter[str]) -> dict[str, _Group]:
    """Rules 1 and 2."""
    groups = {split: _Group(image for image in known if image.split == split) for split in SPLITS}
    learned = groups.pop("train")
    for image in (image for image in fresh if image.split in HELD_OUT):
        other = groups["val" if image.split == "test" else "test"]
        if learned.has_patient(image):
            left_out["new test or val images that the old model has learned from, or from another of the patient"] += 1
        elif groups[image.split].has_picture(image) or other.has_patient(image):
            left_out["new test or val images that are held out already, or whose patient is"] += 1
        else:
            groups[image.split].add(image)
    return groups


def _to_learn(fresh: list[_Image], held_out: list[_Group], left_out: Counter[str]) -> _Group:
    """Rule 3."""
    group = _Group()
    for image in (image for image in fresh if image.split == "train"):
        if any(held.has_patient(image) for held in held_out):
            left_out["new images that are in test or val, or whose patient is: never trained on"] += 1
        else:
            group.add(image)
    return group


def _replayed(known: list[_Image], chosen: list[_Group], replay: float, seed: int) -> list[_Image]:
    """Rule 4."""
    old = [image for image in known if image.split == "train" and not image.gone]
    candidates = [image for image in old if not any(group.has_picture(image) for group in chosen)]
    candidates.sort(key=lambda image: _draw(image, seed))
    return sorted(candidates[: round(replay * len(old))], key=lambda image: str(image.path))


def _draw(image: _Image, seed: int) -> bytes:
    """A number drawn for an image, the same on every machine and whatever other images there are."""
    return hashlib.blake2b(f"{seed} {image.pixels}".encode(), digest_size=16).digest()


def _write(folder: Path, chosen: dict[str, _Group], names: tuple[str, ...], dropped: int | None) -> Path:
    listed = list(names)
    if dropped is not None:
        listed.insert(dropped, "No finding")
    folder.mkdir(parents=True, exist_ok=True)
    splits = {split: f"{split}.txt" for split in SPLITS if chosen[split].images}
    for split, name in splits.items():
        lines = "".join(f"{image.path}\n" for image in chosen[split].images)
        _replace(folder / name, lines)
    content = yaml.safe_dump({**splits, "names": dict(enumerate(listed))}, sort_keys=False, allow_unicode=True)
    _replace(folder / "data.yaml", content)
    return folder / "data.yaml"


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
