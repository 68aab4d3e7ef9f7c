"""Checks a data set before any GPU is taken: every file is opened once, every label line read, nothing is written.

Comes in: a ``DataDescription``. Goes out: a ``DatasetReport`` with all problems by kind, counts, the fingerprint of
the contents, and the index that training and evaluation read.

Images are decoded in threads: both decoders and the hash let go of the interpreter lock, so threads keep all cores
busy, start at once and are safe in a process that runs Ray.
"""

import hashlib
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ray_jobs.dataset.description import DataDescription
from ray_jobs.dataset.index import DatasetIndex, Sample
from ray_jobs.dataset.labels import Labels, parse_labels
from ray_jobs.dataset.layout import ImageFile, Layout, read_layout
from ray_jobs.dataset.local_copy import Origin
from ray_jobs.dataset.parallel import map_in_threads
from ray_jobs.dataset.report import ALLOWABLE, DatasetReport, ProblemLog, SplitCounts
from ray_jobs.errors import DataError
from ray_jobs.pixels import ImageError, decode_image, read_bytes


@dataclass(frozen=True)
class _Inspection:
    """What one look at an image and its label file showed."""

    file: ImageFile
    labels: Labels
    labelled: bool
    file_hash: bytes = b""
    label_hash: bytes = b""
    pixel_hash: bytes = b""
    height: int = 0
    width: int = 0
    deep: bool = False
    image_problem: str = ""
    label_problem: str = ""


def check_dataset(
    description: DataDescription,
    *,
    patient_id_pattern: str | None = None,
    allow: Collection[str] = (),
    threads: int | None = None,
    show_progress: bool = True,
) -> DatasetReport:
    """Check every file of a data set.

    ``patient_id_pattern`` is a regular expression searched in each image's file name; its first group, or all that it
    matches, is the patient. ``allow`` names kinds of errors that become warnings (``report.ALLOWABLE``). ``threads``
    defaults to the number of cores. Raises ``DataError`` only for wrong arguments and folders that cannot be listed;
    what is wrong with the data stands in the report.
    """
    pattern = _compile(patient_id_pattern, allow)
    problems = ProblemLog(frozenset(allow))
    layout = read_layout(description)
    if description.origin:
        _refuse_files_elsewhere(layout, description.origin)
    files = [file for members in layout.images.values() for file in members]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on metadata; they do not concern the pixels
        seen = map_in_threads(
            lambda file: _inspect(file, description), files, threads, "checking images" if show_progress else None
        )
    inspections = {split: [item for item in seen if item.file.split == split] for split in layout.images}

    _report_files(description, layout, problems)
    for item in seen:
        _report_problems(item, problems)
    _report_repeated_pictures(seen, problems)
    if pattern:
        _report_shared_patients(seen, pattern, problems)
    counts = {split: _count(items, description.names) for split, items in inspections.items()}
    _report_missing_boxes(counts, problems)

    fingerprint = _fingerprint(description, seen)
    splits = {split: tuple(_sample(item) for item in items if item.height) for split, items in inspections.items()}
    return DatasetReport(
        errors=problems.groups(errors=True),
        warnings=problems.groups(errors=False),
        notices=_notices(description, seen),
        counts=counts,
        fingerprint=fingerprint,
        index=DatasetIndex(description.root, description.names, splits, fingerprint, description.origin),
    )


def _refuse_files_elsewhere(layout: Layout, origin: Origin) -> None:
    """Raise where images of a copied data set lie outside of the copy, where no other node would have them."""
    files = (file.image for members in layout.images.values() for file in members)
    outside = [str(image) for image in files if not image.is_relative_to(origin.files)]
    if outside:
        raise DataError(f"{origin.url}: {len(outside):,} images lie outside of it, such as {outside[0]}")


