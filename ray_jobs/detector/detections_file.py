"""What a model detected in a split, kept in a run's folder, so that two models can be compared without running them.

In: detections and the truth of each image. Out: ``detections.npz``, and what was put in. The file names the images, so
it stays in the run's folder: it is not sent to the tracking server.
"""

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.detector.bootstrap import Comparison, compare, patients_of
from ray_jobs.detector.evaluation import match, truth_of
from ray_jobs.errors import DataError
from ray_jobs.reading.decode import Detections

_VERSION = 1


@dataclass(frozen=True, eq=False)
class SplitDetections:
    """Detections and truth (score 1) of each image of a split, in pixels of the image; ``images`` are file names and
    ``fingerprint`` that of the data set."""

    split: str
    fingerprint: str
    names: tuple[str, ...]
    images: tuple[str, ...]
    detections: tuple[Detections, ...]
    truths: tuple[Detections, ...]

    @classmethod
    def of(cls, detections: Sequence[Detections], index: DatasetIndex, split: str) -> "SplitDetections":
        """What was detected in the images of a split."""
        samples = index.splits[split]
        images = tuple(sample.image.name for sample in samples)
        return cls(split, index.fingerprint, index.names, images, tuple(detections), tuple(map(truth_of, samples)))

    def save(self, path: Path) -> None:
        """Write a NumPy .npz archive without pickles, whole or not at all."""
        header = {
            "version": _VERSION,
            "split": self.split,
            "fingerprint": self.fingerprint,
            "names": self.names,
            "images": self.images,
        }
        arrays = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)}
        for kind, images in (("found", self.detections), ("true", self.truths)):
            arrays[f"{kind}_counts"] = np.array([len(one) for one in images], np.int32)
            arrays[f"{kind}_boxes"] = np.concatenate([np.zeros((0, 4), np.float32), *(one.boxes for one in images)])
            arrays[f"{kind}_scores"] = np.concatenate([np.zeros(0, np.float32), *(one.scores for one in images)])
            arrays[f"{kind}_classes"] = np.concatenate([np.zeros(0, np.int64), *(one.classes for one in images)])
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        with unfinished.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> "SplitDetections":
        """Read what ``save`` wrote. Raises DataError for a file that is missing, broken or of another version."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                header = json.loads(archive["header"].tobytes())
                if header["version"] != _VERSION:
                    raise DataError(f"{path}: is of version {header['version']}, not {_VERSION}; evaluate again")
                found, true = (_split(archive, kind) for kind in ("found", "true"))
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; a run writes it when it evaluates its model") from None
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: holds no detections, or is damaged ({error}); evaluate again") from None
        names, images = tuple(header["names"]), tuple(header["images"])
        return cls(header["split"], header["fingerprint"], names, images, found, true)

    def better_than(self, champion: "SplitDetections", patient_id_pattern: str | None = None) -> Comparison:
        """How much better this model is than another one (``bootstrap.compare``). Raises DataError where the two were
        not measured on the same images with the same true boxes and classes."""
        if (self.images, self.names) != (champion.images, champion.names) or not self._same_truth(champion):
            raise DataError(
                "comparison: the models were measured on different images, true boxes or classes (data sets "
                f"{self.fingerprint[:12]} and {champion.fingerprint[:12]}); evaluate both on the same split"
            )
        own, other = (match(one.detections, one.truths, one.names) for one in (self, champion))
        return compare(own, other, patients_of(self.images, patient_id_pattern))

    def _same_truth(self, other: "SplitDetections") -> bool:
        pairs = zip(self.truths, other.truths, strict=True)
        return all(
            np.array_equal(mine.boxes, theirs.boxes) and np.array_equal(mine.classes, theirs.classes)
            for mine, theirs in pairs
        )


def _split(archive: "np.lib.npyio.NpzFile", kind: str) -> tuple[Detections, ...]:
    ends = np.cumsum(archive[f"{kind}_counts"])[:-1]
    columns = [np.split(archive[f"{kind}_{name}"], ends) for name in ("boxes", "scores", "classes")]
    return tuple(Detections(*one) for one in zip(*columns, strict=True))
