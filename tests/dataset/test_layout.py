"""Where the label of an image lies, by the rule of Ultralytics."""

from pathlib import Path

import pytest
import yaml

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


def test_files_outside_of_the_root_count_once_whatever_names_them(dataset: SmallDataset, tmp_path: Path) -> None:
    away = tmp_path / "away" / "images"
    away.mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (away / name).write_bytes((dataset.root / "images/train/p0_0.png").read_bytes())
    (tmp_path / "away" / "list.txt").write_text(f"{away}/a.png\n./images/b.png\n{away}/b.png\n")
    sources = ["images/train", str(away), str(tmp_path / "away" / "list.txt")]
    dataset.describe(yaml.safe_dump({"train": sources, "val": "images/val", "names": ["Nodule", "Effusion"]}))
    files = read_layout(read_description(dataset.yaml)).images["train"]
    inside = ["images/train/p0_0.png", "images/train/p0_1.png"]
    assert [file.name for file in files] == ["a.png", "b.png", *inside]
    assert [file.image for file in files] == [away / "a.png", away / "b.png", *(dataset.root / name for name in inside)]
    assert files[0].label == tmp_path / "away" / "labels" / "a.txt"
    assert {file.split for file in files} == {"train"}


def test_a_list_names_no_file_beyond_a_zero(dataset: SmallDataset) -> None:
    listed = [f"images/train/p0_{name}.png" for name in ("0\0", "0\0/p0_1", "1")]
    (dataset.root / "list.txt").write_text("\n".join(listed))
    dataset.describe("train: list.txt\nval: images/val\nnames: [Nodule, Effusion]\n")
    files = read_layout(read_description(dataset.yaml)).images["train"]
    assert [str(file.image) for file in files] == [f"{dataset.root}/{name}" for name in sorted(listed)]
