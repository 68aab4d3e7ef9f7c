"""Whole batches are augmented as Ultralytics augments one picture after the other."""

from dataclasses import fields, replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from ray_jobs.detector.batch_augment import GRAY, Layout, Ranges, draw_layout, place_boxes, render, supported
from ray_jobs.detector.pixel_store import PixelStore

SIZE = 96
STILL = Ranges(mosaic=0, degrees=0, translate=0, scale=0, shear=0, hsv_v=0, flipud=0, fliplr=0)
LIVELY = Ranges(mosaic=0.8, degrees=10, translate=0.1, scale=0.5, shear=5, hsv_v=0.4, flipud=0.3, fliplr=0.5)


class Pictures:
    """What ``PixelStore`` asks of a data set: smooth pictures of different shapes, with boxes."""

    imgsz = SIZE
    decodes = 0

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.shapes = [(96, 96), (96, 70), (60, 96), (96, 81), (88, 96)]
        self.grays = [
            cv2.resize(random.integers(0, 256, (6, 6), dtype=np.uint8), shape[::-1], interpolation=cv2.INTER_CUBIC)
            for shape in self.shapes
        ]
        counts = [3, 0, 2, 1, 4]
        self.labels = [
            {
                "cls": random.integers(0, 5, (count, 1)).astype(np.float32),
                "bboxes": np.hstack(
                    [random.uniform(0.3, 0.7, (count, 2)), random.uniform(0.1, 0.5, (count, 2))]
                ).astype(np.float32),
            }
            for count in counts
        ]

    def __len__(self) -> int:
        return len(self.shapes)

    def shape_of(self, number: int) -> tuple[int, int]:
        return self.shapes[number]

    def gray(self, number: int) -> np.ndarray:
        return self.grays[number]


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return Pictures()


@pytest.fixture(scope="module")
def store(pictures: Pictures) -> PixelStore:
    return PixelStore(pictures, torch.device("cpu"), threads=2)


