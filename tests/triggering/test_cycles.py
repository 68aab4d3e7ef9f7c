"""The watch and its ledger: what counts, when a cycle is due, and that a crash at any point neither loses nor doubles.

The cluster is a dictionary here, because crashes between two lines of code have to be injected; test_circle.py has a
real one.
"""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest

from ray_jobs.errors import ClusterError, SettingsError
from ray_jobs.triggering.cycles import Ledger
from ray_jobs.triggering.messages import FinetuneRequest
from ray_jobs.triggering.options import JobOptions, TriggerOptions, WatchOptions, read_options, read_token
from ray_jobs.triggering.queue import Desk, JobRuns
from ray_jobs.triggering.ray_jobs_api import Order, Submitted
from ray_jobs.triggering.service import without_secrets
from ray_jobs.triggering.watcher import Watcher, due

NOW = datetime(2030, 1, 2, 12, 0, tzinfo=UTC)


class Cluster:
    """Jobs by id, as Ray would know them; ``crash`` dies before or after a job is taken."""

    def __init__(self) -> None:
        self.jobs: dict[str, Submitted] = {}
        self.orders: list[Order] = []
        self.crash = ""

    def submit(self, order: Order) -> None:
        if self.crash == "before":
            raise KeyboardInterrupt
        if order.id not in self.jobs:
            self.orders.append(order)
            known = (order.id, order.kind, order.run_name, order.started_by)
            self.jobs[order.id] = Submitted(*known, "RUNNING", None, None, None, None)
        if self.crash == "after":
            raise KeyboardInterrupt

    def all(self) -> list[Submitted]:
        return list(self.jobs.values())

    def unfinished(self) -> Submitted | None:
        return next((job for job in self.jobs.values() if job.state == "RUNNING"), None)

    def get(self, job_id: str) -> Submitted | None:
        return self.jobs.get(job_id)

    def end(self, runs: Path, outcome: str | None, state: str = "SUCCEEDED") -> None:
        job = self.unfinished()
        assert job
        self.jobs[job.id] = Submitted(*list(vars(job).values())[:4], state, None, None, 0, None)
        if outcome:
            (runs / job.run_name).mkdir(parents=True, exist_ok=True)
            (runs / job.run_name / "promotion.json").write_text(json.dumps({"state": outcome}))


class Place:
    """A watched folder and a service that can die and come back."""

    def __init__(self, folder: Path, **watch: object) -> None:
        self.folder = folder
        (folder / "images").mkdir()
        (folder / "labels").mkdir()
        (folder / "data.yaml").write_text("train: images\nnames: [Mass, No finding]\n")
        self.options = TriggerOptions(
            runs=folder / "runs",
            state=folder / "state",
            training=JobOptions(data=folder / "data.yaml"),
            finetune=JobOptions(data=folder / "data.yaml", settings={"epochs": 1}),
            watch=WatchOptions(**{"enabled": True, "min_images": 3, "settle_s": 0, **watch}),
        )
        self.cluster = Cluster()
        self.restart()

    def restart(self) -> None:
        self.desk = Desk(self.cluster, self.options.state)
        self.ledger = Ledger(self.options.state)
        self.watcher = Watcher(self.options, self.cluster, self.desk, self.ledger)

    def drop(self, *numbers: int, label: str | None = "0 0.5 0.5 0.2 0.2\n") -> None:
        for number in numbers:
            pixels = np.random.default_rng(number).integers(0, 255, (32, 32), dtype=np.uint8)
            cv2.imwrite(str(self.folder / "images" / f"{number}.png"), pixels)
            if label is not None:
                (self.folder / "labels" / f"{number}.txt").write_text(label)

    def look(self) -> list[list[int]]:
        """The images of each job so far."""
        self.watcher.look()
        return [self.learned(order) for order in self.cluster.orders]

    def learned(self, order: Order) -> list[int]:
        data = Path(order.command[order.command.index("--data") + 1])
        return sorted(int(Path(line).stem) for line in (data.parent / "train.txt").read_text().splitlines())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_enough_new_images_start_one_cycle(place: Place) -> None:
    place.drop(1, 2)
    assert place.look() == []
    place.drop(3)
    assert place.look() == [[1, 2, 3]]
    assert place.look() == [[1, 2, 3]]
    command = place.cluster.orders[0].command
    assert command[:5] == ("python", "-m", "ray_jobs.retrain", "--from", "models:/xray-detector@champion")
    assert "epochs=1" in command


