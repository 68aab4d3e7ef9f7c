"""The mosaic of labelled X-rays."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ray_jobs.dataset.check import check_dataset
from ray_jobs.dataset.description import read_description
from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.dataset.pictures import choose_samples, class_colour, draw_sample_boxes
from ray_jobs.dataset.samples import Sample
from ray_jobs.errors import DataError
from tests.dataset.conftest import SmallDataset


def _samples(*classes: int | None) -> list[Sample]:
    return [
        Sample(Path(str(number)), 1, 1, np.array([[c, 0.5, 0.5, 0.1, 0.1]] if c is not None else []).reshape(-1, 5))
        for number, c in enumerate(classes)
    ]


def test_the_choice_covers_rare_classes_and_background() -> None:
    samples = _samples(*[0] * 50, 1, None, 2)
    chosen = choose_samples(samples, classes=3, count=5)
    held = [int(sample.boxes[0, 0]) if len(sample.boxes) else None for sample in chosen]
    assert held == [0, 1, 2, None, 0]
    assert [s.image for s in chosen] == [s.image for s in choose_samples(samples, classes=3, count=5)]
    assert len(choose_samples(samples, classes=3, count=999)) == 53


def test_boxes_are_drawn_where_they_are(dataset: SmallDataset, tmp_path: Path) -> None:
    index = check_dataset(read_description(dataset.yaml), show_progress=False).index
    path = draw_sample_boxes(index, "train", tmp_path / "out" / "samples.png", count=1)
    picture = np.asarray(Image.open(path)).astype(int)
    sample = choose_samples(index.splits["train"], 2, 1)[0]
    class_id, x, y, width, _ = sample.boxes[0].tolist()
    scale = picture.shape[1] / sample.width
    column, row = (x - width / 2) * picture.shape[1], picture.shape[0] / 2 + (y - 0.5) * sample.height * scale
    assert np.abs(picture[round(row), round(column)] - class_colour(int(class_id))).max() <= 2


def test_real_xrays_make_a_picture(xrays_mini: Path, tmp_path: Path) -> None:
    index = check_dataset(read_description(xrays_mini / "data.yaml"), show_progress=False).index
    with Image.open(draw_sample_boxes(index, "val", tmp_path / "samples.jpg")) as picture:
        assert picture.width == picture.height > 1000


def test_a_split_without_images_is_refused(tmp_path: Path) -> None:
    index = DatasetIndex(tmp_path, ("Mass",), {"train": ()}, "")
    with pytest.raises(DataError, match="'train' has no images"):
        draw_sample_boxes(index, "train", tmp_path / "x.png")
