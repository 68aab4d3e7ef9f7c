from pathlib import Path

import numpy as np
import pytest
from small_detector import draw_picture, small_detector

from ray_jobs.detector.process import quiet_ultralytics
from ray_jobs.reading.decode import Detections, candidates, decode, suppress
from ray_jobs.reading.preprocess import letterbox
from ray_jobs.reading.reader import Reader


def random_output(seed: int, batch: int, classes: int, anchors: int) -> np.ndarray:
    """A head's output with clustered boxes, so that suppression has work to do."""
    random = np.random.default_rng(seed)
    centres = random.uniform(40, 280, (batch, 2, anchors // 20 + 1)).repeat(20, axis=2)[:, :, :anchors]
    centres += random.normal(0, 4, centres.shape)
    sizes = random.uniform(30, 60, (batch, 2, anchors))
    scores = random.uniform(0, 1, (batch, classes, anchors)) ** 3
    return np.concatenate([centres, sizes, scores], axis=1).astype(np.float32)


def assert_equals_ultralytics(output: np.ndarray, conf: float, iou: float, multi_label: bool) -> int:
    quiet_ultralytics()
    import torch
    import torchvision  # noqa: F401 - Ultralytics takes its NMS where it is imported
    from ultralytics.utils.nms import non_max_suppression

    # A copy, because Ultralytics changes its input; and time without limit on a busy machine.
    expected = non_max_suppression(
        torch.from_numpy(output.copy()), conf, iou, multi_label=multi_label, max_time_img=60.0
    )
    found = decode(output, conf, iou, multi_label)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) == len(theirs)
        assert np.allclose(ours.boxes, theirs[:, :4].numpy(), atol=1e-4)
        assert np.array_equal(ours.scores, theirs[:, 4].numpy())
        assert np.array_equal(ours.classes, theirs[:, 5].numpy())
    return sum(map(len, found))


@pytest.mark.parametrize("multi_label", [True, False])
@pytest.mark.parametrize("iou", [0.45, 0.7])
@pytest.mark.parametrize("conf", [0.001, 0.25])
@pytest.mark.parametrize("classes", [1, 3, 8])
def test_random_outputs_decode_as_in_ultralytics(classes: int, conf: float, iou: float, multi_label: bool) -> None:
    output = random_output(classes, 2, classes, 400)
    assert assert_equals_ultralytics(output, conf, iou, multi_label) > 10


def test_the_number_of_boxes_is_limited_as_in_ultralytics() -> None:
    output = random_output(7, 1, 8, 2100)
    assert assert_equals_ultralytics(output, 0.001, 0.7, True) == 300


@pytest.mark.parametrize(("conf", "multi_label"), [(0.001, True), (0.25, False)])
def test_real_outputs_decode_as_in_ultralytics(conf: float, multi_label: bool) -> None:
    reader = Reader(small_detector() / "best.onnx", threads=1)
    pictures = [letterbox(draw_picture(seed)[0], reader.image_size)[0] for seed in range(50, 58)]
    assert assert_equals_ultralytics(reader.forward(np.stack(pictures)), conf, 0.7, multi_label) >= 8


def test_only_boxes_of_the_same_class_suppress_each_other() -> None:
    box = [10.0, 10.0, 50.0, 50.0]
    same = Detections(np.array([box, box], np.float32), np.array([0.4, 0.9], np.float32), np.array([1, 1]))
    other = Detections(same.boxes, same.scores, np.array([0, 1]))
    assert suppress(same, 0.7).scores.tolist() == [np.float32(0.9)]
    assert suppress(other, 0.7).classes.tolist() == [1, 0]


def test_each_class_has_its_own_threshold() -> None:
    output = np.array([[20, 60], [20, 60], [10, 10], [10, 10], [0.6, 0.6], [0.5, 0.1]], dtype=np.float32)
    found = candidates(output, np.array([0.8, 0.3], dtype=np.float32))
    assert found.classes.tolist() == [1]
    assert found.boxes.tolist() == [[15, 15, 25, 25]]


def test_nothing_above_the_threshold_is_no_box() -> None:
    (found,) = decode(np.zeros((1, 6, 30), np.float32), 0.25, 0.7)
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == found.classes.shape == (0,)


def test_the_room_needs_no_heavy_neighbour() -> None:
    import subprocess
    import sys

    code = (
        "import sys; import ray_jobs.reading.reader, ray_jobs.reading.drawing;"
        "print(sorted({'torch', 'ultralytics', 'ray', 'mlflow'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