def _compile(pattern: str | None, allow: Collection[str]) -> re.Pattern[str] | None:
    unknown = sorted(set(allow) - ALLOWABLE)
    problems = [f"allow: {kind!r} cannot be allowed; one of {', '.join(sorted(ALLOWABLE))}" for kind in unknown]
    compiled = None
    try:
        compiled = re.compile(pattern) if pattern else None
    except re.error as error:
        problems.append(f"patient id pattern: {pattern!r} is no regular expression: {error}")
    if problems:
        raise DataError(problems)
    return compiled


def _inspect(file: ImageFile, description: DataDescription) -> _Inspection:
    """Open an image and its label file."""
    label_problem, text = "", b""
    try:
        text = file.label.read_bytes()
        labelled = True
    except (FileNotFoundError, NotADirectoryError, ValueError):
        labelled = False
    except OSError as error:
        labelled, label_problem = True, f"{file.label}: cannot be read: {error.strerror}"
    labels = parse_labels(text, description)
    label_hash = hashlib.sha256(text).digest()
    try:
        data = read_bytes(file.image)
        pixels = decode_image(data, str(file.image), strict=True)
    except ImageError as error:
        return _Inspection(
            file, labels, labelled, label_hash=label_hash, image_problem=str(error), label_problem=label_problem
        )
    height, width = pixels.shape
    pixel_hash = hashlib.sha256(f"{pixels.dtype} {height} {width}".encode())
    pixel_hash.update(np.ascontiguousarray(pixels).data)
    return _Inspection(
        file,
        labels,
        labelled,
        file_hash=hashlib.sha256(data).digest(),
        label_hash=label_hash,
        pixel_hash=pixel_hash.digest(),
        height=height,
        width=width,
        deep=pixels.dtype != np.uint8,
        label_problem=label_problem,
    )


def _report_files(description: DataDescription, layout: Layout, problems: ProblemLog) -> None:
    for split, files in layout.images.items():
        if not files:
            sources = ", ".join(map(str, description.splits[split]))
            kind = "missing_test" if split == "test" else "empty_splits"
            problems.add(kind, f"{split}: no image in {sources}")
    if "test" not in layout.images:
        problems.add("missing_test", f"{description.yaml_path} names none")
    for path in layout.labels_without_images:
        problems.add("labels_without_images", str(path))
    for path in layout.unread:
        problems.add("unread_files", str(path))
    owners: dict[Path, set[Path]] = defaultdict(set)
    for files in layout.images.values():
        for file in files:
            owners[file.label].add(file.image)
    for label, images in owners.items():
        if len(images) > 1:
            problems.add("shared_labels", f"{label}: of {', '.join(sorted(image.name for image in images))}")


def _report_problems(item: _Inspection, problems: ProblemLog) -> None:
    """What is wrong with one image and its labels."""
    if item.image_problem:
        problems.add("unreadable_images", item.image_problem)
    if item.label_problem:
        problems.add("unreadable_labels", item.label_problem)
    label = item.file.label
    for problem in item.labels.problems:
        problems.add(problem.kind, f"{label}:{problem.line}: {problem.message}")
    boxes = item.labels.boxes
    if item.labels.no_finding and len(boxes):
        problems.add("contradicting_labels", str(label))
    for box in boxes if item.height else ():
        width, height = float(box[3]) * item.width, float(box[4]) * item.height
        if width < 1 or height < 1:
            problems.add("boxes_under_a_pixel", f"{label}: {width:.2g} x {height:.2g} pixels")


def _report_repeated_pictures(seen: list[_Inspection], problems: ProblemLog) -> None:
    alike: dict[bytes, list[ImageFile]] = defaultdict(list)
    for item in seen:
        if item.pixel_hash:
            alike[item.pixel_hash].append(item.file)
    for files in alike.values():
        if len(files) > 1:
            across = len({file.split for file in files}) > 1
            names = ", ".join(f"{file.name} ({file.split})" for file in files[:4]) + (", ..." if files[4:] else "")
            problems.add("duplicate_images" if across else "repeated_images", names)


