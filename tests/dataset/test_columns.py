"""Lists in columns behave as the lists that they stand for."""

import pickle

import numpy as np
import pytest

from ray_jobs.dataset.columns import Texts, check_ends

NAMES = ["images/a.png", "", "ä", "lone \udcff byte", "images/b c.png"]


def test_texts_come_back_as_they_were() -> None:
    texts = Texts.of(iter(NAMES))
    assert list(texts) == NAMES
    assert (len(texts), texts[-1], texts[1]) == (5, "images/b c.png", "")
    assert list(Texts.of([])) == []
    with pytest.raises(IndexError):
        texts[5]


def test_a_slice_is_a_list_of_its_own_over_the_same_columns() -> None:
    texts = Texts.of(NAMES)
    part = texts[1:4]
    assert (list(part), list(part[1:]), list(texts[::-2])) == (NAMES[1:4], NAMES[2:4], NAMES[::-2])
    assert part.encoded is texts.encoded
    assert list(pickle.loads(pickle.dumps(part))) == NAMES[1:4]


@pytest.mark.parametrize(("ends", "length"), [([1, 3], 4), ([3, 1], 1), ([-1, 2], 2), ([], 1), ([[1]], 1)])
def test_columns_that_do_not_fit_are_refused(ends: list[int], length: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        check_ends(np.array(ends, np.int64), length)
    check_ends(np.array([0, 2, 2], np.int64), 2)
    check_ends(np.array([], np.int64), 0)
