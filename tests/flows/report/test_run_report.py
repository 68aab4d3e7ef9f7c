"""The report of runs of every kind, made from real detections of drawn pictures and read back as a browser would."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser import browser
from small_detector import NAMES, draw_picture

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.dataset.samples import Sample
from ray_jobs.detector.bootstrap import intervals
from ray_jobs.detector.detections_file import SplitDetections
from ray_jobs.detector.evaluation import evaluate, truth_of
from ray_jobs.flows.assessment import Assessment
from ray_jobs.flows.journal import JournalReader
from ray_jobs.flows.report.run import write_run_report
from ray_jobs.flows.run_folder import RunFolder
from ray_jobs.reading.decode import Detections
from ray_jobs.settings import Settings

HOSTILE = "<script>alert(1)</script>"


class Page(HTMLParser):
    """What a page shows, and which tags it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.pictures = 0
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(self.text.replace("\u00a0", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.pictures += tag == "image"
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in ("src", "href") or str(value).startswith("data:image/jpeg;base64,")

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    folder = tmp_path_factory.mktemp("pictures")
    samples = []
    for seed in range(12):
        picture, boxes = draw_picture(seed)
        path = folder / f"patient_{seed:02d}.png"
        cv2.imwrite(str(path), picture)
        samples.append(Sample(path, *picture.shape, boxes))
    splits = {"train": tuple(samples[:2]), "val": tuple(samples[2:4]), "test": tuple(samples[4:])}
    return DatasetIndex(folder, NAMES, splits, "f" * 64)


def moved(samples: Sequence[Sample]) -> list[Detections]:
    """The truth, a little beside it, and a false alarm in each picture; every third box is missed."""
    found = []
    for number, sample in enumerate(samples):
        true = truth_of(sample)
        kept = np.arange(len(true))[np.arange(len(true)) % 3 != number % 3]
        boxes = np.concatenate([true.boxes[kept] + 2, np.array([[5, 5, 30, 40]], np.float32)])
        scores = np.append(np.linspace(0.9, 0.6, len(kept)), 0.4).astype(np.float32)
        found.append(Detections(boxes, scores, np.append(true.classes[kept], 1)))
    return found


Make = Callable[..., Page]


@pytest.fixture
def make(index: DatasetIndex, tmp_path: Path) -> Make:
    def make(
        data: DatasetIndex = index,
        split: str = "test",
        epochs: int = 8,
        detections: list[Detections] | None = None,
        restarts: int = 0,
        name: str = "first",
        thresholds: dict[str, float] | None = None,
        **settings: Any,
    ) -> Page:
        run = RunFolder(tmp_path / name)
        run.path.mkdir()
        found = SplitDetections.of(moved(data.splits[split]) if detections is None else detections, data, split)
        evaluation = evaluate(found.detections, data.splits[split], data.names)
        metrics = intervals(evaluation.statistics).added_to(evaluation.as_dict())
        assessment = Assessment(split, metrics, thresholds or {}, evaluation=evaluation, detections=found)
        journal = write_journal(run.journal, epochs, restarts)
        counts = {
            part: {"images": len(samples), "background": 0, "boxes": 0, "per_class": dict.fromkeys(data.names, 7)}
            for part, samples in data.splits.items()
        }
        summary = {
            "run_name": name,
            "dataset": {"counts": counts},
            "world_size": 1,
            "best_epoch": epochs,
            "images_per_second": 12.3,
            "timings": {"check": 1.0, "train": 4000.0, "total": 4001.0},
            split: metrics,
        }
        json.dumps(summary, allow_nan=False)
        page = write_run_report(run, Settings(**settings), data, journal, assessment, summary)
        assert page == run.path / "report.html"
        assert page.stat().st_size < 3_000_000
        return Page(page)

    return make


def write_journal(path: Path, epochs: int, restarts: int) -> JournalReader:
    failure = {"kind": "failure", "time": 0, "causes": {}}
    lines = [failure] * restarts
    for number in range(1, epochs + 1):
        losses = {f"{part}/{kind}_loss": 3.0 / number for part in ("train", "val") for kind in ("box", "cls", "dfl")}
        scores = {"val/map50": number / 20, "val/map50_95": number / 40, "images_per_second": 12.3}
        metrics = {"epoch": number, "started": 0.0, "last": number == epochs, **losses, **scores}
        lines.append({"kind": "epoch", "time": 1.0, "metrics": metrics, "weights_digests": ["a"], "checkpoint": None})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    reader = JournalReader(path)
    assert len(list(reader.read_new())) == epochs
    return reader


def test_the_page_says_it_all(make: Make) -> None:
    page = make()
    assert "true boxes at one false alarm per image; mAP50 0." in page.text
    assert "95 % interval" in page.text
    assert "Train longer" in page.text
    for heading in (
        "How it learned",
        "Class by class",
        "Sensitivity and false alarms",
        "Worst mistakes",
        "Data",
        "Settings",
    ):
        assert heading in page.text
    assert "1 h 06 min" in page.text  # training took 4000 s
    assert "f" * 64 in page.text
    assert page.tags.count("svg") >= 4 + page.pictures
    assert 4 <= page.pictures <= 12
    assert "an image without findings" in page.text
    assert "not seen at any score" in page.text
    assert "patient_" in page.text


@pytest.mark.slow
def test_it_fits_a_desktop_and_a_phone(make: Make, tmp_path: Path) -> None:
    make()
    with browser(tmp_path / "profile") as page:
        for width in (1280, 390):
            page.is_whole(tmp_path / "first" / "report.html", width)
        assert page.run("document.images.length + document.querySelectorAll('image').length") >= 4


def test_no_xray_is_shown_unless_samples_are_asked_for(make: Make) -> None:
    none = make(samples=0)
    assert none.pictures == 0
    assert "samples=0 asks for none" in none.text
    assert "patient_" not in none.text
    assert make(samples=3, name="second").pictures == 3


def test_mistakes_are_told_at_the_thresholds_of_the_model(make: Make) -> None:
    assert "From a score of 0.25 on, " in make().text
    page = make(name="second", thresholds={"Disc": 0.3, "Square": 0.5})  # the false alarms have a score of 0.4
    assert "From a score of 0.30 to 0.50 on, by class, " in page.text
    assert "False alarms: none." in page.text


def test_names_from_outside_cannot_run_code(make: Make, index: DatasetIndex) -> None:
    named = replace(index, names=(HOSTILE, "'\"><b onclick=x>"))
    page = make(data=named, tracking={"tags": {"note": HOSTILE}})
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) > 5


def test_a_run_of_one_epoch(make: Make) -> None:
    page = make(epochs=1)
    assert "1 epoch; best.pt is from epoch 1." in page.text
    assert "1 epoch say little" in page.text


def test_a_run_that_lost_workers_says_so(make: Make) -> None:
    assert "Workers were lost and started again 2 times; what was lost was trained again." in make(restarts=2).text


def test_without_a_test_split_the_validation_split_is_named(make: Make, index: DatasetIndex) -> None:
    without = replace(index, splits={part: index.splits[part] for part in ("train", "val")})
    assert "Measured on the val split" in make(data=without, split="val").text


def test_a_class_without_boxes(make: Make, index: DatasetIndex) -> None:
    discs = tuple(replace(sample, boxes=sample.boxes[sample.boxes[:, 0] == 0]) for sample in index.splits["test"])
    page = make(data=replace(index, splits=index.splits | {"test": discs}))
    assert "Nothing is known about Square: no such box in the test split." in page.text


def test_a_split_without_boxes(make: Make, index: DatasetIndex) -> None:
    empty = tuple(replace(sample, boxes=sample.boxes[:0]) for sample in index.splits["test"])
    page = make(data=replace(index, splits=index.splits | {"test": empty}))
    assert "Nothing could be measured: the test split has no boxes." in page.text
    assert "Nothing to compare with" in page.text
    assert page.pictures == 0


def test_a_detector_that_finds_nothing(make: Make, index: DatasetIndex) -> None:
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    page = make(detections=[nothing] * len(index.splits["test"]))
    assert "Has learned next to nothing yet: mAP50 0.000 on 8 test images." in page.text
    assert "False alarms: none." in page.text
    assert page.pictures == 6


def test_an_xray_that_is_gone_does_not_cost_the_page(make: Make, index: DatasetIndex) -> None:
    gone = tuple(replace(sample, image=Path("/nowhere/a.png")) for sample in index.splits["test"])
    page = make(data=replace(index, splits=index.splits | {"test": gone}))
    assert page.pictures == 0
    assert "The X-ray could not be read" in page.text


def test_many_classes_share_a_colour(make: Make, index: DatasetIndex) -> None:
    names = tuple(f"class {number}" for number in range(12))
    changed = []
    for number, sample in enumerate(index.splits["test"]):
        boxes = sample.boxes.copy()
        boxes[:, 0] = (np.arange(len(boxes)) + number) % 12
        changed.append(replace(sample, boxes=boxes))
    page = make(data=replace(index, names=names, splits=index.splits | {"test": tuple(changed)}))
    assert page.text.count("class 3") >= 1
