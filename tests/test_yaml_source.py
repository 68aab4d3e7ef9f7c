"""YAML for people: mistakes are shown where they stand."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.errors import BadInput, SettingsError
from ray_jobs.yaml_source import parse_scalar, read_yaml


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_values_and_lines(tmp_path: Path) -> None:
    source = read_yaml(write(tmp_path, "a: 1\n\nsection:\n  b: [x]\n"))
    assert source.values == {"a": 1, "section": {"b": ["x"]}}
    assert source.place(("section", "b")) == f"{source.path}:4: section.b"
    assert source.place(("missing",)) == f"{source.path}: missing"


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("5E2", 500.0), ("-2.5", -2.5), ("1", 1), ("x", "x")])
def test_numbers_are_read_as_people_write_them(text: str, value: object) -> None:
    assert parse_scalar(text) == value
    assert type(parse_scalar(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2\n", r"file\.yaml:2: not valid YAML: .*\n    b: 2\n"),
        ("a: 1\na: 2\n", r"file\.yaml:2: a: given twice"),
        ("- 1\n", r"file\.yaml: must hold `key: value` lines, got list"),
        (b"\xff\xfe\x00", r"file\.yaml: cannot be read"),
        ("a: !!python/object:os.system x\n", r"file\.yaml:1: not valid YAML"),
        ("a: !!bool x\n", r"file\.yaml: not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_yaml(write(tmp_path, text), SettingsError)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.yaml: no such file"):
        read_yaml(tmp_path / "none.yaml")


@given(data=st.binary(max_size=200))
def test_any_bytes_give_values_or_our_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = write(tmp_path_factory.mktemp("yaml"), data)
    try:
        values = read_yaml(path).values
    except BadInput as error:
        values = {"error": str(error)}
    assert isinstance(values, dict)
    assert str(path) in values.get("error", str(path))
