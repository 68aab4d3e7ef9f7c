"""Mixing new and old images: who goes where, always the same way, and never from test into train."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ray_jobs.dataset.check import check_dataset
from ray_jobs.dataset.description import DataDescription, read_description
from ray_jobs.dataset.mixture import Mixture, mix
from ray_jobs.errors import DataError

NAMES = ["Mass", "Nodule"]


def make_set(folder: Path, names: list[str] = NAMES, **splits: list[str]) -> DataDescription:
    """A data set whose splits list ``PICTURE`` or ``PICTURE=FILE``: the same picture is the same number everywhere."""
    for split, entries in splits.items():
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for entry in entries:
            number, _, name = entry.partition("=")
            name = name or f"p{number}"
            pixels = np.random.default_rng(int(number)).integers(0, 255, (64, 64), dtype=np.uint8)
            cv2.imwrite(str(folder / "images" / split / f"{name}.png"), pixels)
            (folder / "labels" / split / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    lines = [f"{split}: images/{split}" for split in splits]
    (folder / "data.yaml").write_text("\n".join([*lines, f"names: {names}"]) + "\n")
    return read_description(folder / "data.yaml", required=("train",))


def listed(mixture: Mixture, split: str) -> list[str]:
    """``set/name`` of each image of a split."""
    text = (mixture.data_yaml.parent / f"{split}.txt").read_text()
    return [f"{Path(line).parents[2].name}/{Path(line).stem}" for line in text.splitlines()]


@pytest.fixture
def old(tmp_path: Path) -> DataDescription:
    return make_set(
        tmp_path / "old", train=[str(n) for n in range(20)], val=["30", "31", "32"], test=["40", "41", "42"]
    )


def test_val_and_test_are_those_of_the_old_data_and_the_mixture_passes_the_check(
    tmp_path: Path, old: DataDescription
) -> None:
    new = make_set(tmp_path / "new", train=["50", "51", "52", "53"])
    mixture = mix(new, old, tmp_path / "mixed", replay=0.3)
    assert (mixture.new, mixture.old) == ({"train": 4, "val": 0, "test": 0}, {"train": 6, "val": 3, "test": 3})
    assert listed(mixture, "test") == ["old/p40", "old/p41", "old/p42"]
    assert listed(mixture, "train")[:4] == ["new/p50", "new/p51", "new/p52", "new/p53"]
    assert len(set(listed(mixture, "train"))) == 10
    report = check_dataset(read_description(mixture.data_yaml), show_progress=False)
    assert report.errors == ()
    assert report.counts["train"].images == 10
    assert report.counts["train"].boxes == 10


def test_the_choice_is_the_same_again_and_another_with_another_seed(tmp_path: Path, old: DataDescription) -> None:
    new = make_set(tmp_path / "new", train=["50"])
    chosen = [listed(mix(new, old, tmp_path / f"m{n}", seed=seed), "train") for n, seed in enumerate((0, 0, 1))]
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]
    more = make_set(tmp_path / "more", train=["50", "51", "52"])  # what is new has no say in what is replayed
    assert [name for name in listed(mix(more, old, tmp_path / "m3"), "train") if name.startswith("old/")] == chosen[0][
        1:
    ]


@pytest.mark.parametrize(("replay", "count"), [(0.0, 0), (1.0, 20), (0.5, 10)])
def test_the_share_is_that_of_the_old_training_images(
    tmp_path: Path, old: DataDescription, replay: float, count: int
) -> None:
    new = make_set(tmp_path / "new", train=["50"])
    assert mix(new, old, tmp_path / "mixed", replay=replay).old["train"] == count


def test_a_picture_that_is_in_both_comes_once_with_its_new_labels(tmp_path: Path, old: DataDescription) -> None:
    new = make_set(tmp_path / "new", train=["3=again", "50", "50=copy"])
    mixture = mix(new, old, tmp_path / "mixed", replay=1.0)
    train = listed(mixture, "train")
    assert "new/again" in train
    assert "old/p3" not in train
    assert len([name for name in train if name.startswith("new/")]) == 2


def test_what_is_held_out_is_never_learned(tmp_path: Path, old: DataDescription) -> None:
    new = make_set(
        tmp_path / "new", train=["40=leak", "31=leak2", "50"], test=["5=known", "60"], val=["41=elsewhere", "61"]
    )
    mixture = mix(new, old, tmp_path / "mixed")
    assert [name for name in listed(mixture, "train") if name.startswith("new/")] == ["new/p50"]
    assert listed(mixture, "test") == ["old/p40", "old/p41", "old/p42", "new/p60"]
    assert listed(mixture, "val") == ["old/p30", "old/p31", "old/p32", "new/p61"]
    assert sum(int(notice.split()[0]) for notice in mixture.notices) == 4


def test_a_patient_of_the_test_split_is_never_learned_from(tmp_path: Path) -> None:
    old = make_set(tmp_path / "old", train=["1=a_1", "2=b_1"], val=["3=c_1"], test=["4=d_1"])
    new = make_set(tmp_path / "new", train=["5=d_2", "6=c_2", "7=e_1", "8=a_2"], test=["9=a_3", "10=f_1"])
    mixture = mix(new, old, tmp_path / "mixed", replay=1.0, patient_id_pattern=r"^([a-z])_")
    assert listed(mixture, "train") == ["new/a_2", "new/e_1", "old/a_1", "old/b_1"]
    assert listed(mixture, "test") == ["old/d_1", "new/f_1"]


def test_other_classes_are_refused_with_both_lists(tmp_path: Path, old: DataDescription) -> None:
    new = make_set(tmp_path / "new", names=["Nodule", "Mass"], train=["50"])
    with pytest.raises(DataError, match=r"same order:\n    here: Nodule, Mass\n    .*: Mass, Nodule"):
        mix(new, old, tmp_path / "mixed")


def test_no_finding_must_have_the_same_number(tmp_path: Path, old: DataDescription) -> None:
    last = make_set(tmp_path / "last", names=["Mass", "Nodule", "No finding"], train=["50"])
    assert read_description(mix(last, old, tmp_path / "mixed").data_yaml).dropped_class == 2
    first = make_set(tmp_path / "first", names=["No finding", "Mass", "Nodule"], train=["50"])
    with pytest.raises(DataError, match="stands elsewhere"):
        mix(first, old, tmp_path / "mixed2")


def test_nothing_new_is_said(tmp_path: Path, old: DataDescription) -> None:
    new = make_set(tmp_path / "new", train=["40", "41"])
    with pytest.raises(DataError, match=r"no new image is left to learn from\n    2 new images that are in test"):
        mix(new, old, tmp_path / "mixed")


def test_nothing_is_forgotten_over_generations(tmp_path: Path, old: DataDescription) -> None:
    first = mix(make_set(tmp_path / "first", train=["50"]), old, tmp_path / "m1", replay=0.3)
    again = read_description(first.data_yaml)
    not_replayed = sorted(
        {f"p{n}" for n in range(20)} - {name.removeprefix("old/") for name in listed(first, "train")}
    )[0]
    new = make_set(tmp_path / "new", train=["60"], test=[f"{not_replayed[1:]}=known", "50=known2", "70"])
    second = mix(new, again, tmp_path / "m2", replay=1.0)
    assert second.old["train"] == 21  # all of the first training and the new one of the first fine-tuning
    assert listed(second, "test")[-1] == "new/p70"
    assert second.new["test"] == 1
    assert len((tmp_path / "m2" / "all-learned.txt").read_text().splitlines()) == 22


def test_old_images_that_are_gone_are_left_out_and_stay_learned(tmp_path: Path, old: DataDescription) -> None:
    inbox = make_set(tmp_path / "inbox", train=["50", "51"])
    first = mix(inbox, old, tmp_path / "m1", replay=1.0)
    (tmp_path / "inbox" / "images" / "train" / "p50.png").unlink()
    new = make_set(tmp_path / "new", train=["60"], test=["50=known", "70"])
    second = mix(new, read_description(first.data_yaml), tmp_path / "m2", replay=1.0)
    assert "inbox/p50" not in listed(second, "train")
    assert "inbox/p51" in listed(second, "train")
    assert listed(second, "test")[-1] == "new/p70"
    assert second.new["test"] == 1
    assert "1 images that were learned from are gone: they cannot be learned again" in second.notices
    assert check_dataset(read_description(second.data_yaml), show_progress=False).errors == ()


def test_a_name_that_no_list_can_hold_is_left_out(tmp_path: Path, old: DataDescription) -> None:
    new = make_set(tmp_path / "new", train=["50", "51=bad"])
    folder = tmp_path / "new" / "images" / "train"
    (folder / "bad.png").rename(folder / "b\udcffd.png")
    mixture = mix(new, old, tmp_path / "mixed")
    assert mixture.new["train"] == 1
    assert mixture.notices == ("1 images whose names are not UTF-8 or hold a line break: rename them",)
