"""Finds the files of a data set: the images of each split, the label file of each image, label files left over.

Comes in: a ``DataDescription``. Goes out: paths, sorted by name, so that every machine sees the same order.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from heapq import merge
from itertools import accumulate, groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ray_jobs.dataset.columns import Columns, Texts
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

    @property
    def label(self) -> Path:
        """Its label file, which need not be there."""
        return label_path(self.image)


class ImageFiles(Columns[ImageFile]):
    """Image files in columns: a split's from ``starts[split]`` on, their ``names``, and for those outside of ``root``
    their ``paths``, which are "" for all others."""

    def __init__(self, root: Path, starts: dict[str, int], names: Texts, paths: Texts) -> None:
        super().__init__(len(names))
        self._root, self._starts, self._names, self._paths = root, starts, names, paths

    def _item(self, row: int) -> ImageFile:
        split = next(split for split, start in reversed(self._starts.items()) if start <= row)
        name, path = self._names[row], self._paths[row]
        return ImageFile(split, name, Path(path) if path else self._root / name)


@dataclass(frozen=True)
class Layout:
    """All files of a data set, ``files`` split by split. ``shared_labels``: label files and the images that each of
    them would label; ``unread``: images in formats that are not read."""

    files: Sequence[ImageFile]
    images: dict[str, Sequence[ImageFile]]
    shared_labels: tuple[tuple[Path, tuple[Path, ...]], ...]
    labels_without_images: tuple[Path, ...]
    unread: tuple[Path, ...]


def label_path(image: Path) -> Path:
    """The label file of an image, by the rule of Ultralytics: the last ``/images/`` of its path becomes
    ``/labels/``, its suffix ``.txt``. Without ``/images/`` the label lies beside the image."""
    return Path(_label(str(image)))


def _label(image: str) -> str:
    folder = f"{os.sep}images{os.sep}"
    moved = f"{os.sep}labels{os.sep}".join(image.rsplit(folder, 1))
    return f"{os.path.splitext(moved)[0]}.txt"  # noqa: PTH122 - with_suffix refuses some names


def can_be_listed(image: Path) -> bool:
    """Whether a .txt list can name an image: its path is UTF-8 and on one line."""
    try:
        str(image).encode()
    except UnicodeEncodeError:
        return False
    return len(str(image).splitlines()) == 1


def read_layout(description: DataDescription) -> Layout:
    """List all files. Raises ``DataError`` for a folder or a list that cannot be read."""
    inside = os.path.join(description.root, "")  # noqa: PTH118 - with the separator at its end
    found: dict[str, tuple[list[str], dict[str, str]]] = {}
    unread: set[Path] = set()
    label_folders: set[str] = set()
    for split, sources in description.splits.items():
        names: list[str] = []
        outside: dict[str, str] = {}  # path to name
        for source in sources:
            is_list = source.is_file()
            for path in _listed(source) if is_list else _files_below(source):
                suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - a Path for each file takes seconds
                if is_list or suffix in IMAGE_SUFFIXES:
                    if path.startswith(inside):
                        names.append(path.removeprefix(inside))
                    else:
                        outside.setdefault(path, _name(Path(path), source))
                    if not is_list:  # a list may leave images out on purpose
                        label_folders.add(os.path.dirname(_label(path)))  # noqa: PTH120
                elif suffix in _UNREAD_SUFFIXES:
                    unread.add(Path(path))
        names.sort()
        found[split] = [name for name, _ in groupby(names)], outside
    files, images = _in_columns(description.root, found)
    labels = np.fromiter((_mark(str(file.label)) for file in files), np.int64, len(files))
    left_over = tuple(sorted(_left_over(label_folders, labels)))
    return Layout(files, images, _shared(files, labels), left_over, tuple(sorted(unread)))


def _in_columns(
    root: Path, found: dict[str, tuple[list[str], dict[str, str]]]
) -> tuple[ImageFiles, dict[str, Sequence[ImageFile]]]:
    """The sorted names and the files outside of the root, of each split, as one table and its parts."""

    def place(pair: tuple[str, str]) -> tuple[str, str]:
        return pair[0], pair[1] or os.path.join(root, pair[0])  # noqa: PTH118 - text sorts as paths do, and faster

    def pairs() -> Iterator[tuple[str, str]]:
        for names, outside in found.values():
            elsewhere = sorted((name, path) for path, name in outside.items())
            yield from merge(((name, "") for name in names), elsewhere, key=place)

    ends = dict(zip(found, accumulate(len(names) + len(outside) for names, outside in found.values()), strict=True))
    starts = dict(zip(found, (0, *ends.values()), strict=False))
    files = ImageFiles(root, starts, Texts.of(name for name, _ in pairs()), Texts.of(path for _, path in pairs()))
    return files, {split: files[starts[split] : ends[split]] for split in found}


def _files_below(folder: Path) -> Iterator[str]:
    """Every file in a folder and its subfolders, links followed once, hidden files left out."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(place, name) for name in files if not name.startswith("."))  # noqa: PTH118


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be listed: {error.strerror}")


def _listed(source: Path) -> Iterator[str]:
    """The images of a .txt list; relative ones lie relative to the list."""
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source}: cannot be read as a list of images: {error}") from None
    for line in lines:
        if line.strip():
            # normpath and not resolve: a linked image keeps the label that lies beside the link
            yield os.path.normpath(source.parent / line.strip())


def _name(path: Path, source: Path) -> str:
    folder = source.parent if source.is_file() else source
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _mark(label: str) -> int:
    """64 bits that tell a label file from others: millions of paths would take gigabytes."""
    digest = hashlib.blake2b(label.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _shared(files: Sequence[ImageFile], labels: NDArray[np.int64]) -> tuple[tuple[Path, tuple[Path, ...]], ...]:
    """Label files of more than one image, in the order of the first of these."""
    marks, counts = np.unique(labels, return_counts=True)
    owners: dict[Path, set[Path]] = {}
    for number in np.flatnonzero(np.isin(labels, marks[counts > 1])):
        file = files[int(number)]
        owners.setdefault(file.label, set()).add(file.image)
    return tuple((label, tuple(sorted(images))) for label, images in owners.items() if len(images) > 1)


def _left_over(label_folders: Iterable[str], labels: NDArray[np.int64]) -> Iterator[Path]:
    """Text files in these folders that belong to no image."""
    wanted = np.unique(labels)
    for folder in label_folders:
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".txt") and entry.name not in _NO_LABELS:
                    mark = _mark(entry.path)
                    at = np.searchsorted(wanted, mark)
                    if at == len(wanted) or wanted[at] != mark:
                        yield Path(entry.path)
