import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from small_detector import NAMES, SIZE, draw_picture, small_detector, train_small

from ray_jobs.dataset.samples import Sample
from ray_jobs.detector.evaluation import (
    Evaluation,
    detect,
    evaluate,
    model_facts,
    onnx_forward,
    torch_forward,
    truth_of,
)
from ray_jobs.detector.plots import draw_plots
from ray_jobs.detector.samples import choose_samples, save_samples
from ray_jobs.errors import DataError, WeightsError
from ray_jobs.pixels import read_image
from ray_jobs.reading.decode import Detections
from ray_jobs.reading.reader import Reader


def read_split(root: Path, split: str) -> list[Sample]:
    """The samples of a YOLO data set, read by hand."""
    samples = []
    for image in sorted((root / "images" / split).iterdir()):
        height, width = read_image(image).shape
        label = root / "labels" / split / f"{image.stem}.txt"
        rows = [line.split() for line in label.read_text().splitlines()] if label.is_file() else []
        samples.append(Sample(image, height, width, np.array(rows, dtype=np.float32).reshape(-1, 5)))
    return samples


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Ten drawn pictures that the small detector has not seen, two without boxes."""
    folder = tmp_path_factory.mktemp("drawn")
    samples = []
    for seed in range(200, 210):
        picture, boxes = draw_picture(seed)
        path = folder / f"{seed}.png"
        cv2.imwrite(str(path), picture)
        samples.append(Sample(path, *picture.shape, boxes))
    return samples


@pytest.fixture(scope="module")
def detections(drawn: list[Sample]) -> list[Detections]:
    return detect(torch_forward(small_detector() / "best.pt", threads=1), drawn, SIZE)


@pytest.fixture(scope="module")
def evaluation(drawn: list[Sample], detections: list[Detections]) -> Evaluation:
    return evaluate(detections, drawn, NAMES)


def test_a_trained_detector_measures_well(evaluation: Evaluation) -> None:
    assert evaluation.map50 is not None
    assert evaluation.map50 > 0.5
    assert evaluation.image_auc == 1.0
    assert evaluation.froc.as_dict()["sensitivity"]["8"] > 0.8


def test_the_truth_as_detections_is_perfect(drawn: list[Sample]) -> None:
    result = evaluate([truth_of(sample) for sample in drawn], drawn, NAMES)
    assert result.map50 == pytest.approx(0.995, abs=0.006)  # 101 points leave the last one out
    assert result.recall == pytest.approx(1.0)
    assert np.array_equal(result.curves.confusion, np.diag([result.per_class[name]["boxes"] for name in NAMES] + [0]))


def test_onnx_and_pytorch_detect_the_same(drawn: list[Sample], detections: list[Detections]) -> None:
    exported = detect(onnx_forward(small_detector() / "best.onnx", threads=1), drawn, SIZE)
    for one, other in zip(detections, exported, strict=True):
        high, same = one.scores > 0.05, other.scores > 0.05
        assert np.allclose(one.scores[high], other.scores[same], atol=1e-4)
        assert np.allclose(one.boxes[high], other.boxes[same], atol=1e-2)


def test_the_batch_size_does_not_matter(drawn: list[Sample], detections: list[Detections]) -> None:
    in_threes = detect(torch_forward(small_detector() / "best.pt", threads=1), drawn, SIZE, batch=3)
    for one, other in zip(detections, in_threes, strict=True):
        assert np.allclose(one.scores[:5], other.scores[:5], atol=1e-4)


def test_it_fits_into_json(evaluation: Evaluation) -> None:
    plain = json.loads(json.dumps(evaluation.as_dict(), allow_nan=False))
    assert set(plain) == {
        *("images", "boxes", "map50", "map50_95", "precision", "recall", "f1", "per_class", "froc"),
        *("image_auc", "image_auc_missing"),
    }
    assert set(plain["per_class"]["Disc"]) == {"map50", "map50_95", "precision", "recall", "f1", "boxes", "images"}


def test_a_class_without_boxes_is_null_and_not_in_the_mean(drawn: list[Sample], detections: list[Detections]) -> None:
    discs = [Sample(s.image, s.height, s.width, s.boxes[s.boxes[:, 0] == 0]) for s in drawn]
    result = evaluate(detections, discs, NAMES)
    assert result.per_class["Square"]["map50"] is None
    assert result.per_class["Square"]["boxes"] == 0
    assert result.map50 == result.per_class["Disc"]["map50"]


def test_a_split_without_boxes_measures_nothing_but_says_why(
    drawn: list[Sample], detections: list[Detections], tmp_path: Path
) -> None:
    empty = [Sample(s.image, s.height, s.width, s.boxes[:0]) for s in drawn]
    result = evaluate(detections, empty, NAMES)
    assert result.map50 is result.f1 is result.image_auc is None
    assert result.image_auc_missing == "no image with findings in this split"
    assert all(path.stat().st_size > 5000 for path in draw_plots(result, tmp_path))


def test_a_detector_that_finds_nothing_scores_zero(drawn: list[Sample]) -> None:
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    result = evaluate([nothing] * len(drawn), drawn, NAMES)
    assert result.map50 == result.recall == 0.0
    assert result.image_auc == 0.5


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match="no images"):
        evaluate([], [], NAMES)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_text("<html>")
    with pytest.raises(WeightsError, match=r"best\.pt"):
        torch_forward(tmp_path / "best.pt")


def test_a_checkpoint_tells_its_names_and_size() -> None:
    assert model_facts(small_detector() / "best.pt") == (NAMES, SIZE)


@pytest.mark.slow
def test_real_xrays_measure_as_in_ultralytics(xrays_mini: Path, tmp_path: Path) -> None:
    """A detector fitted to the test images, so that there is an mAP to compare."""
    # A copy, because Ultralytics writes label caches beside the labels.
    copy = tmp_path / "xrays"
    shutil.copytree(xrays_mini, copy, copy_function=shutil.copyfile)
    samples = read_split(copy, "test")
    names = list(yaml.safe_load((copy / "data.yaml").read_text())["names"].values())
    weights = tmp_path / "best.pt"
    train_small([read_image(s.image) for s in samples], [s.boxes for s in samples], names, weights, 50)
    ours = evaluate(detect(torch_forward(weights, threads=1), samples, SIZE), samples, names)

    from ultralytics import YOLO

    settings = {"data": str(copy / "data.yaml"), "split": "test", "imgsz": SIZE, "rect": False, "batch": 16}
    theirs = YOLO(str(weights)).val(**settings, device="cpu", plots=False, project=str(tmp_path / "val"), verbose=False)
    assert theirs.box.map50 > 0.02, "the fitted detector finds too little for a comparison"
    assert ours.map50 == pytest.approx(theirs.box.map50, abs=0.002)
    assert ours.map50_95 == pytest.approx(theirs.box.map, abs=0.002)
    assert ours.precision == pytest.approx(theirs.box.mp, abs=0.002)
    assert ours.recall == pytest.approx(theirs.box.mr, abs=0.002)
    for row, label in enumerate(theirs.box.ap_class_index):
        assert ours.per_class[names[label]]["map50"] == pytest.approx(theirs.box.ap50[row], abs=0.002)


def test_plots_are_drawn(evaluation: Evaluation, tmp_path: Path) -> None:
    paths = draw_plots(evaluation, tmp_path / "plots")
    assert [path.name for path in paths] == ["pr_curve.png", "froc.png", "confusion_matrix.png"]
    for path in paths:
        picture = cv2.imread(str(path))
        assert min(picture.shape[:2]) > 500
        assert picture.std() > 10


def test_samples_are_read_and_drawn(drawn: list[Sample], tmp_path: Path) -> None:
    reader = Reader(small_detector() / "best.onnx", threads=1)
    paths = save_samples(reader.read_batch, drawn, NAMES, tmp_path / "samples", 4)
    assert len(paths) == len(set(paths)) == 4
    assert all(max(cv2.imread(str(path)).shape) == 640 for path in paths)


@pytest.mark.parametrize(
    ("with_boxes", "without", "count", "chosen"),
    [(10, 2, 4, 4), (3, 0, 8, 3), (0, 5, 2, 2), (1, 9, 6, 6), (9, 1, 9, 9), (2, 2, 1, 1), (4, 4, 0, 0), (0, 0, 3, 0)],
)
def test_samples_show_both_kinds(with_boxes: int, without: int, count: int, chosen: int) -> None:
    boxes = np.zeros((1, 5), np.float32)
    samples = [Sample(Path(str(n)), 1, 1, boxes if n < with_boxes else boxes[:0]) for n in range(with_boxes + without)]
    picked = choose_samples(samples, count)
    assert len(picked) == len({sample.image for sample in picked}) == chosen
    if with_boxes and without and chosen > 1:
        assert {len(sample.boxes) for sample in picked} == {0, 1}
