"""The journal: every epoch once, whatever was repeated, and a line that a person reads."""

import json
from pathlib import Path

from ray_jobs.flows.journal import JournalReader, epoch_line


def line(epoch: int, fitness: float = 0.1) -> str:
    metrics = {
        "epoch": epoch,
        "started": 10.0 * epoch,
        "last": False,
        "weights_digest": "ab",
        "local_rank": 0,
        "val/fitness": fitness,
        "val/map50": 0.25,
        "train/box_loss": 2.0,
        "train/cls_loss": 1.5,
        "images_per_second": 20.0,
    }
    record = {"kind": "epoch", "time": 10.0 * epoch + 10, "metrics": metrics, "weights_digests": ["ab", "ab"]}
    return json.dumps(record) + "\n"


def test_epochs_are_read_once_as_they_come(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path / "journal.jsonl")
    assert list(reader.read_new()) == []
    reader.path.write_text(line(1) + line(2)[:30])
    assert [epoch.number for epoch in reader.read_new()] == [1]
    reader.path.write_text(line(1) + line(2))
    assert [epoch.number for epoch in reader.read_new()] == [2]
    assert list(reader.read_new()) == []


def test_repeated_epochs_and_restarts(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path / "journal.jsonl")
    failure = json.dumps({"kind": "failure", "time": 0, "causes": {}}) + "\n"
    reader.path.write_text(line(1) + line(2) + failure + line(2) + line(3))
    assert [epoch.number for epoch in reader.read_new()] == [1, 2, 2, 3]
    assert [epoch.number for epoch in reader.epochs] == [1, 2, 3]
    assert reader.restarts == 1


def test_what_a_lost_attempt_reached_does_not_count(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path / "journal.jsonl")
    reader.path.write_text(line(1, 0.1) + line(2, 0.9) + line(2, 0.2) + line(3, 0.3))
    list(reader.read_new())
    assert reader.best
    assert (reader.best.number, reader.best.metrics["val/fitness"]) == (3, 0.3)


def test_a_line_that_was_cut_short_is_passed_over(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path / "journal.jsonl")
    reader.path.write_text(line(1) + line(2)[:40] + "\n" + line(2))
    assert [epoch.number for epoch in reader.read_new()] == [1, 2]


def test_the_best_epoch_is_the_last_of_equals(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path / "journal.jsonl")
    reader.path.write_text(line(1, 0.3) + line(2, 0.3) + line(3, 0.2))
    epochs = list(reader.read_new())
    assert reader.best == epochs[1]
    assert epochs[0].world_size == 2
    assert "weights_digest" not in epochs[0].metrics


def test_a_line_for_people(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path / "journal.jsonl")
    reader.path.write_text(line(5))
    (epoch,) = reader.read_new()
    assert epoch_line(epoch, 25) == "epoch  5/25  loss  3.500  mAP50 0.250  mAP50-95 0.000    20.0 img/s  3:20 left"


def test_events_are_kept_beside_the_epochs(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path / "journal.jsonl")
    failure = json.dumps({"kind": "failure", "time": 5.0, "causes": ["rank 1: its process died"]}) + "\n"
    state = json.dumps({"kind": "state", "time": 6.0, "state": "running", "workers": 2}) + "\n"
    reader.path.write_text(line(1) + failure + state + line(2))
    assert [epoch.number for epoch in reader.read_new()] == [1, 2]
    assert [(event.kind, event.text, event.is_fault) for event in reader.events] == [
        ("failure", "rank 1: its process died", True),
        ("state", "running", False),
    ]
