"""One point of a benchmark: what is made of its journal, and what becomes of one that fails."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.errors import TrainingError
from ray_jobs.flows import distributed
from ray_jobs.flows.benchmark import measure
from ray_jobs.flows.benchmark.measure import Portion, measure_point, point_settings
from ray_jobs.flows.benchmark.sweep import Point, Setting
from ray_jobs.flows.worker import TrainingTask
from ray_jobs.settings import load_config_with_defaults

SETTING = Setting(8, 1, 0, "fp32")
PORTION = Portion(20, 4, 3)


@pytest.fixture
def point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Point]:
    """A point whose training is done by the function that is given."""
    monkeypatch.setattr(measure, "live_nodes", lambda: [{"CPU": 2.0}])
    settings = load_config_with_defaults(None, ["device=cpu"])
    samples: Any = tuple(range(100))
    index = DatasetIndex(tmp_path, ("Nodule",), {"train": samples, "val": samples[:10]}, "fingerprint")
    run = SimpleNamespace(path=tmp_path, name="bench")
    prepared: Any = SimpleNamespace(settings=settings, report=SimpleNamespace(index=index), run=run)

    def call(fit: Any) -> Point:
        monkeypatch.setattr(distributed, "fit", fit)
        result = measure_point(prepared, SETTING, PORTION, 1)
        assert not (tmp_path / "points" / "01").exists(), "a point leaves nothing"
        return result

    return call


def trained(batch: int) -> Callable[..., Any]:
    """A training of three epochs, the first of them slow."""

    def fit(task: TrainingTask, plan: Any, journal: Path) -> distributed.Trained:
        assert plan.max_workers == 1
        assert [len(split) for split in task.index.splits.values()] == [20, 4]
        for number, seconds in enumerate((10.0, 2.0, 1.0), 1):
            metrics = {"epoch": number, "started": 2e9, "train_seconds": seconds, "data_wait_seconds": 0.1 * seconds}
            metrics |= {"images_per_second": 20 / seconds, "val_seconds": 0.5, "gpu_memory_bytes": 1e9}
            line = {"kind": "epoch", "time": 2e9, "weights_digests": [""], "metrics": metrics}
            with journal.open("a") as file:
                file.write(json.dumps(line) + "\n")
        return distributed.Trained("epoch_00003", {"batch_size": batch})

    return fit


def test_the_first_epoch_does_not_count(point: Callable[[Any], Point]) -> None:
    found = point(trained(8))
    assert found.error is None
    assert found.epochs == (10.0, 20.0)
    assert found.images_per_second == 15.0
    assert found.step_seconds == pytest.approx(1.5 / 3)  # 20 images are three steps of at most 8
    assert found.data_wait == pytest.approx(0.1)
    assert (found.val_seconds, found.gpu_memory_bytes) == (0.5, 1e9)


def test_a_batch_that_was_made_smaller_is_out_of_memory(point: Callable[[Any], Point]) -> None:
    found = point(trained(4))
    assert found.images_per_second is None
    assert found.error == "out of memory with batch_size 8; 4 would fit"


def test_a_failure_is_the_points_own(point: Callable[[Any], Point]) -> None:
    def fit(*_: Any) -> None:
        raise TrainingError("rank 0: out of memory on cuda:0\nand more")

    assert point(fit) == Point(SETTING, error="rank 0: out of memory on cuda:0")


def test_a_point_changes_nothing_but_what_it_must() -> None:
    settings = load_config_with_defaults(None, ["epochs=100", "lr0=0.02", "cluster.cpus_per_worker=1"])
    short = point_settings(settings, Setting(8, 2, 1, "bf16"), 3)
    differences = {key for key, value in short.as_dict().items() if value != settings.as_dict()[key]}
    assert differences == {
        *("batch_size", "workers", "precision", "cluster"),
        *("epochs", "close_mosaic", "patience", "keep", "samples"),
    }
    assert (short.cluster.num_workers, short.cluster.cpus_per_worker, short.cluster.max_failures) == (2, 1, 0)


def test_a_part_is_taken_evenly(tmp_path: Path) -> None:
    samples: Any = tuple(range(100))
    index = DatasetIndex(tmp_path, ("Nodule",), {"train": samples, "val": samples, "test": samples}, "whole")
    part = Portion(4, 2, 3).of(index)
    assert part.splits == {"train": (0, 25, 50, 75), "val": (0, 50)}
    assert part.fingerprint != index.fingerprint
