import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from small_detector import NAMES, SIZE, draw_picture, small_detector

from ray_jobs.dataset.samples import Sample
from ray_jobs.detector.evaluation import detect, evaluate, onnx_forward, torch_forward
from ray_jobs.detector.export import check_parity, export_onnx
from ray_jobs.errors import BadInput, ExportError, WeightsError
from ray_jobs.reading.finding import Forward
from ray_jobs.reading.reader import Reader


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("drawn")
    samples = []
    for seed in range(300, 308):
        picture, boxes = draw_picture(seed)
        cv2.imwrite(str(folder / f"{seed}.png"), picture)
        samples.append(Sample(folder / f"{seed}.png", *picture.shape, boxes))
    return samples


@pytest.fixture(scope="module")
def trained() -> Forward:
    return torch_forward(small_detector() / "best.pt", threads=1)


@pytest.fixture(scope="module")
def exported() -> Forward:
    return onnx_forward(small_detector() / "best.onnx", threads=1)


def test_the_file_tells_its_reader_what_it_must_know(tmp_path: Path) -> None:
    path = tmp_path / "new" / "best.onnx"
    export_onnx(
        small_detector() / "best.pt", path, names=["Épanchement", "It's"], image_size=64, thresholds={"It's": 0.4}
    )
    model = onnx.load(path)
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(metadata["names"]) == ["Épanchement", "It's"]
    assert json.loads(metadata["imgsz"]) == [64, 64]
    assert json.loads(metadata["thresholds"]) == {"It's": 0.4}
    assert (metadata["task"], metadata["stride"]) == ("detect", "32")
    assert "Épanchement" in metadata["description"]
    assert model.opset_import[0].version == 18
    assert [file.name for file in path.parent.iterdir()] == ["best.onnx"]
    reader = Reader(path, threads=1)
    assert reader.names == ("Épanchement", "It's")
    assert reader.thresholds.tolist() == [0.25, np.float32(0.4)]


@pytest.mark.parametrize("batch", [1, 3])
def test_the_batch_is_dynamic(exported: Forward, trained: Forward, batch: int) -> None:
    pixels = np.random.default_rng(0).random((batch, 3, SIZE, SIZE), dtype=np.float32)
    assert np.allclose(exported(pixels), trained(pixels), atol=1e-3)


def test_ultralytics_reads_the_file(drawn: list[Sample]) -> None:
    from ultralytics import YOLO

    picture = cv2.imread(str(drawn[0].image))
    result = YOLO(str(small_detector() / "best.onnx"), task="detect").predict(picture, imgsz=SIZE, verbose=False)[0]
    findings = Reader(small_detector() / "best.onnx", threads=1).read(picture)
    assert result.names == dict(enumerate(NAMES))
    assert len(findings) > 0
    assert np.allclose(result.boxes.conf.numpy(), [finding.score for finding in findings], atol=1e-3)
    assert np.allclose(result.boxes.xyxy.numpy(), [finding.box for finding in findings], atol=0.1)


def test_all_that_does_not_fit_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as error:
        export_onnx(
            small_detector() / "best.pt",
            tmp_path / "best.onnx",
            names=["one"],
            image_size=100,
            thresholds={"two": 0.5, "one": 2.0},
        )
    assert len(error.value.problems) == 4
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "best.onnx"
    path.write_text("old")
    (tmp_path / "best.pt").write_text("no checkpoint")
    with pytest.raises(WeightsError):
        export_onnx(tmp_path / "best.pt", path, names=NAMES, image_size=SIZE)
    assert path.read_text() == "old"


def test_the_exported_detector_agrees(trained: Forward, exported: Forward, drawn: list[Sample]) -> None:
    report = check_parity(trained, exported, drawn, NAMES, SIZE)
    assert report.images == len(drawn)
    assert report.candidates > 10
    assert report.score_difference < 1e-4
    assert report.box_difference < 0.05
    assert report.map50_difference is not None
    assert report.map50_difference < 1e-4
    assert json.loads(json.dumps(report.as_dict())) == report.as_dict()


def test_real_xrays_agree(trained: Forward, exported: Forward, xrays_mini: Path) -> None:
    images = sorted((xrays_mini / "images" / "test").iterdir())
    samples = [Sample(image, 320, 320, np.array([[0, 0.5, 0.5, 0.4, 0.4]], np.float32)) for image in images]
    report = check_parity(trained, exported, samples, NAMES, SIZE)
    assert report.images == len(images)
    assert report.map50_difference == pytest.approx(0, abs=1e-3)


def test_what_is_known_is_not_computed_again(trained: Forward, exported: Forward, drawn: list[Sample]) -> None:
    known = evaluate(detect(trained, drawn, SIZE), drawn, NAMES)
    calls = []

    def counted(pixels: np.ndarray) -> np.ndarray:
        calls.append(len(pixels))
        return trained(pixels)

    check_parity(counted, exported, drawn, NAMES, SIZE, pt_evaluation=known)
    assert sum(calls) == len(drawn)


@pytest.mark.parametrize(
    ("row", "change"), [(slice(4, None), -0.01), (slice(0, 1), 2.0), (slice(0, None), float("nan"))]
)
def test_a_detector_that_differs_is_refused(
    trained: Forward, exported: Forward, drawn: list[Sample], row: slice, change: float
) -> None:
    def wrong(pixels: np.ndarray) -> np.ndarray:
        output = exported(pixels).copy()
        output[:, row] += change
        return output

    with pytest.raises(ExportError, match="more differ") as error:
        check_parity(trained, wrong, drawn, NAMES, SIZE)
    assert str(drawn[0].image) in str(error.value)


def test_a_difference_in_map_is_refused(trained: Forward, exported: Forward, drawn: list[Sample]) -> None:
    squares = [Sample(s.image, s.height, s.width, s.boxes * [0, 1, 1, 1, 1]) for s in drawn]
    elsewhere = evaluate(detect(trained, drawn, SIZE), squares, NAMES)
    with pytest.raises(ExportError, match=r"mAP50 of the ONNX model differs .* by 0\.\d{4}"):
        check_parity(trained, exported, drawn, NAMES, SIZE, pt_evaluation=elsewhere)