def test_an_image_without_a_label_file_or_with_a_problem_does_not_count(place: Place) -> None:
    place.drop(1, 2)
    place.drop(3, label=None)
    place.drop(4, label="7 0.5 0.5 0.2 0.2\n")
    place.drop(5)
    (place.folder / "images" / "5.png").write_bytes(b"\x89PNG cut short")
    assert place.look() == []
    assert place.watcher.seen.unlabelled == 1
    assert len(place.watcher.seen.unsound) == 2
    place.drop(3, label="")  # no finding is a label, too
    assert place.look() == [[1, 2, 3]]


def test_a_name_that_no_list_can_hold_does_not_stop_the_watch(place: Place) -> None:
    place.drop(1, 2, 3, 4)
    for kind, suffix in (("images", "png"), ("labels", "txt")):
        (place.folder / kind / f"4.{suffix}").rename(place.folder / kind / f"b\udcffd.{suffix}")
    assert place.look() == [[1, 2, 3]]
    assert place.watcher.problem is None
    (said,) = place.watcher.seen.unsound
    assert "its name is not UTF-8" in said
    said.encode()


def test_the_same_picture_under_two_names_counts_once(place: Place) -> None:
    place.drop(1, 2)
    for kind, suffix in (("images", "png"), ("labels", "txt")):
        (place.folder / kind / f"copy.{suffix}").write_bytes((place.folder / kind / f"1.{suffix}").read_bytes())
    assert place.look() == []


def test_files_that_are_still_being_written_wait(tmp_path: Path) -> None:
    place = Place(tmp_path, settle_s=60)
    place.drop(1, 2, 3)
    assert place.look() == []
    for file in (*tmp_path.glob("images/*"), *tmp_path.glob("labels/*")):
        os.utime(file, (time.time() - 61,) * 2)
    assert place.look() == [[1, 2, 3]]


def test_what_was_learned_is_not_learned_again_and_what_was_refused_comes_along(place: Place) -> None:
    place.drop(1, 2, 3)
    place.look()
    place.drop(4, 5, 6)
    assert len(place.look()) == 1  # one cycle at a time
    place.cluster.end(place.options.runs, "promoted")
    assert place.look() == [[1, 2, 3], [4, 5, 6]]
    place.cluster.end(place.options.runs, "refused")
    assert len(place.look()) == 2  # the old ones alone start nothing
    place.drop(7, 8)
    assert len(place.look()) == 2
    place.drop(9)
    assert place.look()[2] == [4, 5, 6, 7, 8, 9]
    place.cluster.end(place.options.runs, None, "FAILED")
    place.drop(10, 11, 12)
    assert place.look()[3] == [4, 5, 6, 7, 8, 9, 10, 11, 12]


def test_a_decision_that_waits_holds_its_images_until_it_is_made(place: Place) -> None:
    place.drop(1, 2, 3)
    place.look()
    place.cluster.end(place.options.runs, "waiting")
    place.look()
    assert place.ledger.cycles()[0].state == "waiting"
    (place.options.runs / place.cluster.orders[0].run_name / "promotion.json").write_text('{"state": "promoted"}')
    place.look()
    assert place.ledger.cycles()[0].state == "promoted"


@pytest.mark.parametrize("crash", ["before", "after"])
def test_a_crash_at_the_submission_neither_loses_nor_doubles(place: Place, crash: str) -> None:
    place.drop(1, 2, 3)
    place.cluster.crash = crash
    with pytest.raises(KeyboardInterrupt):
        place.watcher.look()
    place.cluster.crash = ""
    place.restart()
    place.drop(4)  # more has come in meanwhile
    assert place.look() == [[1, 2, 3]]
    place.restart()
    assert place.look() == [[1, 2, 3]]


