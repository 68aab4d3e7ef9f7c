import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_detector import draw_picture, small_detector

from ray_jobs.errors import BadInput, DataError, WeightsError
from ray_jobs.predict import main


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    cv2.imwrite(str(folder / "disc.png"), draw_picture(1, [(0, 80, 70, 25)])[0])
    cv2.imwrite(str(folder / "empty.png"), np.zeros((100, 120), np.uint8))
    return folder


def read_lines(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("model", ["best.onnx", "best.pt"])
def test_a_folder_is_read(pictures: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(pictures), "--model", str(small_detector() / model)]) == 0
    disc, empty = read_lines(capsys)
    assert (disc["file"], disc["width"], disc["height"]) == (str(pictures / "disc.png"), 160, 160)
    assert [finding["label"] for finding in disc["findings"]] == ["Disc"]
    assert np.allclose(disc["findings"][0]["box"], (55, 45, 106, 96), atol=8)
    assert "summary" not in disc
    assert empty["findings"] == []
    assert empty["summary"] == "No findings"
    assert (empty["width"], empty["height"]) == (120, 100)


def test_pictures_are_drawn_and_not_written_over(pictures: Path, tmp_path: Path) -> None:
    arguments = [str(pictures), "--model", str(small_detector() / "best.onnx"), "--out", str(tmp_path / "drawn")]
    assert main(arguments) == 0
    drawn = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert drawn == {"disc.png", "empty.png", "findings.jsonl", "detector.json"}
    assert max(cv2.imread(str(tmp_path / "drawn" / "disc.png")).shape) == 640
    (tmp_path / "drawn" / "detector.json").unlink()
    with pytest.raises(BadInput, match="is there already") as error:
        main(arguments)
    assert len(error.value.problems) == 3
    with pytest.raises(BadInput, match="another detector"):
        main([*arguments[:-1], str(_folder_of_another_detector(tmp_path / "other"))])


@pytest.mark.parametrize("text", ["", '{"model": "be', "[]"])
def test_findings_of_an_unknown_detector_are_not_added_to(pictures: Path, tmp_path: Path, text: str) -> None:
    arguments = [str(pictures), "--model", str(small_detector() / "best.onnx"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    (tmp_path / "out" / "detector.json").write_text(text)
    before = (tmp_path / "out" / "findings.jsonl").read_bytes()
    with pytest.raises(BadInput, match=r"detector\.json: does not say which detector.*choose another --out"):
        main(arguments)
    assert (tmp_path / "out" / "findings.jsonl").read_bytes() == before


def _folder_of_another_detector(folder: Path) -> Path:
    folder.mkdir()
    (folder / "detector.json").write_text(json.dumps({"model": "old.onnx", "sha256": "0", "thresholds": {}}))
    return folder


def test_an_interrupted_reading_goes_on(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = [str(pictures), "--model", str(small_detector() / "best.onnx"), "--out", str(out)]
    (pictures / "broken.png").write_text("not a picture")
    assert main(arguments) == 1
    whole = (out / "findings.jsonl").read_bytes()
    assert len(whole.splitlines()) == 2
    # Killed while it wrote its second line; meanwhile the bad file was mended.
    (out / "findings.jsonl").write_bytes(whole[:-20])
    cv2.imwrite(str(pictures / "broken.png"), np.zeros((50, 50), np.uint8))
    capsys.readouterr()
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "1 of 3 were read before" in printed.err
    assert [Path(json.loads(line)["file"]).name for line in printed.out.splitlines()] == ["broken.png", "empty.png"]
    lines = [json.loads(line) for line in (out / "findings.jsonl").read_text().splitlines()]
    assert sorted(Path(line["file"]).name for line in lines) == ["broken.png", "disc.png", "empty.png"]
    assert all((out / line["drawing"]).is_file() for line in lines)
    before = (out / "disc.png").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (out / "disc.png").stat().st_mtime_ns == before


def test_a_bad_file_is_reported_and_skipped(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures / "broken.png").write_text("not a picture")
    assert main([str(pictures), "--model", str(small_detector() / "best.onnx")]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert "broken.png" in printed.err
    assert "1 of 3 files could not be read" in printed.err


def test_the_threshold_is_honoured(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(pictures / "disc.png")
    assert main([image, "--model", str(small_detector() / "best.onnx"), "--threshold", "1"]) == 0
    assert read_lines(capsys)[0]["summary"] == "No findings"


@pytest.mark.parametrize("value", ["1.5", "-0.1", "high", "nan", "Blob=0.3"])
def test_a_threshold_that_does_not_fit_is_refused(pictures: Path, value: str) -> None:
    with pytest.raises(BadInput, match="threshold"):
        main([str(pictures), "--model", str(small_detector() / "best.onnx"), f"--threshold={value}"])


def test_missing_and_foreign_files_are_named(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file"):
        main([str(tmp_path / "nowhere"), "--model", "best.onnx"])
    with pytest.raises(WeightsError, match=r"gone\.pt: no such"):
        main([str(pictures), "--model", str(tmp_path / "gone.pt")])
    with pytest.raises(WeightsError, match=r"as \.onnx, \.pt or models:/NAME@ALIAS"):
        main([str(pictures), "--model", str(pictures / "disc.png")])
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        main([str(tmp_path / "bare"), "--model", "best.onnx"])
