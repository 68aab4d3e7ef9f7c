from pathlib import Path, PurePosixPath

import pytest

from ray_jobs.errors import DataError
from ray_jobs.serving.findings_folder import plan_drawings
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


def test_every_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError) as error:
        find_pictures([str(tmp_path / "gone"), str(tmp_path / "bare")])
    assert len(error.value.problems) == 2


def test_a_picture_is_taken_once_and_a_file_by_any_name(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.dcm", "notes.txt", "IM0001"):
        (tmp_path / name).write_bytes(b"x")
    found = find_pictures([str(tmp_path), str(tmp_path / "b.PNG"), str(tmp_path / "IM0001")])
    assert [str(one.name) for one in found] == ["a.dcm", "b.PNG", "IM0001"]
