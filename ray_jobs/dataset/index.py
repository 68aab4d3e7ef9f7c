"""The index of a checked data set: every image with its size and boxes, in one file.

Comes in: what the check has seen. Goes out: what training and evaluation read; they never open a label file.
Images are stored relative to the data set's root, so that another machine can point the index at its own copy.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.dataset.columns import Texts
from ray_jobs.dataset.local_copy import Origin
from ray_jobs.dataset.samples import Sample, Samples
from ray_jobs.errors import DataError

_VERSION = 2
_COLUMNS = ("images", "image_ends", "sizes", "boxes", "box_ends")  # of each split, in the file
_DAMAGE = (OSError, ValueError, KeyError, EOFError, TypeError, RuntimeError, zipfile.BadZipFile)  # what reading raises


@dataclass(frozen=True, eq=False)
class DatasetIndex:
    """A checked data set. ``splits`` maps "train", "val" and, where there is one, "test" to its samples, in the
    order of their names. ``fingerprint`` is the hash of its contents. ``origin``: the bucket that ``root`` is a copy
    of, which is not saved with the index."""

    root: Path
    names: tuple[str, ...]
    splits: Mapping[str, Sequence[Sample]]
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

        splits = {split: Samples.of(self.root, map(merged, samples)) for split, samples in self.splits.items()}
        return replace(self, names=(name,), splits=splits)

    def part(self, splits: Mapping[str, Sequence[Sample]], choice: str) -> "DatasetIndex":
        """Some of its images, told apart from the whole and from another ``choice`` of them by the fingerprint."""
        mixed = hashlib.sha256(f"{self.fingerprint} {choice}".encode()).hexdigest()
        return replace(self, splits=splits, fingerprint=mixed)

    def save(self, path: Path) -> None:
        """Write the index to ``path`` (a NumPy .npz archive without pickles), whole or not at all."""
        header = {
            "version": _VERSION,
            "root": str(self.root),
            "names": self.names,
            "fingerprint": self.fingerprint,
            "splits": list(self.splits),
        }
        arrays: dict[str, Any] = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)}
        for number, split in enumerate(self.splits.values()):
            samples = Samples.of(self.root, split)
            columns = (samples.images.encoded, samples.images.ends, samples.sizes, samples.boxes, samples.box_ends)
            arrays |= {f"{number}_{name}": column for name, column in zip(_COLUMNS, columns, strict=True)}
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
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                header = json.loads(archive["header"].tobytes())
                if header["version"] != _VERSION:
                    raise DataError(f"{path}: is an index of version {header['version']}, not {_VERSION}; check again")
                root = Path(root or header["root"])
                splits = {split: _samples(root, archive, number) for number, split in enumerate(header["splits"])}
                return cls(root, tuple(header["names"]), splits, header["fingerprint"])
        except FileNotFoundError:
            raise DataError(f"{path}: no such index; check the data set first") from None
        except _DAMAGE as error:
            raise DataError(
                f"{path}: is no index of a data set, or damaged ({error}); check the data set again"
            ) from None


def _samples(root: Path, archive: Any, number: int) -> Samples:
    encoded, ends, sizes, boxes, box_ends = (archive[f"{number}_{name}"] for name in _COLUMNS)
    return Samples(root, Texts(encoded, ends), sizes, boxes, box_ends)
