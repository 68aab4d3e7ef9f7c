"""An X-ray with boxes over it: true ones blue and dashed, found ones orange and solid, each with a dark rim, so that
they stand out from gray and from each other, also for colour-blind readers and in black and white.

In: a gray picture and boxes. Out: ``Html``; the picture is a small JPEG inside the page, the boxes are lines that stay
sharp.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from ray_jobs.report.page import Html, element

WIDTH = 400  # units of the drawing; lines and letters are measured in it
LONGEST_SIDE = 560  # pixels of the JPEG
QUALITY = 78
LETTER, LINE = 8.4, 15  # width and height of a letter

Place = tuple[float, float, float]


@dataclass(frozen=True)
class Box:
    """A box x1, y1, x2, y2 in pixels of the picture, and its label; ``strong`` where the picture is about it."""

    corners: tuple[float, float, float, float]
    label: str
    true: bool
    strong: bool = False


def xray(gray: npt.NDArray[np.uint8], boxes: Sequence[Box], description: str) -> Html:
    """The picture ``(H, W)`` with its boxes; ``description`` is what a screen reader says."""
    height, width = gray.shape
    scale = WIDTH / width
    tall = round(height * scale)
    picture = f"data:image/jpeg;base64,{base64.b64encode(_jpeg(gray)).decode()}"
    parts = [element("image", href=picture, width=WIDTH, height=tall, preserveAspectRatio="none")]
    drawn = sorted(boxes, key=lambda box: (box.strong, not box.true))
    for box in drawn:
        parts += _outline(box, scale)
    taken: list[Place] = []
    for box in reversed(drawn):  # those that the picture is about choose their place first
        place = _place(box, scale, tall, taken)
        taken.append(place)
        tone = "truetext" if box.true else "foundtext"
        parts.append(element("text", box.label, x=f"{place[0]:.1f}", y=f"{place[1]:.1f}", class_=tone))
    return element("svg", *parts, viewBox=f"0 0 {WIDTH} {tall}", role="img", aria_label=description, class_="xray")


def _jpeg(gray: npt.NDArray[np.uint8]) -> bytes:
    picture = Image.fromarray(gray)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    file = BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def _outline(box: Box, scale: float) -> list[Html]:
    left, top, right, bottom = (edge * scale for edge in box.corners)
    place = {
        "x": f"{left:.1f}",
        "y": f"{top:.1f}",
        "width": f"{max(right - left, 1):.1f}",
        "height": f"{max(bottom - top, 1):.1f}",
    }
    wide = 3.2 if box.strong else 1.8
    return [
        element("rect", **place, stroke_width=wide + 2.4, class_="casing"),
        element("rect", **place, stroke_width=wide, class_="true" if box.true else "found"),
    ]


def _place(box: Box, scale: float, tall: int, taken: Sequence[Place]) -> Place:
    """Where a label starts, and how wide it is: true ones below their box, found ones above, if there is room."""
    left, top, right, bottom = (edge * scale for edge in box.corners)
    wide = LETTER * len(box.label)
    above, below, inside = (top - 6, bottom + 15), (bottom + 15, top - 6), (bottom - 6, top + 16)
    rows = [row for row in (*(below if box.true else above), *inside) if 12 <= row <= tall - 4] or [tall / 2]
    columns = [min(max(column, 3), max(WIDTH - wide - 3, 3)) for column in (left, right - wide)]
    places = [(column, row, wide) for row in rows for column in columns]
    return min(places, key=lambda place: sum(_overlap(place, other) for other in taken))


def _overlap(one: Place, other: Place) -> float:
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    return max(across, 0) * max(LINE - abs(one[1] - other[1]), 0)
