"""Finds the files of a data set: the images of each split, the label file of each image, label files left over.

Comes in: a ``DataDescription``. Goes out: paths, sorted by name, so that every machine sees the same order.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ray_jobs.dataset.description import DataDescription
from ray_jobs.errors import DataError
from ray_jobs.pixels import IMAGE_SUFFIXES

_UNREAD_SUFFIXES = frozenset({".avif", ".dcm", ".dicom", ".dng", ".gif", ".heic", ".heif", ".jxl", ".mpo", ".nii"})
"""Files that somebody may believe to be part of the data set, but that are not read."""

_NO_LABELS = frozenset({"classes.txt"})
"""Text files that annotation tools leave beside the labels."""


@dataclass(frozen=True)
class ImageFile:
    """An image of a split. ``name`` is its path relative to the data set's root (or, outside of it, to the folder or
    list that it came from), the same wherever the data set lies."""

    split: str
    name: str
    image: Path
    label: Path


@dataclass(frozen=True)
class Layout:
    """All files of a data set. ``unread`` are images in formats that are not read."""

    images: dict[str, tuple[ImageFile, ...]]
    labels_without_images: tuple[Path, ...]
    unread: tuple[Path, ...]


def label_path(image: Path) -> Path:
    """The label file of an image, by the rule of Ultralytics: the last ``/images/`` of its path becomes
    ``/labels/``, its suffix ``.txt``. Without ``/images/`` the label lies beside the image."""
    folder = f"{os.sep}images{os.sep}"
    moved = f"{os.sep}labels{os.sep}".join(str(image).rsplit(folder, 1))
    return Path(f"{os.path.splitext(moved)[0]}.txt")  # noqa: PTH122 - with_suffix refuses some names


def can_be_listed(image: Path) -> bool:
    """Whether a .txt list can name an image: its path is UTF-8 and on one line."""
    try:
        str(image).encode()
    except UnicodeEncodeError:
        return False
    return len(str(image).splitlines()) == 1


def read_layout(description: DataDescription) -> Layout:
    """List all files. Raises ``DataError`` for a folder or a list that cannot be read."""
    images: dict[str, tuple[ImageFile, ...]] = {}
    unread: set[Path] = set()
    label_folders: set[Path] = set()
    for split, sources in description.splits.items():
        found: dict[Path, ImageFile] = {}
        for source in sources:
            is_list = source.is_file()
            for path in _listed(source) if is_list else _files_below(source):
                if is_list or path.suffix.lower() in IMAGE_SUFFIXES:
                    file = ImageFile(split, _name(path, description.root, source), path, label_path(path))
                    found.setdefault(path, file)
                    if not is_list:  # a list may leave images out on purpose
                        label_folders.add(file.label.parent)
                elif path.suffix.lower() in _UNREAD_SUFFIXES:
                    unread.add(path)
        images[split] = tuple(sorted(found.values(), key=lambda file: (file.name, str(file.image))))
    wanted = {file.label for members in images.values() for file in members}
    return Layout(images, tuple(_left_over(label_folders, wanted)), tuple(sorted(unread)))


def _files_below(folder: Path) -> Iterator[Path]:
    """Every file in a folder and its subfolders, links followed once, hidden files left out."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be listed: {error.strerror}")


def _listed(source: Path) -> Iterator[Path]:
    """The images of a .txt list; relative ones lie relative to the list."""
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source}: cannot be read as a list of images: {error}") from None
    for line in lines:
        if line.strip():
            # normpath and not resolve: a linked image keeps the label that lies beside the link
            yield Path(os.path.normpath(source.parent / line.strip()))


def _name(path: Path, root: Path, source: Path) -> str:
    for folder in (root, source.parent if source.is_file() else source):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return path.name


def _left_over(label_folders: Iterable[Path], wanted: set[Path]) -> list[Path]:
    texts = (path for folder in label_folders if folder.is_dir() for path in folder.glob("*.txt"))
    return sorted(path for path in set(texts) - wanted if path.name not in _NO_LABELS)
