"""What a person sees of a run: one block in a terminal, plain lines elsewhere."""

import io
import os
import pty
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console

from ray_jobs.detector.epoch_report import Progress
from ray_jobs.flows.display import LiveDisplay, open_display, sparkline
from ray_jobs.flows.journal import Epoch
from ray_jobs.flows.progress import Word

RUN = """
import time
from ray_jobs.flows.display import open_display
from ray_jobs.flows.journal import Epoch
with open_display() as display:
    display("a line before")
    display.begin("first", 2, lambda: None)
    display.stage("train")
    metrics = {"train/box_loss": 2.5, "val/map50_95": 0.25, "images_per_second": 20.0, "train_seconds": 9.0,
               "data_wait_seconds": 0.9}
    epoch = Epoch(1, 2, time.time() - 10, time.time(), metrics)
    display.epoch(epoch, epoch)
    display.restarted(1)
    time.sleep(0.6)
print("the end")
"""


def epoch(number: int, map50_95: float) -> Epoch:
    metrics = {"train/box_loss": 2.0, "val/map50_95": map50_95, "images_per_second": 20.0}
    return Epoch(number, 2, 100.0, 160.0, metrics | {"train_seconds": 50.0, "data_wait_seconds": 1.0})


@pytest.fixture
def live() -> LiveDisplay:
    display = LiveDisplay(Console(file=io.StringIO(), width=100, force_terminal=True))
    display.begin("first", 4, lambda: None)
    display.stage("train")
    yield display
    display.close()


def shown(display: LiveDisplay) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(display.picture())
    return console.file.getvalue()


def test_before_the_first_step_it_says_what_is_awaited(live: LiveDisplay) -> None:
    assert "the workers are starting" in shown(live)
    assert "0/4" in shown(live)


def test_an_epoch_under_way_shows_step_speed_waiting_and_checkpoint(live: LiveDisplay) -> None:
    live.epoch(epoch(1, 0.1), epoch(1, 0.1))
    live._progress = lambda: Word(Progress(2, 30, 60, 5.25, 39.4, 5.0), stored_epoch=1, storing=True)
    text = shown(live)
    assert "training" in text
    assert "1/4" in text
    assert "step 30/60" in text
    assert "2:30 left" in text  # 2.5 epochs of a minute
    assert "5.250" in text
    assert "39.4 images/s  waited 20% for data" in text
    assert "epoch 1 stored, one on its way" in text


def test_a_word_from_before_the_last_epoch_is_old(live: LiveDisplay) -> None:
    live._progress = lambda: Word(Progress(1, 30, 60, 5.25, 39.4, 5.0), stored_epoch=0, storing=False)
    live.epoch(epoch(1, 0.1), epoch(1, 0.1))
    assert "step" not in shown(live)


def test_a_repeated_epoch_replaces_its_first_attempt(live: LiveDisplay) -> None:
    for number, value in ((1, 0.1), (2, 0.2), (2, 0.3)):
        live.epoch(epoch(number, value), epoch(number, value))
    assert "0.300  ▁█  best 0.300 in epoch 2" in shown(live)


def test_a_sparkline_goes_from_least_to_most() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([0.3, 0.3]) == "▁▁"


def test_without_a_terminal_there_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with open_display() as display:
        assert not isinstance(display, LiveDisplay)
        display.begin("first", 4, lambda: None)
        display.stage("train")
        display.epoch(epoch(1, 0.25), None)
        display.restarted(2)  # said by those who know why
    assert capsys.readouterr().out == (
        "epoch 1/4  loss  2.000  mAP50 0.000  mAP50-95 0.250    20.0 img/s  waited 2% for data  3:00 left\n"
    )


def test_in_a_real_terminal_one_block_is_redrawn_and_gone_at_the_end() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", RUN], stdout=theirs, env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    )
    os.close(theirs)
    said = b""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            said += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait(10) == 0
    text = said.decode()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert "a line before" in plain
    assert "waited 10% for data" in plain
    assert re.search(r"restarts +1", plain)
    assert "epoch 1/2" not in plain  # the block shows it
    assert text.count("\x1b[1A") >= 6  # redrawn in place
    assert text.rstrip().endswith("the end")
    assert "\x1b[?25h" in text  # the cursor is back
