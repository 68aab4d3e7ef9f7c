"""Ultralytics' augmentation of gray X-rays, for a whole batch at once and on the device that trains.

In: sample numbers and a ``PixelStore``. Out: pixels on the device and boxes. What is drawn at random, and what is done
with it, is Ultralytics' ``Mosaic``, ``RandomPerspective`` without perspective, ``RandomHSV`` (which for gray is a
factor of brightness) and ``RandomFlip``, in this order and with its ranges; tests compare the two. Each sample is a
function of (seed, epoch, index), though not the one that the loader of single samples makes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ray_jobs.detector.pixel_store import PixelStore
from ray_jobs.detector.sampling import uniforms

GRAY = 114  # what Ultralytics fills empty places with
_COLUMNS = 16  # random numbers for each sample
_LEAST_SIDE, _LEAST_AREA, _MOST_ASPECT = 2.0, 0.1, 100.0  # of a box that is kept, as in RandomPerspective


@dataclass(frozen=True)
class Ranges:
    """How much is changed, by the names of Ultralytics' training arguments."""

    mosaic: float
    degrees: float
    translate: float
    scale: float
    shear: float
    hsv_v: float
    flipud: float
    fliplr: float

    @classmethod
    def of(cls, arguments: Any) -> "Ranges":
        """Those of Ultralytics' ``args``."""
        return cls(**{name: float(getattr(arguments, name)) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Layout:
    """Where a batch's pixels come from. A sample is seen through ``matrix`` on a canvas of up to four pictures.

    ``pictures`` (n, 4) are their indices: top left, top right, bottom left, bottom right of ``split`` (n, 2), a point
    (x, y) of the canvas; -1 is none. ``offset`` (n, 4, 2) is a picture's corner (x, y) on the canvas; ``matrix``
    (n, 2, 3) takes edges of boxes on the canvas to edges in the result, and pixels to pixels but for ``flipped`` (n, 2)
    axes, where edge x goes to size - x and pixel x to size - 1 - x; ``canvas`` (n, 2) is its (width, height).
    ``zoom`` (n,) is the scale that was drawn, ``gain`` (n,) the factor of brightness.
    """

    pictures: NDArray[np.int64]
    split: NDArray[np.float64]
    offset: NDArray[np.float64]
    matrix: NDArray[np.float64]
    flipped: NDArray[np.bool_]
    canvas: NDArray[np.float64]
    zoom: NDArray[np.float64]
    gain: NDArray[np.float64]


def supported(arguments: Any) -> bool:
    """Whether all that these arguments ask for can be done here."""
    return not (arguments.mixup or arguments.cutmix or arguments.copy_paste or arguments.perspective)


def draw_layout(store: PixelStore, ranges: Ranges, seed: int, epoch: int, indices: NDArray[np.int64]) -> Layout:
    """What happens to each of these samples in this epoch (from 0)."""
    number, size = len(indices), store.size
    draw = uniforms(seed, epoch, indices, _COLUMNS)
    mosaic = draw[:, 0] < ranges.mosaic
    others = (draw[:, 1:4] * len(store)).astype(np.int64)
    pictures = np.where(mosaic[:, None], np.column_stack([indices, others]), -1)
    pictures[~mosaic, 3] = indices[~mosaic]
    split = np.where(mosaic[:, None], np.floor(size / 2 + draw[:, 4:6] * size), 0.0)
    height, width = np.moveaxis(store.shapes[pictures], -1, 0).astype(np.float64)
    offset = np.zeros((number, 4, 2))
    offset[:, (0, 2), 0] = split[:, :1] - width[:, (0, 2)]
    offset[:, (1, 3), 0] = split[:, :1]
    offset[:, :2, 1] = split[:, 1:] - height[:, :2]
    offset[:, 2:, 1] = split[:, 1:]
    alone = np.column_stack([width[:, 3], height[:, 3]])
    canvas = np.where(mosaic[:, None], 2.0 * size, alone)
    zoom = 1 + _around_zero(draw[:, 6], ranges.scale)
    flipped = draw[:, 13:15] < (ranges.fliplr, ranges.flipud)
    matrix = _matrices(draw, ranges, canvas, zoom, size, flipped)
    gain = 1 + _around_zero(draw[:, 7], ranges.hsv_v)
    return Layout(pictures, split, offset, matrix, flipped, canvas, zoom, gain)


def _around_zero(draw: NDArray[np.float64], most: float) -> NDArray[np.float64]:
    return (2 * draw - 1) * most


def _matrices(
    draw: NDArray[np.float64],
    ranges: Ranges,
    canvas: NDArray[np.float64],
    zoom: NDArray[np.float64],
    size: int,
    flipped: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """The canvas's centre to the origin, turned and zoomed, sheared, moved, flipped: (n, 2, 3)."""
    number = len(draw)
    angle = np.deg2rad(_around_zero(draw[:, 8], ranges.degrees))
    shear = np.tan(np.deg2rad(_around_zero(draw[:, 9:11], ranges.shear)))
    turn = np.empty((number, 2, 2))
    turn[:, 0, 0] = turn[:, 1, 1] = zoom * np.cos(angle)
    turn[:, 0, 1] = zoom * np.sin(angle)
    turn[:, 1, 0] = -turn[:, 0, 1]
    sheared = np.tile(np.eye(2), (number, 1, 1))
    sheared[:, 0, 1], sheared[:, 1, 0] = shear[:, 0], shear[:, 1]
    linear = sheared @ turn
    moved = (0.5 + _around_zero(draw[:, 11:13], ranges.translate)) * size
    linear[flipped] *= -1
    moved[flipped] = size - moved[flipped]
    constant = moved - (linear @ (canvas / 2)[:, :, None])[:, :, 0]
    return np.concatenate([linear, constant[:, :, None]], axis=2)


def render(store: PixelStore, layout: Layout) -> torch.Tensor:
    """The pixels of a batch, uint8 (n, 1, size, size) on the store's device."""
    size, device = store.size, store.device
    axis = torch.arange(size, device=device, dtype=torch.float32)
    points = torch.stack([*torch.meshgrid(axis, axis, indexing="xy"), torch.ones(size, size, device=device)], -1)
    matrix = layout.matrix.copy()
    matrix[:, :, 2] -= layout.flipped
    canvas = (points.view(1, -1, 3) @ _on(device, _inverted(matrix)).mT).view(-1, size, size, 2)
    split, limit, shifts = (_on(device, value) for value in (layout.split, layout.canvas - 1, layout.offset))
    split = split[:, None, None]
    on_canvas = ((canvas >= 0) & (canvas <= limit[:, None, None])).all(-1)
    beyond = canvas >= split
    pictures = torch.from_numpy(layout.pictures).to(device)
    total = torch.full((len(split), 1, size, size), float(GRAY), device=device)
    for quadrant in range(4):
        if (layout.pictures[:, quadrant] < 0).all():
            continue
        side = torch.tensor([quadrant % 2 == 1, quadrant // 2 == 1], device=device)
        inside = on_canvas & (beyond == side).all(-1) & (pictures[:, quadrant] >= 0)[:, None, None]
        # At a seam a picture ends with its last pixel; at its other edges it fades into gray.
        seen_at = torch.where(side, canvas, torch.minimum(canvas, split - 1)) - shifts[:, None, None, quadrant]
        pixels = store.pixels(pictures[:, quadrant].clamp(min=0)) - GRAY
        grid = seen_at * (2 / (store.side - 1)) - 1
        total += functional.grid_sample(pixels, grid, padding_mode="zeros", align_corners=True) * inside[:, None]
    gain = _on(device, layout.gain)[:, None, None, None]
    return (total.round_().clamp_(0, 255) * gain).clamp_(0, 255).to(torch.uint8)


def _on(device: torch.device, values: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device)


def _inverted(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = np.linalg.inv(matrix[:, :, :2])
    return np.concatenate([linear, -linear @ matrix[:, :, 2:]], axis=2)


def place_boxes(store: PixelStore, layout: Layout) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The boxes of a batch: the sample each is in, and rows of class, centre x, centre y, width, height in 0..1."""
    rows, box_of = store.boxes_of(layout.pictures)
    boxes, sample = box_of[:, 1:].astype(np.float64), rows // 4
    offset = layout.offset.reshape(-1, 2)[rows]
    boxes += np.tile(offset, 2)
    limits = np.tile(layout.canvas[sample], 2)
    boxes = boxes.clip(0, limits)
    solid = (boxes[:, 2:] > boxes[:, :2]).all(1)
    before, sample, kinds = boxes[solid], sample[solid], box_of[solid, 0]
    matrix = layout.matrix[sample]
    corners = before[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 4, 2)
    moved = corners @ matrix[:, :, :2].transpose(0, 2, 1) + matrix[:, None, :, 2]
    after = np.concatenate([moved.min(1), moved.max(1)], axis=1).clip(0, store.size)
    width, height = (after[:, 2:] - after[:, :2]).T
    was = np.prod(before[:, 2:] - before[:, :2], axis=1) * layout.zoom[sample] ** 2
    aspect = np.maximum(width / (height + 1e-16), height / (width + 1e-16))
    kept = (width > _LEAST_SIDE) & (height > _LEAST_SIDE) & (aspect < _MOST_ASPECT)
    kept &= width * height / (was + 1e-16) > _LEAST_AREA
    middle, extent = (after[:, :2] + after[:, 2:]) / 2, after[:, 2:] - after[:, :2]
    found = np.column_stack([kinds, np.hstack([middle, extent]) / store.size])
    return sample[kept], found[kept].astype(np.float32)
