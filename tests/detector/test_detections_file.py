from pathlib import Path

import numpy as np
import pytest

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.dataset.samples import Sample
from ray_jobs.detector.detections_file import SplitDetections
from ray_jobs.detector.evaluation import evaluate
from ray_jobs.errors import DataError
from ray_jobs.reading.decode import Detections

NAMES = ("Mass", "Nodule")


def dataset(images: int = 30) -> DatasetIndex:
    random = np.random.default_rng(0)
    samples = []
    for number in range(images):
        boxes = np.zeros((number % 3, 5), np.float32)
        boxes[:, 0] = random.integers(0, 2, len(boxes))
        boxes[:, 1:3] = random.uniform(0.3, 0.7, (len(boxes), 2))
        boxes[:, 3:] = random.uniform(0.2, 0.4, (len(boxes), 2))
        samples.append(Sample(Path(f"patient{number // 2}_{number}.png"), 200, 100, boxes))
    return DatasetIndex(Path("/data"), NAMES, {"test": tuple(samples)}, "f" * 64)


def guess(index: DatasetIndex, noise: float, seed: int = 1) -> list[Detections]:
    """Forty boxes per image, those near the truth shifted by ``noise``."""
    random = np.random.default_rng(seed)
    found = []
    for sample in index.splits["test"]:
        rows = np.concatenate([sample.boxes, random.uniform(0.2, 0.8, (40, 5)).astype(np.float32)])
        rows[len(sample.boxes) :, 0] = random.integers(0, 2, 40)
        rows[:, 1:] += random.normal(0, noise, (len(rows), 4)) * 0.1
        scores = np.concatenate([random.uniform(0.3, 1, len(sample.boxes)), random.uniform(0, 0.6, 40)])
        order = np.argsort(-scores)
        x, y, width, height = rows[order, 1:].T
        corners = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
        pixels = np.array([sample.width, sample.height] * 2, np.float32)
        classes = rows[order, 0].astype(np.int64)
        found.append(Detections((corners * pixels).astype(np.float32), scores[order].astype(np.float32), classes))
    return found


def test_weights_of_one_give_the_figures_of_the_evaluation() -> None:
    index = dataset()
    result = evaluate(guess(index, 0.5), index.splits["test"], NAMES)
    figures = result.statistics.measure(np.ones((1, result.images)))
    assert result.map50 is not None
    assert 0.1 < result.map50 < 0.95
    assert figures.map50.item() == pytest.approx(result.map50, abs=1e-12)
    assert figures.map50_95.item() == pytest.approx(result.map50_95, abs=1e-12)
    assert figures.image_auc.item() == pytest.approx(result.image_auc, abs=1e-12)
    for label, name in enumerate(NAMES):
        assert figures.ap50[0, label] == pytest.approx(result.per_class[name]["map50"], abs=1e-12)
        assert figures.ap50_95[0, label] == pytest.approx(result.per_class[name]["map50_95"], abs=1e-12)
    assert result.froc.overall is not None
    assert figures.sensitivity[0] == pytest.approx(list(result.froc.overall.points().values()), abs=1e-12)


def test_weights_count_how_often_an_image_is_there() -> None:
    index = dataset()
    detections, samples = guess(index, 0.5), index.splits["test"]
    statistics = evaluate(detections, samples, NAMES).statistics
    for seed in range(5):
        weights = np.bincount(
            np.random.default_rng(seed).integers(0, len(samples), len(samples)), minlength=len(samples)
        )
        drawn = np.repeat(np.arange(len(samples)), weights)
        result = evaluate([detections[n] for n in drawn], [samples[n] for n in drawn], NAMES)
        figures = statistics.measure(weights[None])
        assert figures.map50.item() == pytest.approx(result.map50, abs=1e-9)
        assert figures.map50_95.item() == pytest.approx(result.map50_95, abs=1e-9)
        assert figures.image_auc.item() == pytest.approx(result.image_auc, abs=1e-12)
        assert result.froc.overall is not None
        assert figures.sensitivity[0] == pytest.approx(list(result.froc.overall.points().values()), abs=1e-12)


def test_what_is_saved_comes_back_and_is_compared(tmp_path: Path) -> None:
    index = dataset()
    good, bad = (SplitDetections.of(guess(index, noise), index, "test") for noise in (0.1, 2.0))
    good.save(tmp_path / "good.npz")
    again = SplitDetections.load(tmp_path / "good.npz")
    assert (again.split, again.fingerprint, again.names, again.images) == ("test", "f" * 64, NAMES, good.images)
    for before, after in zip(good.detections + good.truths, again.detections + again.truths, strict=True):
        for name in ("boxes", "scores", "classes"):
            assert np.array_equal(getattr(before, name), getattr(after, name))
    found = again.better_than(bad, r"^(patient\d+)_")
    assert (found.over, found.drawn) == ("patients", 15)
    assert found.map50 is not None
    assert found.map50.low > 0
    assert [file.name for file in tmp_path.iterdir()] == ["good.npz"]


def test_other_images_or_true_boxes_are_refused() -> None:
    index, other = dataset(), dataset(28)
    mine = SplitDetections.of(guess(index, 0.5), index, "test")
    with pytest.raises(DataError, match="different images"):
        mine.better_than(SplitDetections.of(guess(other, 1.0), other, "test"))
    moved = SplitDetections(mine.split, "e" * 64, NAMES, mine.images, mine.detections, mine.truths[::-1])
    with pytest.raises(DataError, match="ffffffffffff and eeeeeeeeeeee"):
        mine.better_than(moved)


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_a_broken_file_says_so(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "detections.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"detections\.npz: (no such file|holds no detections)"):
        SplitDetections.load(path)
