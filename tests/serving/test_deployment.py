"""Requests that wait together are read together, each with the detector that was in use when it came."""

import numpy as np
import numpy.typing as npt
import pytest

from ray_jobs.reading.finding import Prepared
from ray_jobs.serving.champion import InUse
from ray_jobs.serving.detector import Detector


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray Serve's own fields
def test_one_call_for_all_that_wait_and_two_while_a_champion_takes_over() -> None:
    from ray_jobs.serving.deployment import _run

    calls: list[tuple[str, int]] = []

    def detector(name: str, worth: float) -> InUse:
        def forward(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            calls.append((name, len(pixels)))
            return worth + 255 * pixels.reshape(len(pixels), -1).max(axis=1)

        return InUse(Detector(("Disc",), 32, np.full(1, 0.5, np.float32), forward), "reader", name)

    def picture(used: InUse, gray: int) -> tuple[InUse, Prepared]:
        return used, used.detector.prepare(np.full((32, 32), gray, np.uint8))

    old, new = detector("1", 1000), detector("2", 2000)
    assert [round(float(one)) for one in _run([picture(old, gray) for gray in (10, 20, 30)])] == [1010, 1020, 1030]
    assert calls == [("1", 3)]
    mixed = _run([picture(old, 10), picture(new, 20), picture(old, 30)])
    assert [round(float(one)) for one in mixed] == [1010, 2020, 1030]
    assert calls[1:] == [("1", 2), ("2", 1)]
