"""Pictures to look at: samples of a split, read by the detector and drawn with the truth.

In: a way to read, and samples. Out: PNG files; found boxes are solid, true ones dashed, and where nothing was found
the picture says "No findings".
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.dataset.samples import Sample
from ray_jobs.detector.evaluation import truth_of
from ray_jobs.pixels import read_image
from ray_jobs.reading.drawing import draw_findings
from ray_jobs.reading.finding import Finding, to_findings

Read = Callable[[Sequence[npt.NDArray[Any]]], list[list[Finding]]]
"""``Reader.read_batch``, or any other way from pictures to the findings of each."""


def save_samples(read: Read, samples: Sequence[Sample], names: Sequence[str], folder: Path, count: int) -> list[Path]:
    """Read and draw up to ``count`` samples into ``folder``; returns the PNG files, named after the images.

    They are spread evenly over the samples, with and without boxes in the proportion of the split, but at least one of
    each kind where there is one and ``count`` allows it.
    """
    chosen = choose_samples(samples, count)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, sample in enumerate(chosen):
        gray = read_image(sample.image)
        picture = draw_findings(gray, read([gray])[0], to_findings(truth_of(sample), names), names)
        # The number keeps images of the same name from different folders apart.
        paths.append(folder / f"{number:02d}_{sample.image.stem}.png")
        picture.save(paths[-1])
    return paths


def choose_samples(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Up to ``count`` samples, always the same ones, in the order of the split."""
    if count <= 0 or not samples:
        return []
    with_boxes = [number for number, sample in enumerate(samples) if len(sample.boxes)]
    without = [number for number, sample in enumerate(samples) if not len(sample.boxes)]
    count = min(count, len(samples))
    background = round(count * len(without) / len(samples))
    if without and with_boxes and count > 1:
        background = min(max(background, 1), count - 1)
    # Rounding must not ask either kind for more than it has.
    background = max(min(background, len(without)), count - len(with_boxes))
    chosen = [*_spread(with_boxes, count - background), *_spread(without, background)]
    return [samples[number] for number in sorted(chosen)]


def _spread(numbers: Sequence[int], count: int) -> list[int]:
    return [numbers[int(at)] for at in np.linspace(0, len(numbers) - 1, count).round()] if count else []
