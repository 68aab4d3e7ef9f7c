from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from ray_jobs.errors import BadInput, DataError
from ray_jobs.serving.chunk import Reading
from ray_jobs.serving.detector import Detector, DetectorFile
from ray_jobs.serving.findings_folder import open_folder, plan_drawings
from ray_jobs.serving.pictures import Picture, find_pictures


def picture(name: str, place: str = "/scans") -> Picture:
    return Picture(f"{place}/{name}", PurePosixPath(name), f"{place}/{name}")


@pytest.mark.parametrize(
    ("names", "drawings"),
    [
        (["x.png", "y.jpg"], ["x.png", "y.png"]),
        (["a/x.png", "b/x.png"], ["a/x.png", "b/x.png"]),
        (["x.jpg", "x.png"], ["x.jpg.png", "x.png.png"]),
        (["X.png", "x.PNG"], ["X.png.png", "x.PNG-2.png"]),
        (["x.jpg", "x.png", "x.png.png"], ["x.jpg.png", "x.png-2.png", "x.png.png"]),
    ],
)
def test_no_two_drawings_have_one_name(names: list[str], drawings: list[str]) -> None:
    pictures = [picture(name) for name in names]
    planned = plan_drawings(pictures, Path("out"))
    assert [planned[one.source].relative_to("out").as_posix() for one in pictures] == drawings


def test_the_same_name_from_two_places_is_told_apart() -> None:
    pictures = [picture("x.png", "/one"), picture("x.png", "/two")]
    assert len(set(plan_drawings(pictures, Path("out")).values())) == 2


def test_a_reading_goes_on_from_wherever_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for ward in ("one", "two"):
        (tmp_path / ward / "scans").mkdir(parents=True)
        (tmp_path / ward / "scans" / "x.png").write_bytes(b"x")
    detector = Detector(("Disc",), 96, np.full(1, 0.5, np.float32), lambda pixels: pixels)
    file = DetectorFile("best.onnx", b"", onnx=True)
    monkeypatch.chdir(tmp_path / "one")
    (first,) = find_pictures(["scans"])
    folder = open_folder(tmp_path / "out", [first], file, detector)
    folder.write(Reading(first.source, {"file": first.shown, "findings": []}, b"a drawing"))
    assert open_folder(tmp_path / "out", find_pictures([str(tmp_path / "one")]), file, detector).waiting == []
    monkeypatch.chdir(tmp_path / "two")
    with pytest.raises(BadInput, match=f"out/x.png: is the drawing of {tmp_path}/one/scans/x.png"):
        open_folder(tmp_path / "out", find_pictures(["scans"]), file, detector)
    assert (tmp_path / "out" / "x.png").read_bytes() == b"a drawing"


def test_every_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError) as error:
        find_pictures([str(tmp_path / "gone"), str(tmp_path / "bare")])
    assert len(error.value.problems) == 2


def test_drawings_are_not_read_as_pictures(tmp_path: Path) -> None:
    out = tmp_path / "findings"
    for name in ("a.png", "findings/a.png", "findings/ward/b.png", "findings2/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [str(one.name) for one in find_pictures([str(tmp_path)], out)] == ["a.png", "findings2/c.png"]
    assert [one.source for one in find_pictures([str(out / "a.png")], out)] == [str(out / "a.png")]
    with pytest.raises(DataError, match="no images but what lies below --out"):
        find_pictures([str(tmp_path)], tmp_path)


def test_a_picture_is_taken_once_and_a_file_by_any_name(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.dcm", "notes.txt", "IM0001"):
        (tmp_path / name).write_bytes(b"x")
    found = find_pictures([str(tmp_path), str(tmp_path / "b.PNG"), str(tmp_path / "IM0001")])
    assert [str(one.name) for one in found] == ["a.dcm", "b.PNG", "IM0001"]
