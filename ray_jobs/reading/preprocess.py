"""From a picture to what the network eats, and back.

In: a gray picture of any size. Out: a square float picture, and where in it the original lies, so that boxes can be
carried back to pixels of the original.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

PADDING = 114  # the gray that Ultralytics pads with, so the gray that the network saw in training


@dataclass(frozen=True)
class Placement:
    """Where a picture lies inside its square network input.

    ``height`` and ``width`` are the original's in pixels; ``scale_x`` and ``scale_y`` are input pixels per original
    pixel (they differ slightly, because each side is rounded to whole pixels); ``left`` and ``top`` are the padding
    in input pixels.
    """

    height: int
    width: int
    scale_x: float
    scale_y: float
    left: int
    top: int

    def to_original(self, boxes: npt.NDArray[np.float32], clip: bool = True) -> npt.NDArray[np.float32]:
        """Carry ``(n, 4)`` boxes x1, y1, x2, y2 from input pixels to pixels of the original.

        ``clip`` cuts them at the picture's edge. Evaluation does without: Ultralytics matches uncut boxes.
        """
        offset = np.array([self.left, self.top, self.left, self.top], dtype=np.float32)
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], dtype=np.float32)
        moved = (boxes.astype(np.float32) - offset) / scale
        if clip:
            edge = np.array([self.width, self.height, self.width, self.height], dtype=np.float32)
            moved = np.clip(moved, 0, edge)
        return moved


def letterbox(gray: npt.NDArray[np.uint8], size: int) -> tuple[npt.NDArray[np.float32], Placement]:
    """Fit a gray picture ``(H, W)`` into a square of ``size`` pixels, keeping its aspect.

    Returns a float32 array ``(3, size, size)`` in 0..1, the gray repeated over three channels, and the placement.
    Resampling, rounding and padding are those of Ultralytics' ``LetterBox`` (``ultralytics/data/augment.py``).
    """
    square, placement = fit_square(gray, size)
    return network_input([square])[0], placement


def fit_square(gray: npt.NDArray[np.uint8], size: int) -> tuple[npt.NDArray[np.uint8], Placement]:
    """The first half of ``letterbox``: uint8 ``(size, size)``, small, and the placement."""
    if gray.ndim != 2 or gray.dtype != np.uint8 or 0 in gray.shape:
        raise ValueError(f"expected a gray uint8 picture (H, W), got {gray.dtype} of shape {gray.shape}")
    height, width = gray.shape
    ratio = min(size / height, size / width)
    new_width, new_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    if (new_width, new_height) != (width, height):
        # OpenCV's resize wants memory laid out row by row, which a cropped or flipped view is not.
        resized = cv2.resize(np.ascontiguousarray(gray), (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    else:
        resized = gray
    # The 0.1 decides where the odd pixel of padding goes: to the right and to the bottom.
    left, top = round((size - new_width) / 2 - 0.1), round((size - new_height) / 2 - 0.1)
    square = np.full((size, size), PADDING, dtype=np.uint8)
    square[top : top + new_height, left : left + new_width] = resized
    return square, Placement(height, width, new_width / width, new_height / height, left, top)


def network_input(squares: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """The second half of ``letterbox``, for a batch: float32 ``(B, 3, size, size)`` in 0..1."""
    pixels = np.empty((len(squares), 3, *squares[0].shape), dtype=np.float32)
    for picture, square in zip(pixels, squares, strict=True):
        picture[:] = square.astype(np.float32) / np.float32(255)
    return pixels
