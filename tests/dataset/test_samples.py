"""Samples in columns: nothing lost, little kept."""

import pickle
from pathlib import Path

import numpy as np

from ray_jobs.dataset.samples import Sample, Samples, sizes_of

ROOT = Path("/data/chest")
BOXES = np.array([[1, 0.5, 0.5, 0.123456789, 0.2], [0, 0.1, 0.1, 0.1, 0.1]], np.float32)
GIVEN = [
    Sample(ROOT / "images/a.png", 320, 512, BOXES),
    Sample(Path("/elsewhere/b.png"), 3, 4, BOXES[:0]),
    Sample(ROOT / "images/c.png", 5, 6, BOXES[1:]),
]


def same(one: Sample, other: Sample) -> bool:
    sizes = (one.image, one.height, one.width) == (other.image, other.height, other.width)
    return sizes and other.boxes.dtype == np.float32 and np.array_equal(one.boxes, other.boxes)


def test_samples_come_back_as_they_were() -> None:
    samples = Samples.of(ROOT, iter(GIVEN))
    assert all(map(same, GIVEN, samples))
    assert same(samples[-1], GIVEN[2])
    assert [sample.image.name for sample in samples[1:]] == ["b.png", "c.png"]
    assert len(Samples.of(ROOT, [])) == 0


def test_columns_are_not_made_again_and_a_part_keeps_nothing_of_the_rest() -> None:
    samples = Samples.of(ROOT, GIVEN)
    assert Samples.of(ROOT, samples) is samples
    part = Samples.of(ROOT, samples[1:])
    assert all(map(same, GIVEN[1:], part))
    assert len(part.images.ends) == 2
    assert all(map(same, GIVEN[::-1], Samples.of(ROOT, samples[::-1])))
    moved = Samples.of(Path("/elsewhere"), samples)
    assert moved.images[1] == "b.png"
    assert all(map(same, GIVEN, moved))


def test_sizes_need_no_samples() -> None:
    samples = Samples.of(ROOT, GIVEN)
    assert sizes_of(samples).tolist() == sizes_of(GIVEN).tolist() == [[320, 512], [3, 4], [5, 6]]
    assert sizes_of(samples[2:0:-1]).tolist() == [[5, 6], [3, 4]]


def test_an_image_costs_tens_of_bytes() -> None:
    """What every worker is sent and keeps: two boxes are 40 bytes, the name 24."""
    many = (Sample(ROOT / f"images/train/{n:08d}.png", 512, 512, BOXES) for n in range(10_000))
    assert len(pickle.dumps(Samples.of(ROOT, many))) < 100 * 10_000
