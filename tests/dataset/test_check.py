"""The check of a data set: one thing is spoilt in each test, and it must be named."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from ray_jobs.dataset.check import check_dataset
from ray_jobs.dataset.description import read_description
from ray_jobs.dataset.report import EXAMPLES_PER_KIND, DatasetReport, ProblemGroup
from ray_jobs.errors import DataError
from tests.dataset.conftest import SmallDataset


def _check(dataset: SmallDataset, **options: object) -> DatasetReport:
    return check_dataset(read_description(dataset.yaml), show_progress=False, **options)


def _only(groups: tuple[ProblemGroup, ...]) -> ProblemGroup:
    assert len(groups) == 1, [group.render() for group in groups]
    return groups[0]


def test_a_right_data_set_passes_with_its_counts(dataset: SmallDataset) -> None:
    report = _check(dataset)
    assert (report.errors, report.warnings, report.notices) == ((), (), ())
    report.raise_for_errors()
    train = report.counts["train"]
    assert (train.images, train.background, train.unlabelled, train.boxes) == (2, 0, 0, 2)
    assert train.per_class == {"Nodule": 1, "Effusion": 1}
    first = report.index.splits["train"][0]
    assert (first.image, first.height, first.width) == (dataset.image("train/p0_0"), 32, 40)
    np.testing.assert_array_equal(first.boxes, np.array([[0, 0.5, 0.5, 0.25, 0.5]], np.float32))


def test_the_real_xrays_pass(xrays_mini: Path) -> None:
    report = check_dataset(
        read_description(xrays_mini / "data.yaml"), patient_id_pattern=r"^(\d{8})_", show_progress=False
    )
    assert (report.errors, report.warnings, report.notices) == ((), (), ())
    assert {split: (c.images, c.background, c.boxes) for split, c in report.counts.items()} == {
        "train": (54, 10, 54),
        "val": (19, 4, 16),
        "test": (19, 4, 16),
    }
    assert report.counts["train"].per_class["Effusion"] == 10
    assert set(report.counts["test"].per_class.values()) == {2}
    assert len(report.index.names) == 8


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("0 0.5 0.5 0.1", "label_columns", "has 4 columns"),
        ("0 nan 0.5 0.1 0.1", "label_numbers", "nan"),
        ("2 0.5 0.5 0.1 0.1", "label_class", "class 2 is none of 0 to 1"),
        ("0 1.2 0.5 0.1 0.1", "label_box_outside", "leaves the image"),
        ("0 0.5 0.5 0 0.1", "label_box_size", "0 wide"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2", "segment_labels", "polygon"),
    ],
)
def test_a_wrong_label_line_stops_the_job(dataset: SmallDataset, line: str, kind: str, message: str) -> None:
    label = dataset.label("train/p0_1")
    label.write_text(f"1 0.5 0.5 0.25 0.5\n{line}\n")
    group = _only(_check(dataset).errors)
    assert (group.kind, group.count) == (kind, 1)
    assert group.examples[0].startswith(f"{label}:2: ")
    assert message in group.examples[0]


def test_unreadable_images_are_named_and_left_out(dataset: SmallDataset) -> None:
    png = dataset.image("train/p0_0")
    png.write_bytes(png.read_bytes()[:-300])
    text = dataset.image("val/p1_0").with_suffix(".jpg")
    text.write_text("not an image")
    dataset.image("val/p1_1").write_bytes(b"")
    report = _check(dataset)
    group = _only(report.errors)
    assert (group.kind, group.count) == ("unreadable_images", 3)
    shown = group.render()
    assert f"{png}: is cut short" in shown
    assert f"{text}: is no image (it looks like text" in shown
    assert "p1_1.png: is empty" in shown
    assert [sample.image.name for sample in report.index.splits["train"]] == ["p0_1.png"]
    with pytest.raises(DataError, match="has 3 errors:\nunreadable_images"):
        report.raise_for_errors()


def test_a_label_file_that_is_no_text_is_an_error(dataset: SmallDataset) -> None:
    dataset.label("train/p0_0").write_bytes(b"\xff\x00\xff")
    assert _only(_check(dataset).errors).kind == "unreadable_labels"


def test_only_the_first_examples_are_shown(dataset: SmallDataset) -> None:
    dataset.label("train/p0_0").write_text("0 0.5\n" * (EXAMPLES_PER_KIND + 5))
    group = _only(_check(dataset).errors)
    assert (group.count, len(group.examples)) == (EXAMPLES_PER_KIND + 5, EXAMPLES_PER_KIND)
    assert group.render().endswith("and 5 more")


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_split_stops_the_job(dataset: SmallDataset, split: str) -> None:
    shutil.rmtree(dataset.root / "images" / split)
    (dataset.root / "images" / split).mkdir()
    group = _only(_check(dataset).errors)
    assert group.kind == "empty_splits"
    assert group.examples == [f"{split}: no image in {dataset.root / 'images' / split}"]


def test_a_missing_test_split_is_a_warning(dataset: SmallDataset) -> None:
    dataset.describe("train: images/train\nval: images/val\nnames: [Nodule, Effusion]\n")
    report = _check(dataset)
    assert report.errors == ()
    assert _only(report.warnings).kind == "missing_test"
    assert list(report.index.splits) == ["train", "val"]


def test_the_same_picture_in_two_splits_is_found_in_another_file_format(dataset: SmallDataset) -> None:
    import cv2

    pixels = cv2.imread(str(dataset.image("train/p0_0")), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(dataset.image("val/other").with_suffix(".bmp")), pixels)
    group = _only(_check(dataset).errors)
    assert group.kind == "duplicate_images"
    assert "p0_0.png (train)" in group.examples[0]
    assert "other.bmp (val)" in group.examples[0]
    allowed = _check(dataset, allow={"duplicate_images"})
    assert allowed.errors == ()
    assert "duplicate_images (1, allowed)" in _only(allowed.warnings).render()


def test_the_same_picture_twice_in_one_split_is_a_warning(dataset: SmallDataset) -> None:
    shutil.copy(dataset.image("train/p0_0"), dataset.image("train/again"))
    report = _check(dataset)
    assert report.errors == ()
    assert _only(report.warnings).kind == "repeated_images"


def test_repeated_pictures_are_told_group_by_group_in_the_order_of_the_files(dataset: SmallDataset) -> None:
    for first, again in (("p0_1", "x1"), ("p0_0", "x2"), ("p0_1", "x3")):
        shutil.copy(dataset.image(f"train/{first}"), dataset.image(f"train/{again}"))
    for name in ("broken1", "broken2"):
        dataset.image(f"train/{name}").write_bytes(b"no picture")
    repeated = next(group for group in _check(dataset).warnings if group.kind == "repeated_images")
    folder = "images/train"
    assert repeated.examples == [
        f"{folder}/p0_0.png (train), {folder}/x2.png (train)",
        f"{folder}/p0_1.png (train), {folder}/x1.png (train), {folder}/x3.png (train)",
    ]


def test_a_patient_in_two_splits_stops_the_job_unless_allowed(dataset: SmallDataset) -> None:
    dataset.add("val/p0_7", "0 0.5 0.5 0.1 0.1", seed=99)
    assert _check(dataset).errors == (), "without a pattern patients are not known"
    group = _only(_check(dataset, patient_id_pattern=r"^(p\d+)_").errors)
    assert (group.kind, group.examples) == ("shared_patients", ["patient p0: train (2), val (1)"])
    assert _check(dataset, patient_id_pattern=r"^(p\d+)_", allow=["shared_patients"]).errors == ()


def test_a_pattern_that_fits_nothing_is_an_error_and_one_that_fits_some_a_warning(dataset: SmallDataset) -> None:
    assert _only(_check(dataset, patient_id_pattern=r"^\d{8}_").errors).kind == "patient_pattern"
    dataset.add("train/strange", "", seed=50)
    assert _only(_check(dataset, patient_id_pattern=r"^p\d+_").warnings).kind == "unknown_patients"


def test_wrong_arguments_are_refused_together(dataset: SmallDataset) -> None:
    with pytest.raises(DataError) as caught:
        _check(dataset, patient_id_pattern="(", allow=["label_class"])
    assert len(caught.value.problems) == 2
    assert "'label_class' cannot be allowed; one of duplicate_images" in str(caught.value)


def test_duplicate_lines_can_be_allowed_and_count_once(dataset: SmallDataset) -> None:
    dataset.label("train/p0_0").write_text("0 0.5 0.5 0.1 0.1\n" * 2)
    assert _only(_check(dataset).errors).kind == "label_duplicates"
    report = _check(dataset, allow=["label_duplicates"])
    assert report.errors == ()
    assert report.counts["train"].boxes == 2


def test_images_without_labels_are_background(dataset: SmallDataset) -> None:
    dataset.add("train/empty", "", seed=60)
    dataset.add("train/none", None, seed=61)
    report = _check(dataset)
    assert (report.errors, report.warnings) == ((), ())
    assert report.notices == ("images without a label file, counted as background: 1",)
    assert (report.counts["train"].background, report.counts["train"].unlabelled) == (2, 1)


def test_labels_that_all_lie_elsewhere_stop_the_job(dataset: SmallDataset) -> None:
    (dataset.root / "labels").rename(dataset.root / "annotations")
    report = _check(dataset)
    assert _only(report.errors).kind == "no_boxes"
    assert {group.kind for group in report.warnings} == {"unboxed_splits"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("labels/train/lonely.txt", "labels_without_images"),
        ("images/train/scan.dcm", "unread_files"),
        ("labels/train/classes.txt", None),
        ("images/train/.hidden.png", None),
    ],
)
def test_files_left_over_are_warnings(dataset: SmallDataset, name: str, kind: str | None) -> None:
    (dataset.root / name).write_text("0 0.5 0.5 0.1 0.1")
    report = _check(dataset)
    assert report.errors == ()
    assert [group.kind for group in report.warnings] == ([kind] if kind else [])


def test_a_class_that_cannot_be_learned_is_a_warning(dataset: SmallDataset) -> None:
    dataset.label("train/p0_1").write_text("0 0.5 0.5 0.02 0.02\n")
    report = _check(dataset)
    assert {group.kind: group.count for group in report.warnings} == {
        "classes_without_boxes": 1,
        "boxes_under_a_pixel": 1,
    }


def test_two_images_with_one_label_file_are_a_warning(dataset: SmallDataset) -> None:
    dataset.add("train/more", "", seed=70).rename(dataset.image("train/p0_0").with_suffix(".bmp"))
    dataset.label("train/more").unlink()
    assert _only(_check(dataset).warnings).kind == "shared_labels"


def test_deep_images_are_counted_and_told(dataset: SmallDataset) -> None:
    dataset.add("train/deep", "", seed=80, dtype=np.uint16)
    assert _check(dataset).notices == ("images with more than 8 bits, windowed to 8 and not truncated: 1",)


def test_no_finding_makes_background_and_moves_the_classes(dataset: SmallDataset) -> None:
    dataset.describe(dataset.yaml.read_text().replace("[Nodule, Effusion]", "[No finding, Effusion]"))
    report = _check(dataset)
    assert report.errors == ()
    assert report.index.names == ("Effusion",)
    assert (report.counts["train"].background, report.counts["train"].per_class) == (1, {"Effusion": 1})
    assert '"No finding" (class 0 of data.yaml) is no object' in report.notices[0]
    assert report.notices[0].endswith("background: 3")


def test_findings_beside_no_finding_are_kept_with_a_warning(dataset: SmallDataset) -> None:
    dataset.describe(dataset.yaml.read_text().replace("[Nodule, Effusion]", "[No finding, Effusion]"))
    dataset.label("train/p0_0").write_text("0 0 0 0 0\n1 0.5 0.5 0.1 0.1\n")
    report = _check(dataset)
    assert _only(report.warnings).kind == "contradicting_labels"
    assert report.counts["train"].boxes == 2


def test_the_fingerprint_knows_contents_and_not_place_or_time(dataset: SmallDataset, tmp_path: Path) -> None:
    before = _check(dataset).fingerprint
    copy = tmp_path / "copy"
    shutil.copytree(dataset.root, copy)
    for path in copy.rglob("*"):
        os.utime(path, (time.time() - 1e6,) * 2)
    copied = check_dataset(read_description(copy / "data.yaml"), threads=1, show_progress=False)
    assert copied.fingerprint == before

    def changed() -> bool:
        return _check(dataset).fingerprint != before

    label = dataset.label("train/p0_0")
    text = label.read_text()
    label.write_text(text.replace("0.25", "0.26"))
    assert changed()
    label.write_text(text)
    assert not changed()
    dataset.image("test/p2_0").rename(dataset.image("test/p2_9"))
    assert changed()


def test_nothing_is_written_into_the_data_set(dataset: SmallDataset) -> None:
    before = sorted(dataset.root.rglob("*"))
    _check(dataset)
    assert sorted(dataset.root.rglob("*")) == before


def test_a_list_of_images_is_a_split(dataset: SmallDataset) -> None:
    (dataset.root / "val.txt").write_text("./images/val/p1_0.png\n\nimages/val/gone.png\n")
    dataset.describe("train: images/train\nval: val.txt\ntest: images/test\nnames: [Nodule, Effusion]\n")
    report = _check(dataset)
    group = _only(report.errors)
    assert group.kind == "unreadable_images"
    assert "gone.png: no such file" in group.examples[0]
    assert [sample.image for sample in report.index.splits["val"]] == [dataset.image("val/p1_0")]
    assert len(report.index.splits["val"][0].boxes) == 1


def test_progress_is_plain_lines_without_a_terminal(dataset: SmallDataset, capsys: pytest.CaptureFixture[str]) -> None:
    check_dataset(read_description(dataset.yaml))
    assert capsys.readouterr().err == "checking images: 6 of 6, done\n"


def test_the_report_is_made_of_plain_values(dataset: SmallDataset) -> None:
    import json

    dataset.label("train/p0_0").write_text("9 0.5 0.5 0.1 0.1\n")
    report = json.loads(json.dumps(_check(dataset).as_dict()))
    assert report["errors"]["label_class"]["count"] == 1
    assert report["counts"]["val"]["per_class"] == {"Nodule": 1, "Effusion": 1}
