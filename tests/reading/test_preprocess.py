import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.detector.process import quiet_ultralytics
from ray_jobs.reading.preprocess import letterbox

sides = st.integers(1, 300)


@pytest.mark.parametrize(
    ("height", "width"), [(96, 96), (320, 320), (1, 300), (300, 1), (97, 131), (131, 97), (50, 40), (211, 400)]
)
def test_pixels_equal_those_of_ultralytics(height: int, width: int) -> None:
    quiet_ultralytics()
    from ultralytics.data.augment import LetterBox

    gray = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    expected = LetterBox((96, 96), auto=False, center=True)(image=np.repeat(gray[..., None], 3, axis=2))
    pixels, _ = letterbox(gray, 96)
    assert pixels.shape == (3, 96, 96)
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels, expected.transpose(2, 0, 1).astype(np.float32) / 255)


@given(height=sides, width=sides)
@settings(max_examples=50, deadline=None)
def test_boxes_return_as_ultralytics_returns_them(height: int, width: int) -> None:
    quiet_ultralytics()
    from ultralytics.utils.ops import scale_boxes

    _, placement = letterbox(np.zeros((height, width), np.uint8), 96)
    boxes = np.array([[0, 0, 96, 96], [10, 20, 30, 40], [-5, 3, 120, 50]], dtype=np.float32)
    expected = scale_boxes((96, 96), boxes.copy(), (height, width))
    assert np.allclose(placement.to_original(boxes), expected, rtol=1e-5, atol=1e-3)


def test_the_whole_picture_covers_its_part_of_the_input() -> None:
    _, placement = letterbox(np.zeros((50, 100), np.uint8), 64)
    assert (placement.left, placement.top) == (0, 16)
    corners = np.array([[0, 16, 64, 48]], dtype=np.float32)
    assert placement.to_original(corners).tolist() == [[0, 0, 100, 50]]


def test_only_clipping_keeps_boxes_inside() -> None:
    _, placement = letterbox(np.zeros((64, 64), np.uint8), 64)
    box = np.array([[-4, 10, 70, 20]], dtype=np.float32)
    assert placement.to_original(box).tolist() == [[0, 10, 64, 20]]
    assert placement.to_original(box, clip=False).tolist() == [[-4, 10, 70, 20]]


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4)), np.zeros((0, 4), np.uint8)])
def test_what_is_no_gray_picture_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="gray uint8"):
        letterbox(bad, 64)
