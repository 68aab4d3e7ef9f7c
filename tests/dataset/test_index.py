"""The index survives its file, and may be pointed at another copy of the data."""

from pathlib import Path

import numpy as np
import pytest

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.dataset.samples import Sample
from ray_jobs.errors import DataError


@pytest.fixture
def index() -> DatasetIndex:
    root = Path("/data/chest")
    boxes = np.array([[1, 0.5, 0.5, 0.123456789, 0.2], [0, 0.1, 0.1, 0.1, 0.1]], np.float32)
    train = (Sample(root / "images/a.png", 320, 512, boxes), Sample(Path("/elsewhere/b.png"), 3, 4, boxes[:0]))
    return DatasetIndex(root, ("Nodule", "Mass"), {"train": train, "val": (), "test": train[:1]}, "f00d")


def test_what_is_saved_is_loaded(index: DatasetIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "run" / "index.npz")
    loaded = DatasetIndex.load(tmp_path / "run" / "index.npz")
    assert (loaded.root, loaded.names, loaded.fingerprint) == (index.root, index.names, index.fingerprint)
    assert list(loaded.splits) == ["train", "val", "test"]
    for split, samples in index.splits.items():
        assert len(loaded.splits[split]) == len(samples)
        for one, other in zip(samples, loaded.splits[split], strict=True):
            assert (one.image, one.height, one.width) == (other.image, other.height, other.width)
            np.testing.assert_array_equal(one.boxes, other.boxes)
            assert other.boxes.dtype == np.float32
    assert list((tmp_path / "run").iterdir()) == [tmp_path / "run" / "index.npz"], "nothing unfinished is left"


def test_another_machine_points_to_its_own_copy(index: DatasetIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "index.npz")
    moved = DatasetIndex.load(tmp_path / "index.npz", root=Path("/local/copy"))
    assert moved.root == Path("/local/copy")
    assert moved.splits["train"][0].image == Path("/local/copy/images/a.png")
    assert moved.splits["train"][1].image == Path("/elsewhere/b.png"), "outside of the root: nothing to move"


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04broken"])
def test_files_that_are_no_index_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "index.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"index\.npz"):
        DatasetIndex.load(path)


def test_an_index_cut_short_is_refused(index: DatasetIndex, tmp_path: Path) -> None:
    path = tmp_path / "index.npz"
    index.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="damaged"):
        DatasetIndex.load(path)


def test_columns_of_unequal_length_are_refused(index: DatasetIndex, tmp_path: Path) -> None:
    path = tmp_path / "index.npz"
    index.save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, "0_sizes": arrays["0_sizes"][:1]})
    with pytest.raises(DataError, match="damaged"):
        DatasetIndex.load(path)


def test_a_part_is_told_from_the_whole_and_from_other_parts_by_a_few_digits(index: DatasetIndex) -> None:
    """Caches of decoded pixels are named by the first digits alone."""
    parts = [index.part({"train": index.splits["train"][:1]}, choice) for choice in ("first 15000", "first 15001")]
    other = DatasetIndex(index.root, index.names, index.splits, "f00e").part(parts[0].splits, "first 15000")
    names = {each.fingerprint[:16] for each in (index, *parts, other)}
    assert len(names) == 4
    assert len(parts[0].splits["train"]) == 1
