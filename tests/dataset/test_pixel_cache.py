"""Pixels are decoded once per node, seen by every process, and never at the price of a full disk."""

import multiprocessing
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from ray_jobs.dataset import pixel_cache
from ray_jobs.dataset.pixel_cache import PixelCache, private_cache_folder


def picture(value: int) -> np.ndarray:
    return np.full((3, 4), value, np.uint8)


def never() -> np.ndarray:
    raise AssertionError("read again")


def test_an_image_is_read_once_by_all_processes(tmp_path: Path) -> None:
    cache = PixelCache(tmp_path / "a.pixels", count=2, size=4)
    assert (cache.get(1, (3, 4), lambda: picture(7)) == 7).all()
    assert (cache.get(1, (3, 4), never) == 7).all()
    with multiprocessing.get_context("spawn").Pool(1) as other:
        assert other.apply(_value, (pickle.dumps(cache),)) == 7


def _value(pickled: bytes) -> int:
    return int(pickle.loads(pickled).get(1, (3, 4), never)[2, 3])


def test_without_room_nothing_is_taken_and_nothing_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nearly_full = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(pixel_cache.shutil, "disk_usage", lambda _path: nearly_full)
    cache = PixelCache(tmp_path / "a.pixels", count=2, size=4)
    assert (cache.get(0, (3, 4), lambda: picture(5)) == 5).all()
    assert (cache.get(0, (3, 4), lambda: picture(6)) == 6).all()
    assert (tmp_path / "a.pixels").stat().st_size == 0
    assert caplog.text.count("no pixel cache") == 1


def test_nobody_else_can_look_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = private_cache_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert private_cache_folder() == folder
