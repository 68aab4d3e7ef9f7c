"""Reading label files, line by line."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.dataset.description import DataDescription
from ray_jobs.dataset.labels import EDGE_TOLERANCE, parse_labels
from ray_jobs.dataset.report import KINDS

TWO = DataDescription(Path("data.yaml"), Path(), ("Nodule", "Mass"), {})
WITH_NO_FINDING = DataDescription(Path("data.yaml"), Path(), ("Nodule", "Mass"), {}, dropped_class=1)


def test_boxes_are_read_in_order() -> None:
    labels = parse_labels(b"\xef\xbb\xbf1 0.5 0.5 0.25 0.5\r\n\r\n0.0 0.1 0.2 0.1 0.1\n", TWO)
    expected = np.array([[1, 0.5, 0.5, 0.25, 0.5], [0, 0.1, 0.2, 0.1, 0.1]], np.float32)
    np.testing.assert_array_equal(labels.boxes, expected)
    assert labels.boxes.dtype == np.float32
    assert labels.problems == ()


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("0 0.5 0.5 0.1", "label_columns", "has 4 columns, needs 5"),
        ("0 0.5 0.5 0.1 0.1 0.9", "label_columns", "is the sixth a confidence?"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2", "segment_labels", "polygon of 3 points"),
        ("0 0.5 0.5 nan 0.1", "label_numbers", "nan is no finite number"),
        ("0 0.5 inf 0.1 0.1", "label_numbers", "inf is no finite number"),
        ("Mass 0.5 0.5 0.1 0.1", "label_numbers", "Mass is no finite number"),
        ("0,0.5,0.5,0.1,0.1", "label_columns", "has 1 columns"),
        ("2 0.5 0.5 0.1 0.1", "label_class", "class 2 is none of 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "label_class", "class -1 is none of 0 to 1"),
        ("0.5 0.5 0.5 0.1 0.1", "label_class", "class 0.5 is none"),
        ("0 0.5 0.5 0 0.1", "label_box_size", "0 wide and 0.1 high"),
        ("0 0.5 0.5 0.1 -0.1", "label_box_size", "-0.1 high"),
        ("0 1.2 0.5 0.1 0.1", "label_box_outside", "right 1.25"),
        ("0 0.04 0.5 0.1 0.1", "label_box_outside", "left -0.01"),
        ("0 300 200 50 50", "label_box_outside", "look like pixels"),
    ],
)
def test_each_wrong_line_is_named(line: str, kind: str, message: str) -> None:
    labels = parse_labels(f"1 0.5 0.5 0.2 0.2\n{line}\n".encode(), TWO)
    (problem,) = labels.problems
    assert (problem.kind, problem.line) == (kind, 2)
    assert message in problem.message
    assert len(labels.boxes) == 1, "the right line is still read"


def test_a_second_equal_line_is_a_duplicate() -> None:
    labels = parse_labels(b"0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1 0.1\n0 0.50 0.5 0.1 0.1\n", TWO)
    (problem,) = labels.problems
    assert (problem.kind, problem.line, problem.message) == ("label_duplicates", 3, "is the same box as line 1")
    assert len(labels.boxes) == 2


def test_edges_outside_by_rounding_are_moved_onto_the_border() -> None:
    labels = parse_labels(f"0 0.1 0.5 {0.2 + EDGE_TOLERANCE} 1.0001".encode(), TWO)
    assert labels.problems == ()
    _, x, y, width, height = labels.boxes[0].tolist()
    assert x - width / 2 == pytest.approx(0, abs=1e-7)
    assert x + width / 2 == pytest.approx(0.2 + EDGE_TOLERANCE / 2)
    assert (y, height) == pytest.approx((0.5, 1))


def test_no_finding_leaves_no_box_whatever_stands_behind_it() -> None:
    labels = parse_labels(b"1 nan nan 0 0\n1\n2 0.5 0.5 0.1 0.1\n", WITH_NO_FINDING)
    assert labels.no_finding == 2
    assert labels.problems == ()
    assert labels.boxes[:, 0].tolist() == [1], "class 2 of the file is class 1 of the detector"


def test_bytes_that_are_no_text_are_one_problem() -> None:
    (problem,) = parse_labels(b"\xff\xfe\x00", TWO).problems
    assert problem.kind == "unreadable_labels"


_COLUMNS = st.one_of(
    st.sampled_from(["0", "1", "2", "0.5", "1e-50", "1e999", "-0.0", "nan", "1_0", "x", "\u0663"]),
    st.floats().map(repr),
)


@given(
    st.one_of(
        st.binary(max_size=100),
        st.lists(st.lists(_COLUMNS, min_size=4, max_size=7).map(" ".join), max_size=5).map(
            lambda x: "\n".join(x).encode()
        ),
    ),
    st.sampled_from([TWO, WITH_NO_FINDING]),
)
def test_any_bytes_give_boxes_within_the_image_or_named_problems(data: bytes, description: DataDescription) -> None:
    labels = parse_labels(data, description)
    assert all(problem.kind in KINDS and problem.message for problem in labels.problems)
    boxes = labels.boxes.astype(np.float64)
    assert np.isin(boxes[:, 0], [0, 1]).all()
    assert (boxes[:, 3:] > 0).all()
    assert (boxes[:, 1:3] - boxes[:, 3:] / 2 > -1e-6).all()
    assert (boxes[:, 1:3] + boxes[:, 3:] / 2 < 1 + 1e-6).all()
