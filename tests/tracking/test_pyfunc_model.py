"""What the registered model takes as images."""

import numpy as np
import pytest

from ray_jobs.reading.reader import Reader
from ray_jobs.tracking.pyfunc_model import XrayDetector, _load_pyfunc, split_images

WHITE = np.full((50, 40), 255, np.uint8)


@pytest.mark.parametrize(
    ("given", "shapes"),
    [
        (np.zeros((5, 6), np.uint8), [(5, 6)]),
        (np.zeros((5, 6, 1), np.uint8), [(5, 6, 1)]),
        (np.zeros((5, 6, 3), np.uint8), [(5, 6, 3)]),
        (np.zeros((2, 5, 6), np.uint16), [(5, 6)] * 2),
        (np.zeros((2, 5, 6, 3), np.uint8), [(5, 6, 3)] * 2),
        ([np.zeros((5, 6), np.uint8), np.zeros((7, 8, 3), np.uint8)], [(5, 6), (7, 8, 3)]),
        ([[0, 1], [2, 3]], [(2, 2)]),
    ],
)
def test_one_image_or_several(given: object, shapes: list[tuple[int, ...]]) -> None:
    assert [image.shape for image in split_images(given)] == shapes


@pytest.mark.parametrize(("top", "dtype"), [(255, np.uint8), (4095, np.uint16), (10**6, np.int64)])
def test_numbers_from_json_become_the_pixels_they_stand_for(top: int, dtype: type) -> None:
    (image,) = split_images([[0, top], [top, 0]])
    assert image.dtype == dtype
    assert image.max() == top


@pytest.mark.parametrize("given", [np.zeros(5), np.zeros((1, 2, 3, 4, 5)), 3])
def test_what_is_no_image_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match="expected an image"):
        split_images(given)


def test_each_image_gets_its_own_findings(tiny_onnx) -> None:
    white, black = XrayDetector(Reader(tiny_onnx)).predict([WHITE, np.zeros_like(WHITE)])
    assert [finding["label"] for finding in white] == ["Nodule"]
    assert black == []


def test_a_threshold_may_be_given_at_loading(tiny_onnx) -> None:
    gray = np.full((64, 64), 100, np.uint8)
    assert _load_pyfunc(str(tiny_onnx), {"threshold": 0.1, "iou": None}).predict(gray) != [[]]
    assert _load_pyfunc(str(tiny_onnx), {"threshold": 0.9, "iou": None}).predict(gray) == [[]]
