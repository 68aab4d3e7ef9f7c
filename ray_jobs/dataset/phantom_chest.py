"""Draws one phantom chest X-ray with its findings.

Comes in: a random generator, the findings to draw, a size. Goes out: uint8 gray pixels and each finding's exact box.

Everything is a soft shape on the unit square (x to the right, y down), added to or taken from a picture in 0..1. As on
a real film, dense tissue is bright, air is dark and the heart lies toward the right edge of the picture.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Box = tuple[int, float, float, float, float]

FINDINGS = ("Cardiomegaly", "Effusion", "Nodule", "Pneumothorax")


@dataclass(frozen=True)
class _Lung:
    """An ellipse cut off by the diaphragm. ``side`` is -1 for the lung at the left of the picture, 1 at the right."""

    side: int
    x: float
    y: float
    half_width: float
    half_height: float
    base: float


def draw_chest(rng: np.random.Generator, findings: set[str], size: int) -> tuple[NDArray[np.uint8], list[Box]]:
    """A chest of ``size`` x ``size`` pixels with ``findings`` (of ``FINDINGS``).

    The boxes are (class, center x, center y, width, height), the last four in 0..1, around each finding's shape.
    """
    x, y = _grid(size)
    film = rng.spawn(1)[0]  # of its own: a finding changes nothing of the picture around it
    middle = 0.5 + rng.normal(0, 0.012)
    lungs = [_lung(rng, middle, side) for side in (-1, 1)]
    picture = _torso(rng, x, y, middle)
    air = [_lung_shape(lung, x, y) for lung in lungs]
    for shape in air:
        picture -= rng.uniform(0.30, 0.36) * shape
    picture += _texture(rng, size, 14) * 0.035 * (air[0] + air[1])

    boxes: list[Box] = []
    heart = _heart(rng, x, y, middle, enlarged="Cardiomegaly" in findings)
    picture = _cover(picture, heart, rng.uniform(0.58, 0.66))
    if "Cardiomegaly" in findings:
        boxes.append(_box("Cardiomegaly", heart > 0.5))
    sides = rng.permutation(2)  # the finding that collapses a lung and the one that fills it get a side each
    bones = _ribs(rng, x, y, middle) + _spine(rng, x, y, middle) + _clavicles(rng, x, y, middle)
    if "Pneumothorax" in findings:
        picture, collapsed = _pneumothorax(rng, picture, lungs[sides[0]], air[sides[0]], x, y)
        boxes.append(_box("Pneumothorax", collapsed))
    if "Effusion" in findings:
        fluid = _effusion(rng, lungs[sides[1]], air[sides[1]], x, y)
        picture = _cover(picture, fluid, rng.uniform(0.62, 0.70))
        boxes.append(_box("Effusion", fluid > 0.5))
    if "Nodule" in findings:
        nodule = _nodule(rng, lungs[sides[1]], x, y)
        picture += nodule * rng.uniform(0.26, 0.34)
        boxes.append(_box("Nodule", nodule > 0.5))
    picture += bones
    return _expose(film, picture, size), boxes


def _grid(size: int) -> tuple[Field, Field]:
    steps = ((np.arange(size) + 0.5) / size).astype(np.float32)
    x, y = np.meshgrid(steps, steps)
    return x, y


def _soft(inside: Field, edge: float) -> Field:
    """1 where ``inside`` is above 0, 0 below, with a border about ``edge`` wide."""
    return (1 / (1 + np.exp(np.clip(-4 * inside / edge, -30, 30)))).astype(np.float32)


def _ellipse(x: Field, y: Field, center: tuple[float, float], half: tuple[float, float], edge: float = 0.02) -> Field:
    distance = np.hypot((x - center[0]) / half[0], (y - center[1]) / half[1])
    return _soft((1 - distance) * min(half), edge)


def _cover(picture: Field, shape: Field, brightness: float) -> Field:
    return picture * (1 - shape) + shape * np.float32(brightness)


def _torso(rng: np.random.Generator, x: Field, y: Field, middle: float) -> Field:
    """Shoulders, chest and belly as one outline, with the neck on top; the arms leave the picture."""
    width = rng.uniform(0.40, 0.45)
    shoulders = np.clip((y - rng.uniform(0.05, 0.09)) / 0.16, 0, 1) ** 0.5
    half = width * (0.25 + 0.75 * shoulders) + 0.02 * np.sin(y * 6)
    body = _soft(half - np.abs(x - middle), 0.03)
    belly = _soft(y - 0.8, 0.25) * 0.06
    return (0.05 + body * (rng.uniform(0.50, 0.56) + belly)).astype(np.float32)


def _lung(rng: np.random.Generator, middle: float, side: int) -> _Lung:
    half_width = rng.uniform(0.145, 0.175)
    return _Lung(
        side=side,
        x=middle + side * (0.045 + half_width),
        y=rng.uniform(0.49, 0.53),
        half_width=half_width,
        half_height=rng.uniform(0.33, 0.38),
        base=rng.uniform(0.74, 0.79) + (0.02 if side > 0 else 0),
    )


def _lung_shape(lung: _Lung, x: Field, y: Field) -> Field:
    """Narrow at the apex, cut below by the dome of the diaphragm."""
    narrowing = 1 - 0.25 * np.clip((lung.y - y) / lung.half_height, 0, 1)
    outline = 1 - (
        (np.abs(x - lung.x) / (lung.half_width * narrowing)) ** 2.4 + np.abs((y - lung.y) / lung.half_height) ** 2.4
    )
    dome = lung.base + 0.9 * (x - lung.x) ** 2 / lung.half_width - y
    return _soft(np.minimum(outline * 0.1, dome), 0.025)


def _heart(rng: np.random.Generator, x: Field, y: Field, middle: float, *, enlarged: bool) -> Field:
    """An ellipse that leans to the right; healthy up to half as wide as the chest."""
    half_width = rng.uniform(0.215, 0.25) if enlarged else rng.uniform(0.115, 0.14)
    half_height = half_width * rng.uniform(0.85, 0.95) if enlarged else rng.uniform(0.15, 0.17)
    center = (middle + 0.05 + rng.normal(0, 0.008), 0.63 + rng.normal(0, 0.012))
    lean = 0.25
    return _ellipse(x - lean * (y - center[1]), y, center, (half_width, half_height), 0.03)


def _ribs(rng: np.random.Generator, x: Field, y: Field, middle: float) -> Field:
    """Nine pairs of arcs that fall away from the spine."""
    bones = np.zeros_like(x)
    away = np.abs(x - middle)
    first, spacing = rng.uniform(0.13, 0.16), rng.uniform(0.068, 0.076)
    for number in range(9):
        fall = (0.35 + 0.04 * number) * away + 1.1 * away**2
        arc = y - (first + number * spacing + fall - 0.06)
        reach = _soft(np.float32(0.27 + 0.012 * number) - away, 0.05) * _soft(away - 0.03, 0.03)
        bones += np.exp(-((arc / 0.011) ** 2)) * reach
    return bones * rng.uniform(0.055, 0.085)


def _spine(rng: np.random.Generator, x: Field, y: Field, middle: float) -> Field:
    column = np.exp(-(((x - middle) / 0.035) ** 4))
    vertebrae = 0.75 + 0.25 * np.sin(y * rng.uniform(95, 105))
    return column * vertebrae * rng.uniform(0.10, 0.14)


def _clavicles(rng: np.random.Generator, x: Field, y: Field, middle: float) -> Field:
    away = np.abs(x - middle)
    arc = y - (rng.uniform(0.15, 0.17) - 0.16 * away + 0.02 * np.sin(away * 12))
    return np.exp(-((arc / 0.016) ** 2)) * _soft(np.float32(0.34) - away, 0.03) * _soft(away - 0.04, 0.02) * 0.13


def _pneumothorax(
    rng: np.random.Generator, picture: Field, lung: _Lung, air: Field, x: Field, y: Field
) -> tuple[Field, NDArray[np.bool_]]:
    """Air outside of the collapsed lung: black, without texture, behind a thin bright line."""
    depth = rng.uniform(0.10, 0.14)
    center = (lung.x - lung.side * depth, lung.y + rng.uniform(0.10, 0.14))
    collapsed = np.hypot((x - center[0]) / lung.half_width, (y - center[1]) / lung.half_height)
    outside = _soft((collapsed - 1) * lung.half_width, 0.012) * air * _soft(lung.y + 0.16 - y, 0.04)
    line = np.exp(-(((collapsed - 1) * lung.half_width / 0.006) ** 2)) * air * _soft(lung.y + 0.16 - y, 0.04)
    return _cover(picture, outside, 0.06) + line * np.float32(0.16), outside > 0.5


def _effusion(rng: np.random.Generator, lung: _Lung, air: Field, x: Field, y: Field) -> Field:
    """Fluid at the base of a lung; its surface rises toward the chest wall."""
    level = lung.base - rng.uniform(0.12, 0.22)
    outward = lung.side * (x - lung.x) / lung.half_width
    surface = y - level + 0.07 * np.clip(outward + 0.3, 0, 1.3) ** 2
    return np.minimum(_soft(surface, 0.02), air)


def _nodule(rng: np.random.Generator, lung: _Lung, x: Field, y: Field) -> Field:
    """A round shadow in the outer half of a lung, above the heart and any fluid."""
    radius = rng.uniform(0.032, 0.055)
    center = (lung.x + lung.side * rng.uniform(-0.02, 0.05), rng.uniform(0.25, 0.50))
    return _ellipse(x, y, center, (radius, radius * rng.uniform(0.85, 1.15)), 0.012)


def _texture(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Smooth noise of mean 0 and deviation about 1, ``cells`` bumps across."""
    coarse = rng.standard_normal((cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def _expose(rng: np.random.Generator, picture: Field, size: int) -> NDArray[np.uint8]:
    """Tilt, contrast and noise of the film. The tilt of brightness leaves every shape where it is."""
    x, _ = _grid(size)
    tilted = picture * (1 + rng.normal(0, 0.05) * (x - 0.5)) + 0.015 * _texture(rng, size, 5)
    exposed = np.clip(tilted, 0, 1) ** rng.uniform(0.85, 1.15) * rng.uniform(0.92, 1.08)
    grainy = exposed + rng.normal(0, 0.018, exposed.shape)
    return np.rint(np.clip(grainy, 0, 1) * 255).astype(np.uint8)


def _box(finding: str, inside: NDArray[np.bool_]) -> Box:
    """The box around the largest connected part of a shape."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8))
    left, top, width, height, _ = stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))]
    rows, columns = inside.shape
    center = ((left + width / 2) / columns, (top + height / 2) / rows)
    return FINDINGS.index(finding), float(center[0]), float(center[1]), float(width / columns), float(height / rows)
