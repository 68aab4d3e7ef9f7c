"""The index of a checked data set: every image with its size and boxes, in one file.

Comes in: what the check has seen. Goes out: what training and evaluation read; they never open a label file.
Images are stored relative to the data set's root, so that another machine can point the index at its own copy.
"""

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.dataset.local_copy import Origin
from ray_jobs.errors import DataError

_VERSION = 1


@dataclass(frozen=True, eq=False)
class Sample:
    """One image. ``boxes``: float32 (n, 5), a row is class, center x, center y, width, height, the last four in 0..1
    of the image's width and height as ``pixels.read_image`` returns it. No rows: background."""

    image: Path
    height: int
    width: int
    boxes: np.ndarray


@dataclass(frozen=True, eq=False)
class DatasetIndex:
    """A checked data set. ``splits`` maps "train", "val" and, where there is one, "test" to its samples, in the
    order of their names. ``fingerprint`` is the hash of its contents. ``origin``: the bucket that ``root`` is a copy
    of, which is not saved with the index."""

    root: Path
    names: tuple[str, ...]
    splits: dict[str, tuple[Sample, ...]]
    fingerprint: str
    origin: Origin | None = None

    @property
    def source(self) -> str:
        """Where the data set lies: ``s3://bucket/prefix``, or its folder."""
        return self.origin.url if self.origin else str(self.root)

    def as_one_class(self, name: str = "finding") -> "DatasetIndex":
        """The same data set with every box being of one class."""

        def merged(sample: Sample) -> Sample:
            boxes = sample.boxes.copy()
            boxes[:, 0] = 0
            return replace(sample, boxes=boxes)

        splits = {split: tuple(map(merged, samples)) for split, samples in self.splits.items()}
        return replace(self, names=(name,), splits=splits)

    def part(self, splits: dict[str, tuple[Sample, ...]], choice: str) -> "DatasetIndex":
        """Some of its images, told apart from the whole and from another ``choice`` of them by the fingerprint."""
        mixed = hashlib.sha256(f"{self.fingerprint} {choice}".encode()).hexdigest()
        return replace(self, splits=splits, fingerprint=mixed)

    def save(self, path: Path) -> None:
        """Write the index to ``path`` (a NumPy .npz archive without pickles), whole or not at all."""
        samples = [sample for split in self.splits.values() for sample in split]
        header = {
            "version": _VERSION,
            "root": str(self.root),
            "names": self.names,
            "fingerprint": self.fingerprint,
            "splits": {split: len(members) for split, members in self.splits.items()},
            "images": [_relative(sample.image, self.root) for sample in samples],
        }
        arrays: dict[str, Any] = {
            "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
            "shapes": np.array([(sample.height, sample.width) for sample in samples], np.int32).reshape(-1, 2),
            "box_counts": np.array([len(sample.boxes) for sample in samples], np.int32),
            "boxes": np.concatenate([np.zeros((0, 5), np.float32), *(sample.boxes for sample in samples)]),
        }
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        with unfinished.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path, root: Path | None = None) -> "DatasetIndex":
        """Read an index. ``root`` says where this machine has the data set, if not where it was checked.

        Raises ``DataError`` for a file that is missing, broken or of another version.
        """
        header, shapes, box_counts, boxes = _read(Path(path))
        root = Path(root or header["root"])
        ends = np.cumsum(box_counts)
        samples = [
            Sample(root / image, height, width, boxes[end - count : end])
            for image, (height, width), count, end in zip(
                header["images"], shapes.tolist(), box_counts.tolist(), ends.tolist(), strict=True
            )
        ]
        splits: dict[str, tuple[Sample, ...]] = {}
        start = 0
        for split, count in header["splits"].items():
            splits[split] = tuple(samples[start : start + count])
            start += count
        return cls(root, tuple(header["names"]), splits, header["fingerprint"])


def _read(path: Path) -> tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            header = json.loads(archive["header"].tobytes())
            if header["version"] != _VERSION:
                raise DataError(f"{path}: is an index of version {header['version']}, not {_VERSION}; check again")
            return header, archive["shapes"], archive["box_counts"], archive["boxes"]
    except FileNotFoundError:
        raise DataError(f"{path}: no such index; check the data set first") from None
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: is no index of a data set, or damaged ({error}); check the data set again") from None


def _relative(image: Path, root: Path) -> str:
    """Relative to the root where it lies under it; otherwise as it is."""
    text, prefix = str(image), f"{root}{os.sep}"
    return text.removeprefix(prefix)
