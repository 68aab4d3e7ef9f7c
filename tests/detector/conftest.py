"""What the tests of the detector's parts share."""

from typing import Any

import pytest
import torch
from small_detector import NAMES


@pytest.fixture
def model() -> Any:
    """A yolo12n with random weights, the same for every test, ready to train."""
    from ray_jobs.detector.process import quiet_ultralytics

    quiet_ultralytics()
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    made = DetectionModel("yolo12n.yaml", nc=len(NAMES), verbose=False)
    made.args = get_cfg()
    return made
