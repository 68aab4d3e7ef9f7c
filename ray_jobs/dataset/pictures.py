"""Draws X-rays of a data set with their labelled boxes, so that a person can see whether the labels are right.

Comes in: a ``DatasetIndex``. Goes out: one picture, a mosaic.
"""

import colorsys
import math
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.dataset.samples import Sample
from ray_jobs.errors import DataError
from ray_jobs.pixels import read_image

_TILE = 360  # pixels: sixteen tiles fill a screen and a 14 px class name stays legible
_GAP = 4
_TEXT = 14


def draw_sample_boxes(index: DatasetIndex, split: str, path: Path, count: int = 16) -> Path:
    """Draw up to ``count`` images of a split with their boxes and write the mosaic to ``path``.

    The choice is the same every time, takes every class in turn and then fills up; images without boxes say
    "No findings". Raises ``DataError`` for a split without images.
    """
    samples = choose_samples(index.splits.get(split, ()), len(index.names), count)
    if not samples:
        raise DataError(f"{index.root}: split {split!r} has no images to draw")
    columns = math.ceil(math.sqrt(len(samples)))
    rows = math.ceil(len(samples) / columns)
    step = _TILE + _GAP
    mosaic = Image.new("RGB", (columns * step - _GAP, rows * step - _GAP), "white")
    for number, sample in enumerate(samples):
        row, column = divmod(number, columns)
        mosaic.paste(_draw_tile(sample, index.names), (column * step, row * step))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    mosaic.save(path)
    return path


def choose_samples(samples: Sequence[Sample], classes: int, count: int) -> list[Sample]:
    """``count`` samples, the same every time: one of each class in turn, one of background after each round."""
    order = list(range(len(samples)))
    random.Random(0).shuffle(order)
    queues: list[list[int]] = [[] for _ in range(classes + 1)]
    for number in order:
        held = {int(box[0]) for box in samples[number].boxes}
        for class_id in held or {classes}:
            queues[class_id].append(number)
    chosen: list[int] = []
    while len(chosen) < min(count, len(samples)):
        for queue in queues:
            fresh = next((number for number in queue if number not in chosen), None)
            if fresh is not None and len(chosen) < count:
                chosen.append(fresh)
    return [samples[number] for number in chosen]


def class_colour(class_id: int) -> tuple[int, int, int]:
    """A bright colour that stands out from gray; neighbours in the list of classes lie far apart in hue."""
    red, green, blue = colorsys.hsv_to_rgb(class_id * 0.618034 % 1, 0.65, 1.0)  # steps of the golden ratio
    return round(red * 255), round(green * 255), round(blue * 255)


def _draw_tile(sample: Sample, names: Sequence[str]) -> Image.Image:
    pixels = Image.fromarray(read_image(sample.image))
    scale = _TILE / max(pixels.size)
    width, height = (max(1, round(side * scale)) for side in pixels.size)
    left, top = (_TILE - width) // 2, (_TILE - height) // 2
    tile = Image.new("RGB", (_TILE, _TILE), "black")
    tile.paste(pixels.resize((width, height), Image.Resampling.BILINEAR), (left, top))
    draw = ImageDraw.Draw(tile)
    font = ImageFont.load_default(size=_TEXT)
    labels = []
    for class_id, x, y, box_width, box_height in sample.boxes.tolist():
        colour = class_colour(int(class_id))
        corner = (left + (x - box_width / 2) * width, top + (y - box_height / 2) * height)
        opposite = (corner[0] + box_width * width, corner[1] + box_height * height)
        draw.rectangle((corner, opposite), outline=colour, width=2)
        labels.append((corner, names[int(class_id)], colour))
    for corner, name, colour in labels:  # after all boxes: no line runs through a name
        _draw_name(draw, corner, name, colour, font)
    if not labels:
        _draw_name(draw, (4, _TEXT + 8), "No findings", (255, 255, 255), font)
    return tile


def _draw_name(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    name: str,
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Black on the class's colour, above the corner where there is room, always inside of the tile."""
    width = draw.textlength(name, font=font) + 6
    height = _TEXT + 4
    x = min(max(corner[0], 0), max(_TILE - width, 0))
    y = corner[1] - height if corner[1] >= height else corner[1]
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + 3, y + height / 2), name, fill="black", font=font, anchor="lm")
