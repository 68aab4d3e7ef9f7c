"""One look at an image and its label file: whether both can be read, what is wrong with them, what they hold.

Comes in: an ``ImageFile``. Goes out: an ``Inspection``; nothing is written.
"""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ray_jobs.dataset.description import DataDescription
from ray_jobs.dataset.labels import Labels, parse_labels
from ray_jobs.dataset.layout import ImageFile
from ray_jobs.dataset.parallel import each_in_threads
from ray_jobs.dataset.report import ProblemLog
from ray_jobs.pixels import ImageError, decode_image, read_bytes


@dataclass(frozen=True)
class Inspection:
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


def inspect_each(
    files: Sequence[ImageFile], description: DataDescription, threads: int | None = None, title: str | None = None
) -> Iterator[Inspection]:
    """Look at every file, in order, in ``threads`` threads (by default one per core); ``title`` shows the progress."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on metadata; they do not concern the pixels
        yield from each_in_threads(lambda file: _inspect(file, description), files, threads, title)


def _inspect(file: ImageFile, description: DataDescription) -> Inspection:
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
        return Inspection(
            file, labels, labelled, label_hash=label_hash, image_problem=str(error), label_problem=label_problem
        )
    height, width = pixels.shape
    pixel_hash = hashlib.sha256(f"{pixels.dtype} {height} {width}".encode())
    pixel_hash.update(np.ascontiguousarray(pixels).data)
    return Inspection(
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


def report_problems(item: Inspection, problems: ProblemLog) -> None:
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


def inspect_images(
    files: Sequence[ImageFile], description: DataDescription, threads: int | None = None
) -> list[tuple[str, list[str]]]:
    """Of each image by itself: a hash of its pixels, "" where it cannot be read, and what is wrong with it or its
    label file, as the check of a data set would say it."""
    return [(item.pixel_hash.hex(), _errors_of(item)) for item in inspect_each(files, description, threads)]


def _errors_of(item: Inspection) -> list[str]:
    problems = ProblemLog(frozenset())
    report_problems(item, problems)
    return [example for group in problems.groups(errors=True) for example in group.examples]