def test_a_crash_while_a_cycle_is_written_down_loses_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.drop(1, 2, 3)
    monkeypatch.setattr(Ledger, "_write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        place.watcher.look()
    monkeypatch.undo()
    place.restart()
    assert place.look() == [[1, 2, 3]]


def test_a_job_that_was_lost_with_the_cluster_is_submitted_again(place: Place) -> None:
    place.drop(1, 2, 3)
    place.look()
    first = place.cluster.orders[0]
    place.cluster.jobs.clear()
    place.look()
    assert place.cluster.orders == [first, first]  # the same run goes on


def test_a_cluster_that_does_not_answer_is_said_and_loses_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise ClusterError("no answer")

    place.drop(1, 2, 3)
    monkeypatch.setattr(place.cluster, "submit", down)
    place.look()
    assert place.watcher.problem == "no answer"
    monkeypatch.undo()
    assert place.look() == [[1, 2, 3]]
    assert place.watcher.problem is None


def test_a_request_begins_a_cycle_with_what_is_there(place: Place) -> None:
    assert place.watcher.begin(FinetuneRequest()) is None
    place.drop(1)
    cycle = place.watcher.begin(FinetuneRequest(run_name="by-hand"))
    assert cycle
    assert place.look() == [[1]]
    assert place.cluster.orders[0].run_name == "by-hand"
    place.drop(2)
    with pytest.raises(JobRuns):
        place.watcher.begin(FinetuneRequest())
    waiting = place.watcher.begin(FinetuneRequest(queue=True))
    assert waiting
    assert place.watcher.withdraw(waiting.id)
    place.cluster.end(place.options.runs, "refused")
    assert place.look() == [[1]]  # what was withdrawn does not come back
    assert not place.watcher.withdraw(waiting.id)


@pytest.mark.parametrize(
    ("watch", "new", "hours_ago", "is_due"),
    [
        ({}, 50, 0, True),
        ({}, 49, 9999, False),
        ({"every": "12h"}, 1, 12, True),
        ({"every": "12h"}, 1, 11, False),
        ({"every": "12h"}, 0, 99, False),
        ({"every": "2d"}, 1, 47, False),
        ({"at": "02:00"}, 1, 11, True),
        ({"at": "02:00"}, 1, 9, False),
        ({"at": "13:00"}, 1, 22, False),
        ({"at": "13:00"}, 1, 24, True),
        ({"at": "02:00"}, 0, 99, False),
    ],
)
def test_the_schedule(watch: dict[str, str], new: int, hours_ago: float, is_due: bool) -> None:
    assert due(WatchOptions(**watch), new, NOW - timedelta(hours=hours_ago), NOW) is is_due


def test_settings_are_refused_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "trigger.yaml").write_text(
        "port: 99999\nmodel: ../x\ntraining: {data: a}\nfinetune: {data: b}\n"
        "watch:\n  every: often\n  at: 12:00\n  x: 1\n"
    )
    with pytest.raises(SettingsError) as caught:
        read_options(tmp_path / "trigger.yaml")
    said = str(caught.value)
    for part in (
        "trigger.yaml:1: port",
        "trigger.yaml:2: model",
        "trigger.yaml:6: watch.every: must be a time such as",
        "in quotes",
    ):
        assert part in said
    assert len(caught.value.problems) == 5


def test_settings_that_a_job_would_refuse_are_refused_at_the_start_without_the_password(tmp_path: Path) -> None:
    (tmp_path / "trigger.yaml").write_text(
        "training: {data: a, settings: {tracking.uri: 'http://ann:hunter2@server'}}\n"
        "finetune: {data: b, settings: {epochs: 0, tracking.alias: champion}}\n"
    )
    with pytest.raises(SettingsError) as caught:
        read_options(tmp_path / "trigger.yaml")
    said = str(caught.value)
    assert "trigger.yaml: training.settings: tracking.uri: must hold no password" in said
    assert "trigger.yaml: finetune.settings: epochs: must be at least 1, got 0" in said
    assert "hunter2" not in said


def test_what_is_shown_of_the_options_has_no_secrets() -> None:
    shown = without_secrets({"ray": "http://ann:hunter2@head", "settings": {"tracking.tags.api_key": "k", "epochs": 3}})
    assert shown == {"ray": "http://***@head", "settings": {"tracking.tags.api_key": "***", "epochs": 3}}


def test_the_settings_that_come_with_the_project_are_valid() -> None:
    options = read_options(Path(__file__).parents[2] / "config" / "trigger.yaml")
    assert options.host == "127.0.0.1"
    assert not options.watch.enabled


def test_a_service_that_dies_while_an_order_is_withdrawn_does_not_start_it(place: Place) -> None:
    place.drop(1)
    assert place.watcher.begin(FinetuneRequest())
    place.drop(2)
    waiting = place.watcher.begin(FinetuneRequest(queue=True))
    assert waiting
    place.ledger.close(waiting, "failed")  # the first of its two steps
    place.restart()
    place.cluster.end(place.options.runs, "promoted")
    place.watcher.look()
    assert waiting.id not in place.cluster.jobs
    assert place.desk.waiting() == []


@pytest.mark.parametrize("token", ["", "short"])
def test_no_token_no_service(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XRAY_TRIGGER_TOKEN", token)
    with pytest.raises(SettingsError, match="XRAY_TRIGGER_TOKEN: must be set to at least 16 characters"):
        read_token()
