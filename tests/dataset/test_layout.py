"""Where the label of an image lies, by the rule of Ultralytics."""

from pathlib import Path

import pytest

from ray_jobs.dataset.description import read_description
from ray_jobs.dataset.layout import label_path, read_layout
from tests.dataset.conftest import SmallDataset


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("/d/images/train/a.png", "/d/labels/train/a.txt"),
        ("/images/d/images/a.b.jpg", "/images/d/labels/a.b.txt"),
        ("/d/train/a.png", "/d/train/a.txt"),
        ("/d/images.old/a.png", "/d/images.old/a.txt"),
    ],
)
def test_label_path(image: str, label: str) -> None:
    assert label_path(Path(image)) == Path(label)


def test_links_are_followed_once_and_names_are_relative(dataset: SmallDataset) -> None:
    (dataset.root / "images/train/loop").symlink_to(dataset.root / "images/train", target_is_directory=True)
    layout = read_layout(read_description(dataset.yaml))
    assert [file.name for file in layout.images["train"]] == ["images/train/p0_0.png", "images/train/p0_1.png"]
    assert layout.labels_without_images == ()
