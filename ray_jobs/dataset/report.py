"""What the check of a data set found, in words and in numbers.

Comes in: problems, each of a named kind. Goes out: a ``DatasetReport`` for people (``render``), for programs
(``as_dict``), and for the job, which stops on its errors (``raise_for_errors``).
"""

from dataclasses import dataclass, field
from typing import Any

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.errors import DataError

EXAMPLES_PER_KIND = 10


@dataclass(frozen=True)
class Kind:
    """A kind of problem: what it means, what to do, whether it stops the job and whether a user may allow it."""

    meaning: str
    remedy: str
    is_error: bool = True
    may_be_allowed: bool = False


KINDS: dict[str, Kind] = {
    "empty_splits": Kind("a split has no images", "correct its folder or list in data.yaml"),
    "unreadable_images": Kind("images cannot be read", "copy them again from their source, or remove them"),
    "unreadable_labels": Kind("label files cannot be read", "write them as UTF-8 text, one line for each box"),
    "label_columns": Kind(
        "label lines have the wrong number of columns", "write `class center_x center_y width height`"
    ),
    "segment_labels": Kind(
        "label lines are polygons, not boxes",
        "replace the points by their box: center and size of the smallest and largest x and y",
    ),
    "label_numbers": Kind("label lines hold what is no number", "write five finite numbers"),
    "label_class": Kind("label lines name a class that data.yaml does not", "correct the line, or add the class"),
    "label_box_size": Kind("boxes have no size", "remove the line, or give width and height above 0"),
    "label_box_outside": Kind("boxes leave the image", "give center and size as parts of width and height, in 0..1"),
    "label_duplicates": Kind("label lines are there twice", "remove the second one", may_be_allowed=True),
    "no_boxes": Kind(
        "no training image has a box", "put the labels where they are looked for: /images/ becomes /labels/"
    ),
    "duplicate_images": Kind(
        "the same picture is in two splits: the scores would be too good",
        "keep it in one of them",
        may_be_allowed=True,
    ),
    "shared_patients": Kind(
        "the same patient is in two splits: the scores would be too good",
        "keep all images of a patient in one split",
        may_be_allowed=True,
    ),
    "patient_pattern": Kind("the patient id pattern fits no image's name", "correct the pattern"),
    "unknown_patients": Kind("the patient id pattern does not fit some names", "check these by hand", is_error=False),
    "missing_test": Kind(
        "there is no test split", "add `test:` to data.yaml; without it nothing unseen is left to measure on", False
    ),
    "unboxed_splits": Kind("no image of a split has a box", "nothing can be measured on it; check its labels", False),
    "classes_without_boxes": Kind("classes have no box to learn from", "label some, or remove the class", False),
    "contradicting_labels": Kind(
        "images are labelled both with findings and with no finding", "the findings were kept; check them", False
    ),
    "labels_without_images": Kind("label files have no image", "add the image, or remove the file", False),
    "shared_labels": Kind("images share one label file", "give each image a name of its own", False),
    "repeated_images": Kind("the same picture is twice in one split", "keep one", False),
    "boxes_under_a_pixel": Kind("boxes are smaller than a pixel", "nothing can be learned from them", False),
    "unread_files": Kind("images are in a format that is not read", "convert them to PNG; 16 bits are welcome", False),
}
"""Every kind of problem by its stable name, in the order in which they are shown."""

ALLOWABLE = frozenset(name for name, kind in KINDS.items() if kind.may_be_allowed)


@dataclass
class ProblemGroup:
    """All problems of one kind: how many, and the first of them in words."""

    kind: str
    count: int = 0
    examples: list[str] = field(default_factory=list)
    allowed: bool = False

    def add(self, message: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES_PER_KIND:
            self.examples.append(message)

    @property
    def is_error(self) -> bool:
        return KINDS[self.kind].is_error and not self.allowed

    def render(self) -> str:
        kind = KINDS[self.kind]
        lines = [f"{self.kind} ({self.count:,}{', allowed' if self.allowed else ''}): {kind.meaning}; {kind.remedy}"]
        lines += [f"    {example}" for example in self.examples]
        if self.count > len(self.examples):
            lines.append(f"    and {self.count - len(self.examples):,} more")
        return "\n".join(lines)


class ProblemLog:
    """Collects problems by kind, while the check runs."""

    def __init__(self, allow: frozenset[str]) -> None:
        self._groups = {name: ProblemGroup(name, allowed=name in allow) for name in KINDS}

    def add(self, kind: str, message: str) -> None:
        self._groups[kind].add(message)

    def merge(self, group: ProblemGroup) -> None:
        """Add what was collected elsewhere."""
        known = self._groups[group.kind]
        known.count += group.count
        known.examples = (known.examples + group.examples)[:EXAMPLES_PER_KIND]

    def groups(self, *, errors: bool) -> tuple[ProblemGroup, ...]:
        return tuple(group for group in self._groups.values() if group.count and group.is_error == errors)


@dataclass(frozen=True)
class SplitCounts:
    """One split in numbers. ``background`` are the images without boxes, ``unlabelled`` those among them without a
    label file. ``per_class`` counts boxes, in the order of the class names."""

    images: int
    background: int
    unlabelled: int
    boxes: int
    per_class: dict[str, int]


@dataclass(frozen=True, eq=False)
class DatasetReport:
    """The result of a check. ``errors`` stop the job, ``warnings`` do not, ``notices`` say what was done to the data.

    ``fingerprint`` is the hash of what the data set holds, wherever it lies. ``index`` is complete only without errors.
    """

    errors: tuple[ProblemGroup, ...]
    warnings: tuple[ProblemGroup, ...]
    notices: tuple[str, ...]
    counts: dict[str, SplitCounts]
    fingerprint: str
    index: DatasetIndex

    def render(self) -> str:
        """Errors, warnings and notices as text, by kind: the first examples and how many more there are."""
        parts = [f"error: {group.render()}" for group in self.errors]
        parts += [f"warning: {group.render()}" for group in self.warnings]
        parts += [f"notice: {notice}" for notice in self.notices]
        return "\n".join(parts)

    def raise_for_errors(self) -> None:
        """Raise ``DataError`` with every kind of error if there is one."""
        if self.errors:
            total = sum(group.count for group in self.errors)
            noun = "error" if total == 1 else "errors"
            head = f"the data set in {self.index.source} has {total:,} {noun}:"
            raise DataError([head, *(group.render() for group in self.errors)])

    def as_dict(self) -> dict[str, Any]:
        """The report for a JSON file."""

        def listed(groups: tuple[ProblemGroup, ...]) -> dict[str, Any]:
            return {group.kind: {"count": group.count, "examples": group.examples} for group in groups}

        return {
            "fingerprint": self.fingerprint,
            "names": list(self.index.names),
            "counts": {split: vars(counts) for split, counts in self.counts.items()},
            "errors": listed(self.errors),
            "warnings": listed(self.warnings),
            "notices": list(self.notices),
        }
