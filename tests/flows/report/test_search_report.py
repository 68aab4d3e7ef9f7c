from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import browser

from ray_jobs.detector.bootstrap import Comparison, Difference
from ray_jobs.flows.report.search import Search, epochs_saved, write_search_report
from ray_jobs.flows.search.trial import State, Trial

METRIC = "val/map50_95"
SEARCH = Search("autumn", METRIC, "max", 10, 3600.0, {"scheduler": "asha", "fingerprint": "f" * 64})


def trial(number: int, score: float | None, state: State = "finished", epochs: int = 10, **changes: object) -> Trial:
    random = np.random.default_rng(number)
    parameters = {
        "lr0": float(10 ** random.uniform(-5, -1)),
        "optimizer": str(random.choice(["SGD", "AdamW"])),
        "mosaic": float(random.uniform(0, 1)),
        "cos_lr": bool(number % 2),
    }
    curve = tuple({"epoch": at, METRIC: (score or 0) * at / epochs} for at in range(1, epochs + 1))
    values = {"parameters": parameters, "epochs": curve, "score": score, "seconds": 60.0 * epochs, **changes}
    return Trial(number=number, state=state, **values)  # type: ignore[arg-type]


@pytest.fixture
def trials() -> list[Trial]:
    finished = [trial(number, 0.3 + number / 100) for number in range(1, 6)]
    stopped = [trial(number, 0.1, "stopped", 2, reason="too low after epoch 2") for number in range(6, 11)]
    return [*finished, *stopped, trial(11, None, "failed", 0, reason="out of memory: <b>8 GB</b>", restarts=2)]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8").replace("\u00a0", " ")


def test_the_page_says_who_won_and_what_it_cost(trials: list[Trial], tmp_path: Path) -> None:
    path = write_search_report(tmp_path, trials, trials[4], SEARCH)
    page = read(path)
    assert path == tmp_path / "report.html"
    assert (
        "Trial 5 is best: val/map50_95 0.350 after 10 epochs, where the median of the 5 finished trials is 0.330."
        in page
    )
    assert "Stopping 5 of 11 trials early saved 40 % of the epochs. 1 failed." in page
    assert "5 finished, 5 stopped, 1 failed" in page
    assert "40 saved, 60 run" in page
    assert "too low after epoch 2" in page
    assert "failed, restarted 2 times" in page
    assert "out of memory: &lt;b&gt;8 GB&lt;/b&gt;" in page
    assert "<script" not in page
    for name in ("lr0", "optimizer", "mosaic", "cos_lr"):
        assert f'class="title">{name}</text>' in page
    assert "All trials at once" in page


@pytest.mark.slow
def test_it_fits_a_desktop_and_a_phone(trials: list[Trial], tmp_path: Path) -> None:
    path = write_search_report(tmp_path, trials, trials[4], SEARCH)
    with browser(tmp_path / "profile") as page:
        for width in (1280, 390):
            page.is_whole(path, width)


def test_its_pictures_are_files_too(trials: list[Trial], tmp_path: Path) -> None:
    write_search_report(tmp_path, trials, trials[4], SEARCH)
    assert {file.name for file in tmp_path.iterdir()} == {"report.html", "history.svg", "importance.svg"}
    for name, word in (("history.svg", "val/map50_95 by trial"), ("importance.svg", "lr0")):
        assert word in "".join(ElementTree.parse(tmp_path / name).getroot().itertext())


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.05, "it beats the defaults: +0.030 mAP50-95 (95 % interval +0.010 to +0.050)"),
        (-0.01, 0.07, "cannot be told apart from the defaults"),
        (-0.07, -0.01, "worse than the defaults, so keep those"),
    ],
)
def test_the_winner_is_compared_with_the_defaults(
    trials: list[Trial], tmp_path: Path, low: float, high: float, words: str
) -> None:
    difference = Difference((low + high) / 2, low, high, 0.9, 0.1)
    found = Comparison("patients", 100, 1000, None, difference, None, {})
    search = Search("autumn", METRIC, "max", 10, 1.0, {}, found)
    assert words in read(write_search_report(tmp_path, trials, trials[4], search))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], "No trial has begun."),
        (
            [trial(1, None, "running", 0), trial(2, None, "pending", 0)],
            "No trial has a score yet (1 running, 1 pending)",
        ),
        (
            [trial(n, None, "failed", 0, reason="no <GPU>") for n in (1, 2)],
            "All 2 trials failed. The first one: no &lt;GPU&gt;.",
        ),
    ],
)
def test_without_a_score_the_page_says_why(found: list[Trial], words: str, tmp_path: Path) -> None:
    assert words in read(write_search_report(tmp_path, found, None, SEARCH))


def test_a_search_of_one_trial_and_one_epoch(tmp_path: Path) -> None:
    only = trial(1, 0.2, epochs=1, parameters={"lr0": 0.01}, gpus=2.0)
    page = read(write_search_report(tmp_path, [only], only, SEARCH))
    assert "Trial 1 is best: val/map50_95 0.200 after 1 epoch." in page
    assert "GPU hours" in page
    assert "with fewer than 6 trials their importance cannot be told" in page


def test_least_can_be_best_and_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    trials = [
        replace(trial(number, -loss), epochs=({"epoch": 1, "val/box_loss": loss},))
        for number, loss in ((1, 0.5), (2, 0.2))
    ]
    broken = replace(trials[0], number=3, score=float("-inf"), epochs=({"epoch": 1, "val/box_loss": float("nan")},))
    search = Search("loss", "val/box_loss", "min", 10, 1.0, {})
    page = read(write_search_report(tmp_path, [*trials, broken], trials[1], search))
    assert "Trial 2 is best: val/box_loss 0.200" in page
    rows = page[page.index("All trials") :]
    assert rows.index(">0.2000<") < rows.index(">0.5000<")
    assert "nan" not in (tmp_path / "history.svg").read_text()


def test_the_loss_speaks_where_nothing_is_found_yet(tmp_path: Path) -> None:
    def lost(number: int, loss: float) -> Trial:
        epochs = ({"epoch": 1, METRIC: 0.0, "val/box_loss": loss, "val/cls_loss": 1.0},)
        return replace(trial(number, -loss - 1.0), epochs=epochs)

    trials = [lost(1, 4.0), lost(2, 3.0), trial(3, None, "failed", 0)]
    page = read(write_search_report(tmp_path, trials, trials[1], SEARCH))
    assert "No trial has found anything yet (val/map50_95 is 0), so the validation loss decides." in page
    assert "Trial 2 is best: validation loss 4.000 after 1 epoch." in page
    found = replace(trial(4, 0.1), number=4)
    page = read(write_search_report(tmp_path, [*trials, found], found, SEARCH))
    assert "Trial 4 is best: val/map50_95 0.100" in page
    assert "-5.0" not in page  # the score that a loss stands behind is no figure of the metric


def test_epochs_that_stopping_saved_are_counted() -> None:
    trials = [trial(1, 0.5), trial(2, 0.1, "stopped", 2), trial(3, None, "failed", 1), trial(4, 0.1, "running", 3)]
    assert epochs_saved(trials, 10) == (8, 0.4)
    assert epochs_saved([], 10) == (0, 0.0)
