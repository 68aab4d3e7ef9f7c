"""What a worker makes of a checkpoint's manifest and of data that does not come; training is a stand-in here."""

import json
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.dataset.local_copy import Origin
from ray_jobs.detector.process import Place
from ray_jobs.errors import StorageError, TrainingError
from ray_jobs.flows import worker
from ray_jobs.flows.checkpoints import MANIFEST, write_manifest
from ray_jobs.flows.controller_lines import describe, platform_error
from ray_jobs.flows.measures import cause_of
from ray_jobs.flows.worker import TrainingTask, train_rank
from ray_jobs.settings import Settings
from ray_jobs.storage import FolderStorage


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What trainings were asked for."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("ray_jobs.detector.training.train_detector", lambda *_, **how: asked.append(how))
    return asked


def go_on(tmp_path: Path, *, last: bool = False, workers: int = 1, **how: Any) -> None:
    """From a checkpoint of a run whose batch of 12 was halved."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    write_manifest(folder, epoch=3, last=last, batch_size=6, nominal_batch=12)
    task = TrainingTask(Settings(batch_size=12), None, FolderStorage(tmp_path), b"", 1)  # type: ignore[arg-type]
    train_rank(task, Place(0, 0, workers, "cpu", 1), tmp_path, lambda _: None, folder, **how)


def test_a_batch_that_was_halved_stays_halved_and_a_step_covers_as_many_images(
    tmp_path: Path, trained: list[dict[str, Any]]
) -> None:
    go_on(tmp_path)
    assert [(how["batch_size"], how["nominal_batch"]) for how in trained] == [(6, 12)]


def test_a_batch_that_the_workers_cannot_share_is_said_with_what_they_could(
    tmp_path: Path, trained: list[dict[str, Any]]
) -> None:
    with pytest.raises(TrainingError, match=r"batch of 6 .* 4 workers .*num_workers=1, or 2, or 3, or 6$"):
        go_on(tmp_path, workers=4)
    assert trained == []


def test_an_ended_training_ends_at_once_and_a_trial_that_takes_over_its_weights_trains(
    tmp_path: Path, trained: list[dict[str, Any]]
) -> None:
    go_on(tmp_path, last=True)
    assert trained == []
    (tmp_path / "checkpoint" / MANIFEST).unlink()
    (tmp_path / "checkpoint").rmdir()
    go_on(tmp_path, last=True, carried=True)
    assert [how["carried"] for how in trained] == [True]


def test_a_checkpoint_of_an_earlier_version_steps_as_its_batch(tmp_path: Path, trained: list[dict[str, Any]]) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / MANIFEST).write_text(json.dumps({"epoch": 1, "last": False, "batch_size": 8, "files": {}}))
    task = TrainingTask(Settings(batch_size=8), None, FolderStorage(tmp_path), b"", 1)  # type: ignore[arg-type]
    train_rank(task, Place(0, 0, 1, "cpu", 1), tmp_path, lambda _: None, folder)
    assert [(how["batch_size"], how["nominal_batch"]) for how in trained] == [(8, 0)]


def test_a_node_without_the_data_ends_a_run_at_its_start_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import ray.train

    def away(origin: Origin) -> None:
        raise StorageError(f"{origin.url}: no room")

    monkeypatch.setattr(worker, "bring_here", away)
    origin = Origin("s3://xrays/chest", "0", tmp_path)
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    with pytest.raises(StorageError):
        worker._bring_data(origin)
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: ray.train.Checkpoint(str(tmp_path)))
    with pytest.raises(worker.NoDataHere, match="s3://xrays/chest: no room") as caught:
        worker._bring_data(origin)
    assert platform_error(caught.value) is None  # the controller starts the workers again
    assert cause_of(describe(0, caught.value)) == "storage"
