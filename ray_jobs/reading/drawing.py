"""Draws findings, and the truth where it is known, onto an X-ray, so that a person can read both.

In: gray pixels and findings. Out: a colour picture; found boxes are solid, true ones dashed, each class has its own
colour, and a picture without findings says so in words. Small pictures are enlarged until their labels are legible.
"""

import colorsys
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ray_jobs.reading.finding import Finding

NO_FINDINGS = "No findings"
SMALLEST_SIDE = 640  # pixels: the longer side of a drawing is at least this

# Ten hues that differ from each other and from gray, also for most colour-blind readers (after Okabe and Ito 2008,
# https://jfly.uni-koeln.de/color/, and Tableau); further classes get hues of their own.
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 190, 140),
    (240, 228, 66),
    (60, 120, 255),
    (232, 94, 20),
    (214, 130, 190),
    (150, 220, 60),
    (255, 80, 100),
    (170, 120, 255),
)
INK, PAPER = (0, 0, 0), (255, 255, 255)

Colour = tuple[int, int, int]


class Rectangle(NamedTuple):
    """Corners in pixels of the drawing."""

    left: float
    top: float
    right: float
    bottom: float

    def shared_area(self, other: "Rectangle") -> float:
        """Area in square pixels that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0) * max(height, 0)


def draw_findings(
    gray: npt.NDArray[np.uint8],
    findings: Sequence[Finding],
    truth: Sequence[Finding] | None = None,
    names: Sequence[str] = (),
) -> Image.Image:
    """Draw findings onto a gray picture ``(H, W)``.

    ``truth`` are the true boxes (their score is not shown); None where it is unknown, an empty list where it is known
    that there are none. ``names``, the classes of the model in order, keeps the colours of classes apart; without it a
    class's colour follows from its name alone.
    """
    height, width = gray.shape
    scale = max(1.0, SMALLEST_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    enlarged = cv2.resize(gray, size, interpolation=cv2.INTER_CUBIC) if size != (width, height) else gray
    picture = Image.fromarray(cv2.cvtColor(enlarged, cv2.COLOR_GRAY2RGB))
    pen = ImageDraw.Draw(picture)
    line = max(2, round(max(size) / 320))
    font = _font(max(13, round(max(size) / 45)))
    legend = _write_caption(pen, size, font, findings, truth)
    labels: list[tuple[Rectangle, str, Colour, bool]] = []
    for finding, is_truth in [(one, True) for one in truth or ()] + [(one, False) for one in findings]:
        colour = _colour(finding.label, names)
        box = _scaled(finding.box, scale, size)
        if is_truth:
            _dash(pen, box, colour, line)
        else:
            pen.rectangle(box, outline=colour, width=line)
        text = f"{finding.label} (truth)" if is_truth else f"{finding.label} {finding.score:.2f}"
        labels.append((box, text, colour, is_truth))
    taken = legend
    # Labels come after all boxes, so that no line crosses a word; found ones choose their place first.
    for box, text, colour, is_truth in sorted(labels, key=lambda label: label[3]):
        place = _place_label(box, _text_size(pen, text, font), size, taken)
        taken.append(place)
        paper, ink = (INK, colour) if is_truth else (colour, _readable_on(colour))
        _write(pen, place, text, font, ink, paper)
    return picture


@lru_cache(maxsize=8)
def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(height)


def _write_caption(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    findings: Sequence[Finding],
    truth: Sequence[Finding] | None,
) -> list[Rectangle]:
    """Say "No findings" where nothing was found, and what dashes mean; returns the places taken."""
    places = []
    if not findings:
        width, height = _text_size(pen, NO_FINDINGS, font)
        places.append(Rectangle(4, 4, 4 + width, 4 + height))
        _write(pen, places[-1], NO_FINDINGS, font, PAPER, INK)
    if truth is not None:
        text = "solid: found   dashed: truth" if truth else "truth: no findings"
        width, height = _text_size(pen, text, font)
        places.append(Rectangle(4, size[1] - 4 - height, 4 + width, size[1] - 4))
        _write(pen, places[-1], text, font, PAPER, INK)
    return places


def _colour(label: str, names: Sequence[str]) -> Colour:
    index = list(names).index(label) if label in names else None
    if index is not None and index < len(PALETTE):
        return PALETTE[index]
    # The golden ratio spreads any number of hues evenly round the circle.
    hue = ((zlib.crc32(label.encode()) if index is None else index) * 0.61803398875) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _readable_on(colour: Colour) -> Colour:
    """Black or white, whichever stands out (luma of ITU-R BT.601)."""
    return INK if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 120 else PAPER


def _scaled(box: tuple[float, float, float, float], scale: float, size: tuple[int, int]) -> Rectangle:
    """The box in pixels of the drawing, inside it, corners in order."""
    left, right = sorted(min(max(edge * scale, 0), size[0] - 1) for edge in (box[0], box[2]))
    top, bottom = sorted(min(max(edge * scale, 0), size[1] - 1) for edge in (box[1], box[3]))
    return Rectangle(left, top, right, bottom)


def _dash(pen: ImageDraw.ImageDraw, box: Rectangle, colour: Colour, width: int) -> None:
    dash = 5 * width
    for x in np.arange(box.left, box.right, 2 * dash):
        for y in (box.top, box.bottom):
            pen.line([(x, y), (min(x + dash, box.right), y)], fill=colour, width=width)
    for y in np.arange(box.top, box.bottom, 2 * dash):
        for x in (box.left, box.right):
            pen.line([(x, y), (x, min(y + dash, box.bottom))], fill=colour, width=width)


def _text_size(
    pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> tuple[int, int]:
    """Width and height of a label, its margin included; the same height for every text."""
    top, bottom = pen.textbbox((0, 0), "Ág", font=font)[1::2]
    return round(pen.textlength(text, font=font)) + 6, round(bottom - top) + 6


def _place_label(
    box: Rectangle, label: tuple[int, int], size: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """The first place near the box, inside the picture, that covers no other label; else the least bad one."""
    places = list(_places(box, label, size))
    return min(places, key=lambda place: sum(place.shared_area(other) for other in taken))


def _places(box: Rectangle, label: tuple[int, int], size: tuple[int, int]) -> Iterator[Rectangle]:
    """Places for a label, best first: above the box, below, inside, then any row along its sides."""
    width, height = label
    columns = (box.left, box.right - width)
    rows = [box.top - height, box.bottom, box.top, box.bottom - height]
    rows += sorted(np.arange(0, size[1], height), key=lambda row: abs(row - box.top))
    for row in rows:
        for column in columns:
            left = min(max(column, 0), max(size[0] - width, 0))
            top = min(max(row, 0), max(size[1] - height, 0))
            yield Rectangle(left, top, left + width, top + height)


def _write(
    pen: ImageDraw.ImageDraw,
    place: Rectangle,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    ink: Colour,
    paper: Colour,
) -> None:
    pen.rectangle((place.left, place.top, place.right - 1, place.bottom - 1), fill=paper)
    top = pen.textbbox((0, 0), "Ág", font=font)[1]
    pen.text((place.left + 3, place.top + 3 - top), text, font=font, fill=ink)
