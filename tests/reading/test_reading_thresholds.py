import json
from pathlib import Path

import numpy as np
import pytest

from ray_jobs.errors import BadInput, WeightsError
from ray_jobs.reading.thresholds import class_thresholds, load_thresholds, parse_override, save_thresholds

NAMES = ("Mass", "Nodule")


@pytest.mark.parametrize(
    ("stored", "override", "expected"),
    [
        ({}, None, [0.25, 0.25]),
        ({"Nodule": 0.4}, None, [0.25, 0.4]),
        ({"Nodule": 0.4}, 0.1, [0.1, 0.1]),
        ({"Nodule": 0.4}, {"Mass": 0.0}, [0.0, 0.4]),
    ],
)
def test_a_person_goes_before_the_file_and_the_file_before_the_default(stored, override, expected) -> None:
    assert np.allclose(class_thresholds(NAMES, stored, override), expected)


def test_overrides_that_do_not_fit_are_all_named() -> None:
    with pytest.raises(BadInput) as error:
        class_thresholds(NAMES, {}, {"Blob": 0.1, "Mass": 7})
    assert len(error.value.problems) == 2
    assert "Mass, Nodule" in error.value.problems[0]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [([], None), (["0.3"], 0.3), (["Mass=0.3", "a=b=0"], {"Mass": 0.3, "a=b": 0.0})],
)
def test_the_command_line_is_understood(texts: list[str], expected: object) -> None:
    assert parse_override(texts) == expected


@pytest.mark.parametrize("texts", [["high"], ["nan"], ["Mass=1.5"], ["-0.1"], ["0.1", "0.2"], ["0.1", "Mass=0.2"]])
def test_what_is_no_threshold_is_refused(texts: list[str]) -> None:
    with pytest.raises(BadInput, match="threshold"):
        parse_override(texts)


def test_they_lie_beside_the_weights(tmp_path: Path) -> None:
    weights = tmp_path / "best.pt"
    assert load_thresholds(weights) == {}
    save_thresholds({"Mass": 0.3}, tmp_path / "thresholds.json")
    assert load_thresholds(weights) == {"Mass": 0.3}


@pytest.mark.parametrize("text", ["{", "[0.5]", json.dumps({"Mass": "high"}), json.dumps({"Mass": 2})])
def test_a_file_that_does_not_fit_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "thresholds.json").write_text(text)
    with pytest.raises(WeightsError, match=r"thresholds\.json"):
        load_thresholds(tmp_path / "best.pt")
