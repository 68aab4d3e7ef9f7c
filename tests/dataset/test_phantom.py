"""Phantom X-rays: seeded, exact boxes, and no folder of anybody else is touched."""

from pathlib import Path

import numpy as np
import pytest

from ray_jobs.dataset.check import check_dataset
from ray_jobs.dataset.description import read_description
from ray_jobs.dataset.phantom import draw_phantoms, main
from ray_jobs.dataset.phantom_chest import FINDINGS, draw_chest
from ray_jobs.errors import DataError
from ray_jobs.pixels import read_image

SMALL = {"train": 16, "val": 8, "test": 8, "size": 64}


def test_phantoms_pass_the_check_with_every_class(tmp_path: Path) -> None:
    report = check_dataset(read_description(draw_phantoms(tmp_path / "p", **SMALL)), show_progress=False)
    assert (report.errors, report.warnings, report.notices) == ((), (), ())
    assert report.index.names == FINDINGS
    assert [counts.images for counts in report.counts.values()] == [16, 8, 8]
    assert [counts.background for counts in report.counts.values()] == [4, 2, 2], "a quarter has no finding"
    assert min(report.counts["train"].per_class.values()) >= 3


def test_the_same_seed_draws_the_same_images_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (
        check_dataset(read_description(draw_phantoms(tmp_path / name, seed=seed, **SMALL)), show_progress=False)
        for name, seed in (("first", 3), ("again", 3), ("other", 4))
    )
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint


def test_a_folder_made_the_same_way_is_used_again(tmp_path: Path) -> None:
    yaml = draw_phantoms(tmp_path / "p", **SMALL)
    before = yaml.stat().st_mtime_ns
    assert draw_phantoms(tmp_path / "p", **SMALL) == yaml
    assert yaml.stat().st_mtime_ns == before
    with pytest.raises(DataError, match="other settings"):
        draw_phantoms(tmp_path / "p", seed=1, **SMALL)


def test_what_is_not_a_phantom_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="something else"):
        draw_phantoms(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_drawing_leaves_no_half_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ray_jobs.dataset.phantom.draw_chest", stop)
        with pytest.raises(KeyboardInterrupt):
            draw_phantoms(tmp_path / "p", **SMALL)
    assert not (tmp_path / "p").exists()
    assert draw_phantoms(tmp_path / "p", **SMALL).is_file()


def test_a_size_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="size 64 to 4096"):
        draw_phantoms(tmp_path / "p", size=8)


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_changes_the_picture_within_its_box_alone(finding: str) -> None:
    for seed in range(5):
        healthy, none = draw_chest(np.random.default_rng(seed), set(), 128)
        ill, ((class_id, x, y, width, height),) = draw_chest(np.random.default_rng(seed), {finding}, 128)
        assert none == []
        assert FINDINGS[class_id] == finding
        change = np.abs(ill.astype(float) - healthy)
        left, right = round((x - width / 2) * 128), round((x + width / 2) * 128)
        top, bottom = round((y - height / 2) * 128), round((y + height / 2) * 128)
        assert change[top:bottom, left:right].mean() > 10
        change[top - 6 : bottom + 6, left - 6 : right + 6] = 0  # findings have soft borders
        assert change.max() <= 12


def test_every_chest_shows_every_finding_asked_for() -> None:
    for seed in range(60):
        pixels, boxes = draw_chest(np.random.default_rng(seed), set(FINDINGS), 64)
        assert pixels.shape == (64, 64)
        assert sorted(box[0] for box in boxes) == [0, 1, 2, 3]
        corners = np.array([(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for _, x, y, w, h in boxes])
        assert corners.min() >= 0
        assert corners.max() <= 1
        assert (corners[:, 2:] - corners[:, :2]).min() > 0.04


def test_the_command_prints_where_the_data_set_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--train", "4", "--val", "2", "--test", "0", "--size", "64"]
    assert main(["--out", str(tmp_path / "p"), *sizes]) == 0
    yaml = Path(capsys.readouterr().out.strip())
    assert "test" not in read_description(yaml).splits
    assert read_image(next((tmp_path / "p/images/val").iterdir())).shape == (64, 64)
