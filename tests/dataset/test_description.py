"""Reading data.yaml: what it may say, and what is said about what it may not."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ray_jobs.dataset.description import DataDescription, read_description
from ray_jobs.errors import DataError


def _read(folder: Path, text: str | bytes) -> DataDescription:
    for split in ("train", "val", "test"):
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
    path = folder / "data.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_description(path)


SPLITS = "train: images/train\nval: images/val\n"


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "images" / "val").mkdir()
    path = tmp_path / "config" / "data.yaml"
    path.write_text(f"path: ..\n{SPLITS}names: {{0: Nodule, 1: Mass}}\nnc: 2\n")
    description = read_description(path)
    assert description.root == tmp_path
    assert description.names == ("Nodule", "Mass")
    assert description.splits == {"train": (tmp_path / "images/train",), "val": (tmp_path / "images/val",)}
    assert description.dropped_class is None
    assert description.notices == ()


def test_a_split_may_be_several_folders_or_a_list(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("images/train/a.png\n")
    description = _read(tmp_path, "train: train.txt\nval: [images/val, images/test]\nnames: [Mass]\n")
    assert description.splits["train"] == (tmp_path / "train.txt",)
    assert description.splits["val"] == (tmp_path / "images/val", tmp_path / "images/test")


@pytest.mark.parametrize("name", ["No finding", "no findings", "NO_FINDING", "No-Findings", "nofinding"])
def test_no_finding_is_dropped_and_the_classes_behind_it_move_up(tmp_path: Path, name: str) -> None:
    description = _read(tmp_path, f"{SPLITS}nc: 3\nnames: [Nodule, {name}, Mass]\n")
    assert description.names == ("Nodule", "Mass")
    assert description.dropped_class == 1
    assert [description.class_id(number) for number in range(3)] == [0, None, 1]
    assert description.label_class_count == 3


def test_unused_keys_are_told(tmp_path: Path) -> None:
    description = _read(tmp_path, f"{SPLITS}names: [Mass]\nchannels: 1\ndownload: https://example.org\n")
    assert len(description.notices) == 1
    assert "download: is not used" in description.notices[0]


def test_all_problems_come_at_once_with_their_lines(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _read(tmp_path, "train: images/nowhere\nnc: 7\nnames: [a, b, c, d, e, f, g, a]\n")
    nc, double, train, val = caught.value.problems
    assert "data.yaml:2: nc: says 7, but names lists 8" in nc
    assert "data.yaml:3: names: 'a' is there 2 times" in double
    assert "data.yaml:1: train: no such folder" in train
    assert "data.yaml: val: missing" in val


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "train: missing"),
        ("[1, 2]", "must hold `key: value` lines"),
        (SPLITS, "names: missing"),
        (SPLITS + "names: Mass", "must be a list"),
        (SPLITS + "names: []", "names no finding at all"),
        (SPLITS + "names: [No finding]", "names no finding at all"),
        (SPLITS + "names: [Mass, no finding, No findings]", "mean the same"),
        (SPLITS + "names: {0: Mass, 2: Nodule}", "without gaps"),
        (SPLITS + "names: [Mass, null]", "each name must be text, got None"),
        (SPLITS + "names: [Mass]\nnc: two", "must be the number of classes, got 'two'"),
        (SPLITS + "names: [Mass]\npath: nowhere", "path: no such folder"),
        (SPLITS + "names: [Mass]\npath: [a]", "path: must be a folder"),
        (SPLITS + "names: [Mass]\ntest: 3", "test: must be a folder, a list"),
        (SPLITS + "names: [Mass]\ntest: data.yaml", "must be a folder or a .txt file"),
        (SPLITS + "names: [Mass", "not valid YAML"),
    ],
)
def test_wrong_files_say_why(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        _read(tmp_path, text)
    assert message in str(caught.value)
    assert "data.yaml" in str(caught.value)


def test_a_syntax_error_shows_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.yaml:3: .*\n    names: \[Mass"):
        _read(tmp_path, SPLITS + "names: [Mass: :\n")


def test_a_missing_file_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.yaml: no such file"):
        read_description(tmp_path / "none.yaml")


_WORDS = [
    "train",
    "val",
    "names",
    "nc",
    "path",
    "0",
    "1",
    "a",
    "No finding",
    "images/train",
    "..",
    "~x",
    "1e999",
    ".nan",
]
_MARKS = [":", ": ", "\n", "- ", "[", "]", "{", "}", "&a ", "*a", "<<", "|", "?", "!!int ", "!!bool ", "!!timestamp "]
_ESCAPES = ['"\\0"', '"\\ud800"']
_YAML_PIECES = st.sampled_from(_WORDS + _MARKS + _ESCAPES)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.one_of(st.binary(max_size=80), st.lists(_YAML_PIECES, max_size=25).map(lambda pieces: "".join(pieces))))
def test_any_bytes_give_a_description_or_our_error(tmp_path: Path, text: bytes | str) -> None:
    try:
        description = _read(tmp_path, text)
    except DataError:
        return
    assert description.names