def _report_shared_patients(seen: list[_Inspection], pattern: re.Pattern[str], problems: ProblemLog) -> None:
    patients: dict[str, Counter[str]] = defaultdict(Counter)
    unknown = []
    for item in seen:
        match = pattern.search(item.file.image.name)
        if match is None:
            unknown.append(item.file.name)
        else:
            patients[match.group(1 if pattern.groups else 0) or ""][item.file.split] += 1
    if unknown and not patients:
        problems.add("patient_pattern", f"{pattern.pattern} does not fit {unknown[0]}")
        return
    for name in unknown:
        problems.add("unknown_patients", name)
    for patient, splits in sorted(patients.items()):
        if len(splits) > 1:
            where = ", ".join(f"{split} ({count})" for split, count in splits.items())
            problems.add("shared_patients", f"patient {patient}: {where}")


def _count(items: list[_Inspection], names: tuple[str, ...]) -> SplitCounts:
    boxes = np.concatenate([np.zeros((0, 5), np.float32), *(item.labels.boxes for item in items)])
    per_class = np.bincount(boxes[:, 0].astype(int), minlength=len(names)).tolist()
    return SplitCounts(
        images=len(items),
        background=sum(not len(item.labels.boxes) for item in items),
        unlabelled=sum(not item.labelled for item in items),
        boxes=len(boxes),
        per_class=dict(zip(names, per_class, strict=True)),
    )


def _report_missing_boxes(counts: dict[str, SplitCounts], problems: ProblemLog) -> None:
    for split, count in counts.items():
        if count.images and not count.boxes:
            problems.add("no_boxes" if split == "train" else "unboxed_splits", f"{split}: {count.images} images")
    train = counts.get("train")
    if train and train.boxes:
        for name, boxes in train.per_class.items():
            if not boxes:
                problems.add("classes_without_boxes", name)


def _sample(item: _Inspection) -> Sample:
    return Sample(item.file.image, item.height, item.width, item.labels.boxes)


def _fingerprint(description: DataDescription, seen: list[_Inspection]) -> str:
    """SHA-256 over class names and, for each image, its split, relative name, file hash and label hash. Neither the
    data set's place nor any file time is part of it."""
    total = hashlib.sha256(repr((description.names, description.dropped_class)).encode())
    for item in seen:
        name = item.file.name.encode("utf-8", "surrogateescape")
        total.update(b"\n".join([b"", item.file.split.encode(), name, item.file_hash.hex().encode(), item.label_hash]))
    return total.hexdigest()


def _notices(description: DataDescription, seen: list[_Inspection]) -> tuple[str, ...]:
    notices = list(description.notices)
    if description.dropped_class is not None:
        images = sum(item.labels.no_finding > 0 and not len(item.labels.boxes) for item in seen)
        notices.append(
            f'"No finding" (class {description.dropped_class} of data.yaml) is no object: the class was dropped, '
            f"images that became background: {images:,}"
        )
    unlabelled = sum(not item.labelled for item in seen)
    if unlabelled:
        notices.append(f"images without a label file, counted as background: {unlabelled:,}")
    deep = sum(item.deep for item in seen)
    if deep:
        notices.append(f"images with more than 8 bits, windowed to 8 and not truncated: {deep:,}")
    return tuple(notices)


def inspect_images(
    files: Sequence[ImageFile], description: DataDescription, threads: int | None = None
) -> list[tuple[str, list[str]]]:
    """Of each image by itself: a hash of its pixels, "" where it cannot be read, and what is wrong with it or its
    label file, as the check of a data set would say it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = map_in_threads(lambda file: _inspect(file, description), files, threads, None)
    return [(item.pixel_hash.hex(), _errors_of(item)) for item in seen]


def _errors_of(item: _Inspection) -> list[str]:
    problems = ProblemLog(frozenset())
    _report_problems(item, problems)
    return [example for group in problems.groups(errors=True) for example in group.examples]
