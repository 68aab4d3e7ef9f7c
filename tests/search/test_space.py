"""Spaces as people write them."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.search.space import parse_space


@given(st.integers(0, 2**30))
def test_samples_lie_inside(seed: int) -> None:
    wanted = {
        "a": {"loguniform": [1e-4, 1e-1]},
        "b": {"uniform": [-1, 1]},
        "c": {"randint": [1, 3]},
        "d": {"choice": [1, "x"]},
    }
    space, problems = parse_space(wanted)
    assert not problems
    point = space.sample(random.Random(seed))
    assert all(space.domains[name].holds(value) for name, value in point.items())
    assert isinstance(point["c"], int)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"uniform": [0.1, 0.01]}, r"upside down: \[0.1, 0.01\]; write \[0.01, 0.1\]"),
        ({"loguniform": [0, 1]}, "must begin above 0"),
        ({"uniform": [1, 1]}, "write it as a plain value: 1"),
        ({"uniform": [1]}, "two numbers"),
        ({"uniform": [True, 2]}, "two numbers"),
        ({"randint": [1.5, 3]}, "whole numbers"),
        ({"uniform": [0, float("inf")]}, "finite"),
        ({"choice": []}, "a list of values"),
        ({"choice": [1, 1]}, "twice"),
        ({"normal": [0, 1]}, "unknown kind of values 'normal'"),
        ([1, 2], "must be a value or one of"),
    ],
)
def test_what_cannot_be_searched_is_said(value: object, message: str) -> None:
    _, problems = parse_space({"lr0": value})
    assert len(problems) == 1
    assert problems[0][0] == "lr0"
    assert re.search(message, problems[0][1])