def ultralytics_sample(pictures: Pictures, layout: Layout, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One sample as Ultralytics' own classes make it from the same draws: pixels, classes and boxes (xyxy, pixels)."""
    from ultralytics.data.augment import RandomFlip, RandomPerspective
    from ultralytics.utils.instance import Instances

    width, height = layout.canvas[n].astype(int)
    canvas = np.full((height, width, 1), GRAY, np.uint8)
    kinds, boxes = [], []
    for quadrant, number in enumerate(layout.pictures[n]):
        if number < 0:
            continue
        gray, label = pictures.grays[number], pictures.labels[number]
        x, y = layout.offset[n, quadrant].astype(int)
        h, w = gray.shape
        x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        canvas[y1:y2, x1:x2, 0] = gray[y1 - y : y2 - y, x1 - x : x2 - x]
        middle, half = label["bboxes"][:, :2] * (w, h), label["bboxes"][:, 2:] * (w, h) / 2
        kinds.append(label["cls"])
        boxes.append(np.hstack([middle - half, middle + half]) + np.array([x, y, x, y]))
    instances = Instances(np.concatenate(boxes).astype(np.float32), bbox_format="xyxy", normalized=False)
    instances.clip(width, height)
    good = instances.remove_zero_area_boxes()
    labels = {"img": canvas, "cls": np.concatenate(kinds)[good], "instances": instances}
    matrix = np.vstack([layout.matrix[n], [0, 0, 1]]).astype(np.float32)
    for axis in np.flatnonzero(layout.flipped[n]):  # Ultralytics flips the picture that it has moved
        matrix[axis] = -matrix[axis] + (0, 0, SIZE)
    params = {"M": matrix, "scale": layout.zoom[n], "orig_shape": (height, width), "size": (SIZE, SIZE)}
    warp = RandomPerspective()
    labels = warp.apply_instances(warp.apply_image(labels, params), params)
    for axis, direction in enumerate(("horizontal", "vertical")):
        labels["instances"].convert_bbox("xywh")
        labels = RandomFlip(p=float(layout.flipped[n, axis]), direction=direction)(labels)
    labels["instances"].convert_bbox("xyxy")
    table = np.clip(np.arange(256) * layout.gain[n], 0, 255).astype(np.uint8)
    return table[labels["img"][..., 0]], labels["cls"][:, 0], labels["instances"].bboxes


@pytest.mark.parametrize("mosaic", [0.0, 0.5, 1.0])
def test_pixels_and_boxes_are_those_of_ultralytics(pictures: Pictures, store: PixelStore, mosaic: float) -> None:
    indices = np.arange(40) % len(pictures)
    layout = draw_layout(store, replace(LIVELY, mosaic=mosaic), 3, 7, indices)
    pixels = render(store, layout)
    assert pixels.shape == (40, 1, SIZE, SIZE)
    sample, boxes = place_boxes(store, layout)
    differences = []
    for n in range(len(indices)):
        wanted, kinds, corners = ultralytics_sample(pictures, layout, n)
        differences.append(np.abs(pixels[n, 0].numpy().astype(int) - wanted))
        mine = boxes[sample == n]
        assert mine[:, 0].tolist() == kinds.tolist()
        middle, half = mine[:, 1:3] * SIZE, mine[:, 3:] * SIZE / 2
        np.testing.assert_allclose(np.hstack([middle - half, middle + half]), corners.reshape(-1, 4), atol=0.01)
    apart = np.concatenate([d.ravel() for d in differences])
    assert apart.mean() < 1.0
    assert (apart > 8).mean() < 0.02  # along seams and edges, where OpenCV mixes neighbours


def test_nothing_drawn_changes_nothing(pictures: Pictures, store: PixelStore) -> None:
    pixels = render(store, draw_layout(store, STILL, 0, 0, np.arange(5)))
    for number, gray in enumerate(pictures.grays):
        height, width = gray.shape
        top, left = (SIZE - height) // 2, (SIZE - width) // 2
        seen = pixels[number, 0, top : top + height, left : left + width].numpy().astype(int)
        if height % 2 == 0 and width % 2 == 0:  # else it lies between pixels
            assert np.abs(seen - gray).max() <= 1


def test_draws_have_the_ranges_of_ultralytics(store: PixelStore) -> None:
    calm = replace(LIVELY, degrees=0, shear=0)
    epochs = [draw_layout(store, calm, 0, epoch, np.arange(5)) for epoch in range(800)]
    layout = Layout(*(np.concatenate([getattr(each, field.name) for each in epochs]) for field in fields(Layout)))
    of_four = layout.pictures[:, 0] >= 0
    assert of_four.mean() == pytest.approx(0.8, abs=0.03)
    for values, low, high in (
        (layout.zoom, 0.5, 1.5),
        (layout.gain, 0.6, 1.4),
        (layout.split[of_four], SIZE / 2, SIZE * 1.5),
    ):
        assert low <= values.min() < low + 0.01 * high
        assert high - 0.02 * high < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, rel=0.02)
    assert layout.flipped.mean(0) == pytest.approx((0.5, 0.3), abs=0.04)
    assert np.bincount(layout.pictures[of_four][:, 1]).min() > 550  # partners are drawn from all


def test_a_sample_depends_on_seed_epoch_and_index_alone(store: PixelStore) -> None:
    together = draw_layout(store, LIVELY, 1, 2, np.array([4, 0, 3]))
    alone = draw_layout(store, LIVELY, 1, 2, np.array([3]))
    assert torch.equal(render(store, together)[2:], render(store, alone))
    for seed, epoch in ((2, 2), (1, 3)):
        assert not np.array_equal(draw_layout(store, LIVELY, seed, epoch, np.array([3])).matrix, alone.matrix)


def test_what_it_cannot_do_is_told() -> None:
    plain = {"mixup": 0.0, "cutmix": 0.0, "copy_paste": 0.0, "perspective": 0.0}
    assert supported(SimpleNamespace(**plain))
    for name in plain:
        assert not supported(SimpleNamespace(**{**plain, name: 0.1}))
