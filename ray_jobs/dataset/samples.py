"""The images of a split, each with its size and boxes.

Comes in: ``Sample`` after ``Sample``, from the check. Goes out: the same in columns, which training, evaluation and
every worker of a cluster can hold for millions of images.
"""

import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ray_jobs.dataset.columns import Columns, Texts, check_ends


@dataclass(frozen=True, eq=False)
class Sample:
    """One image. ``boxes``: float32 (n, 5), a row is class, center x, center y, width, height, the last four in 0..1
    of the image's width and height as ``pixels.read_image`` returns it. No rows: background."""

    image: Path
    height: int
    width: int
    boxes: NDArray[np.float32]


class Samples(Columns[Sample]):
    """Samples in columns. ``images`` are relative to ``root`` where they lie under it; ``sizes``: int32 (n, 2), height
    and width; ``boxes``: float32 (m, 5), those of an image end at ``box_ends`` (int64).

    Raises ``ValueError`` for columns that do not fit each other.
    """

    def __init__(
        self,
        root: Path,
        images: Texts,
        sizes: NDArray[np.int32],
        boxes: NDArray[np.float32],
        box_ends: NDArray[np.int64],
    ) -> None:
        check_ends(box_ends, len(boxes))
        if not len(images) == len(sizes) == len(box_ends) or sizes.shape[1:] != (2,) or boxes.shape[1:] != (5,):
            raise ValueError("columns do not fit each other")
        super().__init__(len(images))
        self.root, self.images, self.sizes, self.boxes, self.box_ends = root, images, sizes, boxes, box_ends

    @classmethod
    def of(cls, root: Path, samples: Iterable[Sample]) -> Self:
        """The same samples, in columns."""
        if isinstance(samples, cls) and samples.root == root and samples._rows == range(len(samples.images)):
            return samples
        sizes, boxes, box_ends = array("i"), bytearray(), array("q")

        def images() -> Iterable[str]:
            rows = 0
            for sample in samples:
                sizes.extend((sample.height, sample.width))
                boxes.extend(sample.boxes.astype(np.float32, copy=False).tobytes())
                rows += len(sample.boxes)
                box_ends.append(rows)
                yield str(sample.image).removeprefix(f"{root}{os.sep}")

        packed = Texts.of(images())
        return cls(
            root,
            packed,
            np.frombuffer(sizes, np.int32).reshape(-1, 2),
            np.frombuffer(boxes, np.float32).reshape(-1, 5),
            np.frombuffer(box_ends, np.int64),
        )

    def _item(self, row: int) -> Sample:
        height, width = self.sizes[row].tolist()
        start = self.box_ends[row - 1] if row else 0
        return Sample(self.root / self.images[row], height, width, self.boxes[start : self.box_ends[row]])


def sizes_of(samples: Sequence[Sample]) -> NDArray[np.int32]:
    """Height and width of each sample, (n, 2)."""
    if isinstance(samples, Samples):
        return samples.sizes[np.asarray(samples._rows, np.int64)]
    return np.array([(sample.height, sample.width) for sample in samples], np.int32).reshape(-1, 2)
