"""Files from outside that would run a program when they are opened: refused in one line, and the program never runs.

Names that would leave their folder are tested where they are read: run names in test_settings.py, objects of a bucket
in test_train_bad_input.py and dataset/test_local_copy.py, files of a checkpoint in faults/test_fuzzing.py, models in
serving/test_read_server_start.py, requests in triggering/.
"""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.detector.detections_file import SplitDetections
from ray_jobs.detector.training_state import load_state
from ray_jobs.detector.weights import load_model
from ray_jobs.errors import BadInput, PlatformError


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self._made = made

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self._made,)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """What a bomb would leave. That it would is proved here."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "proof")))
    assert (tmp_path / "proof").exists()
    return tmp_path / "made"


@pytest.mark.parametrize("key", ["model", "ema", "train_args"])
def test_weights(key: str, made: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({key: Bomb(made)}, path)
    with pytest.raises(BadInput, match=r"weights\.pt: cannot be opened safely as YOLO weights"):
        load_model(path)
    assert not made.exists()


def test_the_state_in_a_checkpoint(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"format": 1, "model": Bomb(made)}, path)
    with pytest.raises(BadInput, match=r"state\.pt: is no training state that can be read"):
        load_state(path)
    assert not made.exists()


@pytest.mark.parametrize("load", [DatasetIndex.load, SplitDetections.load])
def test_archives_of_arrays(load: Callable[[Path], object], made: Path, tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    with path.open("wb") as file:
        np.savez(file, header=np.array([Bomb(made)], dtype=object))
    with pytest.raises(PlatformError, match=r"arrays\.npz: .*damaged"):
        load(path)
    assert not made.exists()
