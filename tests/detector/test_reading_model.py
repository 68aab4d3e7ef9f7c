"""What validation reads with finds what the model finds."""

from typing import Any

import pytest
import torch

PICTURES = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))


def train_a_little(model: Any) -> None:
    """Other weights and statistics, as after an epoch."""
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.mul_(1 + 0.05 * torch.rand_like(value))


def test_a_copy_finds_what_the_model_finds_epoch_after_epoch(model: Any) -> None:
    from ray_jobs.detector.reading_model import ReadingModel

    model.eval()
    reading, copies = ReadingModel(), []
    for _ in range(3):
        train_a_little(model)
        with torch.inference_mode():
            copies.append(reading.of(model))
            assert copies[-1] is not model
            torch.testing.assert_close(copies[-1](PICTURES)[0], model(PICTURES)[0], rtol=1e-3, atol=1e-3)
    assert copies[0] is copies[1] is copies[2]
    norms = [sum(isinstance(each, torch.nn.BatchNorm2d) for each in one.modules()) for one in (model, copies[0])]
    assert norms == [113, 0]


@pytest.mark.parametrize(
    "name", ["yolov9c.yaml", "yolo11n.yaml"]
)  # with layers that are folded in other ways, and without
def test_other_models_too(name: str) -> None:
    from ray_jobs.detector.process import quiet_ultralytics
    from ray_jobs.detector.reading_model import ReadingModel

    quiet_ultralytics()
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    model, reading = DetectionModel(name, nc=2, verbose=False).eval(), ReadingModel()
    for _ in range(2):
        train_a_little(model)
        with torch.inference_mode():
            found, expected = reading.of(model)(PICTURES)[0], model(PICTURES)[0]
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
