"""What a check keeps of the images that it has looked at: some numbers, 32 bytes of each, and patients.

Comes in: an ``Inspection`` of every image, in the order of the layout. Goes out: the fingerprint of their contents,
counts, patients, and the hash of each one's pixels.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ray_jobs.dataset.description import DataDescription
from ray_jobs.dataset.inspection import Inspection, report_problems
from ray_jobs.dataset.report import ProblemGroup, ProblemLog, SplitCounts

_HASH_BYTES = hashlib.sha256().digest_size


class SplitTally:
    """One split, counted."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.images = self.background = self.unlabelled = 0
        self.boxes: NDArray[np.int64] = np.zeros(len(names), np.int64)  # of each class

    def add(self, item: Inspection) -> None:
        """Count an image."""
        self.images += 1
        self.background += not len(item.labels.boxes)
        self.unlabelled += not item.labelled
        np.add.at(self.boxes, item.labels.boxes[:, 0].astype(int), 1)

    def summary(self) -> SplitCounts:
        """The counts so far."""
        per_class = dict(zip(self.names, self.boxes.tolist(), strict=True))
        return SplitCounts(self.images, self.background, self.unlabelled, int(self.boxes.sum()), per_class)


class Tally:
    """All splits. ``patients``: the images of each patient by split, where ``pattern`` finds one in the file's name."""

    def __init__(self, description: DataDescription, problems: ProblemLog, pattern: re.Pattern[str] | None) -> None:
        self.pattern = pattern
        self.counts: dict[str, SplitTally] = {}
        self.patients: dict[str, Counter[str]] = defaultdict(Counter)
        self.unknown_patients = ProblemGroup("unknown_patients")
        self.became_background = self.deep = 0
        self._names, self._problems = description.names, problems
        self._contents = hashlib.sha256(repr((description.names, description.dropped_class)).encode())
        self._pixel_hashes = bytearray()

    def sound(self, split: str, items: Iterable[Inspection]) -> Iterator[Inspection]:
        """Add every image of a split; gives those back that could be read."""
        count = self.counts[split] = SplitTally(self._names)
        for item in items:
            count.add(item)
            self._add(item)
            if item.height:
                yield item

    def _add(self, item: Inspection) -> None:
        report_problems(item, self._problems)
        self.became_background += item.labels.no_finding > 0 and not len(item.labels.boxes)
        self.deep += item.deep
        self._pixel_hashes += item.pixel_hash or bytes(_HASH_BYTES)
        name = item.file.name.encode("utf-8", "surrogateescape")
        parts = (b"", item.file.split.encode(), name, item.file_hash.hex().encode(), item.label_hash)
        self._contents.update(b"\n".join(parts))
        if self.pattern is not None:
            self._add_patient(item, self.pattern)

    def _add_patient(self, item: Inspection, pattern: re.Pattern[str]) -> None:
        match = pattern.search(item.file.image.name)
        if match is None:
            self.unknown_patients.add(item.file.name)
        else:
            self.patients[match.group(1 if pattern.groups else 0) or ""][item.file.split] += 1

    @property
    def pixel_hashes(self) -> bytes:
        """32 bytes of each image, in order; zeros for one that could not be read."""
        return bytes(self._pixel_hashes)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over class names and, for each image, its split, relative name, file hash and label hash. Neither
        the data set's place nor any file time is part of it."""
        return self._contents.hexdigest()
