from pathlib import Path

import numpy as np
import onnx
import pytest
from small_detector import NAMES, SIZE, draw_picture, small_detector

from ray_jobs.errors import WeightsError
from ray_jobs.reading.reader import Finding, Reader


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(small_detector() / "best.onnx", threads=1)


def changed_copy(path: Path, **metadata: str | None) -> Path:
    """The small detector's ONNX file with other metadata; None removes a key."""
    model = onnx.load(small_detector() / "best.onnx")
    kept = {prop.key: prop.value for prop in model.metadata_props} | metadata
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: value for key, value in kept.items() if value is not None})
    onnx.save(model, path)
    return path


def test_it_knows_its_classes_and_size_from_the_file(reader: Reader) -> None:
    assert reader.names == NAMES
    assert reader.image_size == SIZE
    assert reader.thresholds.tolist() == [0.25, 0.25]


def test_it_finds_what_was_drawn(reader: Reader) -> None:
    picture, _ = draw_picture(900, [(0, 50, 50, 20), (1, 110, 110, 20)])
    findings = {finding.label: finding for finding in reader.read(picture)}
    assert set(findings) == set(NAMES)
    assert np.allclose(findings["Disc"].box, (30, 30, 71, 71), atol=8)
    assert np.allclose(findings["Square"].box, (90, 90, 131, 131), atol=8)
    assert all(0.25 < finding.score <= 1 for finding in findings.values())


@pytest.mark.parametrize("shape", [(160, 160), (300, 200), (64, 64)])
def test_a_black_picture_has_no_findings(reader: Reader, shape: tuple[int, int]) -> None:
    assert reader.read(np.zeros(shape, np.uint8)) == []


def test_a_shifted_picture_shifts_its_boxes(reader: Reader) -> None:
    here, there = (draw_picture(901, [(1, x, y, 22)])[0] for x, y in ((60, 70), (93, 87)))
    (before,), (after,) = reader.read(here), reader.read(there)
    assert before.label == after.label == "Square"
    assert np.allclose(np.subtract(after.box, before.box), (33, 17, 33, 17), atol=8)


def test_boxes_are_pixels_of_the_picture_that_was_given(reader: Reader) -> None:
    picture, _ = draw_picture(902, [(1, 80, 80, 25)])
    wide = np.full((320, 480), 40, np.uint8)
    wide[:, 80:400] = picture.repeat(2, axis=0).repeat(2, axis=1)
    (finding,) = reader.read(wide)
    assert np.allclose(finding.box, (190, 110, 292, 212), atol=20)


def test_depth_and_colour_do_not_matter(reader: Reader) -> None:
    picture, _ = draw_picture(903, [(0, 80, 80, 25)])
    (gray,) = reader.read(picture)
    (colour,) = reader.read(picture[..., None].repeat(3, axis=2))
    (deep,) = reader.read(picture.astype(np.uint16) * 200)
    assert colour == gray
    assert deep.label == gray.label
    assert np.allclose(deep.box, gray.box, atol=8)


def test_a_batch_is_read_like_its_pictures(reader: Reader) -> None:
    pictures = [draw_picture(seed)[0][: 160 - seed % 3 * 10] for seed in range(60, 80)]
    for alone, together in zip(map(reader.read, pictures), reader.read_batch(pictures), strict=True):
        assert [finding.label for finding in alone] == [finding.label for finding in together]
        for one, other in zip(alone, together, strict=True):
            assert np.allclose(one.box, other.box, atol=0.01)
            assert one.score == pytest.approx(other.score, abs=1e-4)
    assert reader.read_batch([]) == []


def test_thresholds_come_from_the_file_unless_one_is_given(tmp_path: Path) -> None:
    path = changed_copy(tmp_path / "high.onnx", thresholds='{"Disc": 0.999}')
    picture, _ = draw_picture(900, [(0, 50, 50, 20), (1, 110, 110, 20)])
    assert [finding.label for finding in Reader(path, threads=1).read(picture)] == ["Square"]
    assert len(Reader(path, threshold=0.25, threads=1).read(picture)) == 2


def test_a_plain_yolo_export_is_read_as_well(tmp_path: Path) -> None:
    path = changed_copy(
        tmp_path / "plain.onnx", names="{0: 'Disc', 1: \"Patient's square\"}", imgsz="[96, 96]", thresholds=None
    )
    assert Reader(path, threads=1).names == ("Disc", "Patient's square")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"names": None}, "no 'names'"),
        ({"names": "Disc, Square"}, "'names' cannot be read"),
        ({"names": '["Disc"]'}, r"\(batch, 5, anchors\)"),
        ({"imgsz": "[96, 64]"}, "one square size"),
        ({"thresholds": '{"Blob": 0.5}'}, "by class name"),
        ({"thresholds": '{"Disc": 7}'}, "scores in 0..1"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(tmp_path: Path, metadata: dict[str, str | None], words: str) -> None:
    path = changed_copy(tmp_path / "odd.onnx", **metadata)
    with pytest.raises(WeightsError, match=words) as error:
        Reader(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.onnx: no such file"):
        Reader(tmp_path / "gone.onnx")


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x08\x07\x12"])
def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not an ONNX file") as error:
        Reader(path)
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes((small_detector() / "best.onnx").read_bytes()[:200_000])
    with pytest.raises(WeightsError, match="not an ONNX file"):
        Reader(path)


def test_a_finding_is_rounded_for_people_only_in_its_dict() -> None:
    finding = Finding("Mass", 0.123456, (1.26, 2.0, 3.0, 4.0))
    assert finding.as_dict() == {"label": "Mass", "score": 0.1235, "box": [1.3, 2.0, 3.0, 4.0]}
    assert finding.score == 0.123456
