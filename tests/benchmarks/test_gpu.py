"""What is computed from trainings on a GPU. The trainings stand in: no GPU is needed to add up their figures."""

from pathlib import Path
from typing import Any

import pytest

OURS = {
    "images_per_second": [400.0, 1000.0, 1250.0],
    "train_seconds": [37.0, 15.0, 12.0],
    "val_seconds": [3.0, 1.0, 1.0],
    "gpu_busy": [0.1, 0.8, None],
    "val/fitness": [0.1, 0.3, 0.2],
    "val/map50": [0.5, 0.6, 0.9],
}
PEER = {"images_per_second": [100.0, 500.0, 500.0], "map50": 0.6}


@pytest.fixture
def asked() -> list[dict[str, Any]]:
    """What our side was to train."""
    return []


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[dict[str, Any]]) -> Any:
    import gpu

    def figures(command: list[str], values: dict[str, Any]) -> dict[str, Any]:
        if "train_here.py" not in command[1]:
            return PEER
        asked.append(values)
        return OURS

    monkeypatch.setattr(gpu, "_figures", figures)
    for name in ("own_copy", "draw_phantoms"):
        monkeypatch.setattr(gpu, name, lambda *_, **__: tmp_path)
    return gpu.Bench(None, tmp_path, repeats=2)


def test_fifty_epochs_are_forty_with_mosaic_and_ten_without(bench: Any, asked: list[dict[str, Any]]) -> None:
    result = bench.fifty_epochs()
    assert asked[0]["close_mosaic"] == 1
    assert result.ours == [40 * 15 + 10 * 12 + 50 * 1]  # 15,000 images are in such an epoch
    assert result.peer == [3 * 3600]


def test_the_first_epoch_fills_caches_and_does_not_count(bench: Any, asked: list[dict[str, Any]]) -> None:
    result = bench.throughput("yolo12n", 4)
    assert (list(result.ours), list(result.peer)) == ([1125, 1125], [500, 500])
    assert result.details["share of the time in which our GPU was busy"] == 0.8
    assert result.met
    assert {values["close_mosaic"] for values in asked} == {0}, "neither side leaves mosaics out"


def test_a_score_is_that_of_the_epoch_that_best_pt_is_from(bench: Any, asked: list[dict[str, Any]]) -> None:
    assert list(bench.scores().ours) == [0.6] * 3
    assert sorted(values["seed"] for values in asked) == [0, 1, 2]
