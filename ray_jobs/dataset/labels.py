"""Reads one label file: a line for each box, ``class center_x center_y width height``, all but the class in 0..1.

Comes in: the bytes of the file. Goes out: the boxes as the detector learns them, and each line that is wrong.
"""

import math
from dataclasses import dataclass

import numpy as np

from ray_jobs.dataset.description import DataDescription

EDGE_TOLERANCE = 1e-3
"""How far an edge may lie outside of the image: what rounding to three decimals can do, half a pixel at 512 px.
Such edges are moved onto the border."""

SMALLEST_SIZE = 1e-6
"""Width and height below this are nothing that anybody drew."""


@dataclass(frozen=True)
class LabelProblem:
    """A line that is wrong: the kind of problem (see report.py), the line's number from 1, what is wrong."""

    kind: str
    line: int
    message: str


@dataclass(frozen=True)
class Labels:
    """The boxes of one image, float32 (n, 5): class, center x, center y, width, height. ``no_finding`` counts lines
    of the dropped class."""

    boxes: np.ndarray
    problems: tuple[LabelProblem, ...] = ()
    no_finding: int = 0


def parse_labels(data: bytes, description: DataDescription) -> Labels:
    """Read the bytes of a label file. Whatever they are, the answer names what is wrong; nothing is raised."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Labels(_array([]), (LabelProblem("unreadable_labels", 1, f"is no text ({error.reason})"),))
    boxes: dict[tuple[float, ...], int] = {}
    problems: list[LabelProblem] = []
    no_finding = 0
    for number, line in enumerate(text.splitlines(), 1):
        columns = line.split()
        if not columns:
            continue
        if _is_dropped(columns[0], description):
            no_finding += 1
            continue
        try:
            box = _read_line(columns, description)
            if box in boxes:
                raise _WrongLine("label_duplicates", f"is the same box as line {boxes[box]}")
            boxes[box] = number
        except _WrongLine as wrong:
            problems.append(LabelProblem(wrong.kind, number, wrong.message))
    return Labels(_array(list(boxes)), tuple(problems), no_finding)


class _WrongLine(Exception):
    def __init__(self, kind: str, message: str) -> None:
        self.kind, self.message = kind, message
        super().__init__(message)


def _array(boxes: list[tuple[float, ...]]) -> np.ndarray:
    return np.array(boxes, np.float32).reshape(-1, 5)


def _is_dropped(column: str, description: DataDescription) -> bool:
    """Whether a line says "No finding": whatever stands behind the class means nothing then."""
    return description.dropped_class is not None and _number(column) == description.dropped_class


def _read_line(columns: list[str], description: DataDescription) -> tuple[float, ...]:
    """A line's box: the detector's class, then center x, center y, width, height."""
    if len(columns) > 6 and len(columns) % 2:
        raise _WrongLine("segment_labels", f"is a polygon of {len(columns) // 2} points, needs a box")
    if len(columns) != 5:
        hint = "; is the sixth a confidence?" if len(columns) == 6 else ""
        raise _WrongLine("label_columns", f"has {len(columns)} columns, needs 5{hint}")
    label_class, *box = values = [_number(column) for column in columns]
    wrong = [column for column, value in zip(columns, values, strict=True) if not math.isfinite(value)]
    if wrong:
        raise _WrongLine("label_numbers", f"{', '.join(wrong)[:80]} is no finite number")
    known = description.label_class_count
    class_id = description.class_id(int(label_class))
    if label_class != int(label_class) or not 0 <= label_class < known or class_id is None:
        raise _WrongLine("label_class", f"class {columns[0][:20]} is none of 0 to {known - 1}")
    _check_box(*box)
    return float(class_id), *_within_image(*box)


def _number(column: str) -> float:
    """The value of a column; NaN for what is no plain number (Python would also read ``1_0``)."""
    try:
        return math.nan if "_" in column else float(column)
    except ValueError:
        return math.nan


def _check_box(x: float, y: float, width: float, height: float) -> None:
    if width < SMALLEST_SIZE or height < SMALLEST_SIZE:
        raise _WrongLine("label_box_size", f"is {width:g} wide and {height:g} high")
    edges = {"left": x - width / 2, "top": y - height / 2, "right": x + width / 2, "bottom": y + height / 2}
    outside = [
        f"{side} {edge:.6g}" for side, edge in edges.items() if not -EDGE_TOLERANCE <= edge <= 1 + EDGE_TOLERANCE
    ]
    if outside or not (0 < x < 1 and 0 < y < 1):
        pixels = "; these look like pixels: divide by the image's width and height" if max(x, y) > 2 else ""
        raise _WrongLine("label_box_outside", f"leaves the image: {', '.join(outside) or 'its center'}{pixels}")


def _within_image(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    """The box with its edges moved into 0..1, unchanged where they are."""
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if left < 0 or right > 1:
        left, right = max(left, 0.0), min(right, 1.0)
        x, width = (left + right) / 2, right - left
    if top < 0 or bottom > 1:
        top, bottom = max(top, 0.0), min(bottom, 1.0)
        y, height = (top + bottom) / 2, bottom - top
    return x, y, width, height
