"""Checks a data set before any GPU is taken: every file is opened once, every label line read, nothing is written.

Comes in: a ``DataDescription``. Goes out: a ``DatasetReport`` with all problems by kind, counts, the fingerprint of
the contents, and the index that training and evaluation read.

Images are decoded in threads: both decoders and the hash let go of the interpreter lock, so threads keep all cores
busy, start at once and are safe in a process that runs Ray.
"""

import re
from collections.abc import Collection, Sequence
from itertools import islice

import numpy as np

from ray_jobs.dataset.description import DataDescription
from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.dataset.inspection import Inspection, inspect_each
from ray_jobs.dataset.layout import ImageFile, Layout, read_layout
from ray_jobs.dataset.local_copy import Origin
from ray_jobs.dataset.report import ALLOWABLE, DatasetReport, ProblemLog, SplitCounts
from ray_jobs.dataset.samples import Sample, Samples
from ray_jobs.dataset.tally import Tally
from ray_jobs.errors import DataError


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
    _report_files(description, layout, problems)
    seen = inspect_each(layout.files, description, threads, "checking images" if show_progress else None)
    tally = Tally(description, problems, pattern)
    splits: dict[str, Sequence[Sample]] = {
        split: Samples.of(description.root, map(_sample, tally.sound(split, islice(seen, len(files)))))
        for split, files in layout.images.items()
    }
    list(seen)  # none is left; this ends the progress bar
    _report_repeated_pictures(layout.files, tally.pixel_hashes, problems)
    _report_patients(tally, problems)
    counts = {split: count.summary() for split, count in tally.counts.items()}
    _report_missing_boxes(counts, problems)
    fingerprint = tally.fingerprint
    return DatasetReport(
        errors=problems.groups(errors=True),
        warnings=problems.groups(errors=False),
        notices=_notices(description, tally),
        counts=counts,
        fingerprint=fingerprint,
        index=DatasetIndex(description.root, description.names, splits, fingerprint, description.origin),
    )


def _refuse_files_elsewhere(layout: Layout, origin: Origin) -> None:
    """Raise where images of a copied data set lie outside of the copy, where no other node would have them."""
    outside = [str(file.image) for file in layout.files if not file.image.is_relative_to(origin.files)]
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
    for label, images in layout.shared_labels:
        problems.add("shared_labels", f"{label}: of {', '.join(sorted(image.name for image in images))}")


def _report_repeated_pictures(files: Sequence[ImageFile], hashes: bytes, problems: ProblemLog) -> None:
    """Files whose pixels have one hash, in the order of the first of them."""
    words = np.frombuffer(hashes, np.uint64).reshape(-1, 4)
    order = np.lexsort(words.T)
    alike = (words[order[1:]] == words[order[:-1]]).all(1) & words[order[1:]].any(1)
    groups: dict[int, list[int]] = {}
    for at in np.flatnonzero(alike).tolist():
        before, number = int(order[at]), int(order[at + 1])
        groups[number] = groups.pop(before, [before])
        groups[number].append(number)
    for numbers in sorted(groups.values()):
        same = [files[number] for number in numbers]
        across = len({file.split for file in same}) > 1
        names = ", ".join(f"{file.name} ({file.split})" for file in same[:4]) + (", ..." if same[4:] else "")
        problems.add("duplicate_images" if across else "repeated_images", names)


def _report_patients(tally: Tally, problems: ProblemLog) -> None:
    if tally.pattern and tally.unknown_patients.count and not tally.patients:
        problems.add("patient_pattern", f"{tally.pattern.pattern} does not fit {tally.unknown_patients.examples[0]}")
        return
    problems.merge(tally.unknown_patients)
    for patient, splits in sorted(tally.patients.items()):
        if len(splits) > 1:
            where = ", ".join(f"{split} ({count})" for split, count in splits.items())
            problems.add("shared_patients", f"patient {patient}: {where}")


def _report_missing_boxes(counts: dict[str, SplitCounts], problems: ProblemLog) -> None:
    for split, count in counts.items():
        if count.images and not count.boxes:
            problems.add("no_boxes" if split == "train" else "unboxed_splits", f"{split}: {count.images} images")
    train = counts.get("train")
    if train and train.boxes:
        for name, boxes in train.per_class.items():
            if not boxes:
                problems.add("classes_without_boxes", name)


def _sample(item: Inspection) -> Sample:
    return Sample(item.file.image, item.height, item.width, item.labels.boxes)


def _notices(description: DataDescription, tally: Tally) -> tuple[str, ...]:
    notices = list(description.notices)
    if description.dropped_class is not None:
        notices.append(
            f'"No finding" (class {description.dropped_class} of data.yaml) is no object: the class was dropped, '
            f"images that became background: {tally.became_background:,}"
        )
    if unlabelled := sum(count.unlabelled for count in tally.counts.values()):
        notices.append(f"images without a label file, counted as background: {unlabelled:,}")
    if tally.deep:
        notices.append(f"images with more than 8 bits, windowed to 8 and not truncated: {tally.deep:,}")
    return tuple(notices)
