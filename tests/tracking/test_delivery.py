"""The delivery: sent twice, interrupted anywhere, refused: each record arrives once or is set aside."""

import json
import shutil
from pathlib import Path

import pytest

from ray_jobs.errors import BadInput, TrackingError
from ray_jobs.tracking.client import connect
from ray_jobs.tracking.delivery import RUN_UID_TAG, Delivery
from ray_jobs.tracking.registry import RegistryRequest
from ray_jobs.tracking.spool import spool_path
from ray_jobs.tracking.tracker import Tracker, open_tracker

from .conftest import MlflowServer, free_port
from .contents import assert_whole, contents, log_a_whole_run


@pytest.fixture
def spooled(run_dir: Path, tiny_onnx: Path) -> Path:
    """A run's folder with a whole run, a model and an end in its spool, nothing of it sent."""
    tracker = open_tracker(run_dir, "run-1", uri=f"http://127.0.0.1:{free_port()}", system_interval_s=None)
    assert isinstance(tracker, Tracker)
    log_a_whole_run(tracker)
    shutil.copy(tiny_onnx, run_dir / "best.onnx")
    tracker.register(RegistryRequest("detector", run_dir / "best.onnx"))
    assert tracker.finish(timeout_s=0).pending == len(spool_path(run_dir).read_text().splitlines())
    tracker._thread.join(timeout=30)
    return run_dir


def send(run_dir: Path, uri: str) -> int:
    delivery = Delivery(run_dir, uri)
    try:
        return delivery.send_pending()
    finally:
        delivery.close()


def versions(uri: str) -> list[str]:
    return [str(version.version) for version in connect(uri).search_model_versions("name = 'detector'")]


def test_sent_twice_changes_nothing(spooled: Path, database: str) -> None:
    assert send(spooled, database) == len(spool_path(spooled).read_text().splitlines())
    before = contents(database)
    assert send(spooled, database) == 0
    assert contents(database) == before
    assert_whole(before[0])
    assert versions(database) == ["1"]


def test_a_server_behind_http_gets_everything_once_too(spooled: Path, mlflow_server: MlflowServer) -> None:
    send(spooled, mlflow_server.url)
    (spooled / "tracking" / "cursor.json").unlink()
    send(spooled, mlflow_server.url)
    (run,) = contents(mlflow_server.url)
    assert_whole(run)
    assert versions(mlflow_server.url) == ["1"]


def test_killed_after_every_single_record_it_arrives_once(spooled: Path, database: str) -> None:
    """The crash between the server's confirmation and the cursor, at each place where it can fall."""
    cursor = spooled / "tracking" / "cursor.json"
    whole = spool_path(spooled).read_text()
    lines = whole.splitlines(keepends=True)
    for count in range(1, len(lines) + 1):
        spool_path(spooled).write_text("".join(lines[:count]))
        remembered = cursor.read_text() if cursor.exists() else None
        send(spooled, database)
        if remembered is None:
            cursor.unlink()
        else:
            cursor.write_text(remembered)
        send(spooled, database)
    cursor.unlink()
    send(spooled, database)
    (run,) = contents(database)
    assert_whole(run)
    assert run["status"] == "FINISHED"
    assert versions(database) == ["1"]


def test_a_run_that_was_made_twice_by_a_lost_answer_is_one_again(spooled: Path, database: str) -> None:
    client = connect(database)
    experiment = client.create_experiment("xray-detector", artifact_location=(spooled.parent / "a").as_uri())
    uid = json.loads(spool_path(spooled).read_text().splitlines()[0])["uid"]
    for _ in range(2):
        client.create_run(experiment, tags={RUN_UID_TAG: uid})
    send(spooled, database)
    (run,) = contents(database)
    assert_whole(run)


def test_what_the_server_will_never_take_is_set_aside_and_the_rest_arrives(
    spooled: Path, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    (spooled / "plots" / "curve.txt").unlink()
    lines = spool_path(spooled).read_text().splitlines()
    bad = {"kind": "metrics", "step": 0, "time_ms": 1, "values": {"not (allowed)": 1.0}}
    spool_path(spooled).write_text("\n".join([*lines[:3], json.dumps(bad), *lines[3:]]) + "\n")
    delivery = Delivery(spooled, database)
    delivery.send_pending()
    delivery.close()
    assert delivery.refused == 2
    refused = [json.loads(line) for line in (spooled / "tracking" / "refused.jsonl").read_text().splitlines()]
    assert [line["record"]["kind"] for line in refused] == ["metrics", "artifact"]
    assert "curve.txt: no such file" in refused[1]["reason"]
    assert "refused and set aside" in caplog.text
    (run,) = contents(database)
    assert run["files"] == ["settings.yaml"]
    assert len(run["points"]["metrics/mAP50B"]) == 3
    assert run["status"] == "FINISHED"


def test_a_server_that_lost_the_run_gets_it_again(spooled: Path, database: str, empty_database: Path) -> None:
    send(spooled, database)
    other = spooled.parent / "other.db"
    shutil.copy(empty_database, other)
    cursors = json.loads((spooled / "tracking" / "cursor.json").read_text())
    begun = len(spool_path(spooled).read_bytes().splitlines(keepends=True)[0])
    moved = next(iter(cursors.values())) | {"offset": begun}
    (spooled / "tracking" / "cursor.json").write_text(json.dumps({f"sqlite:///{other}": moved}))
    send(spooled, f"sqlite:///{other}")
    (run,) = contents(f"sqlite:///{other}")
    assert_whole(run)


def test_a_run_that_a_person_deleted_is_not_made_again(spooled: Path, database: str) -> None:
    send(spooled, database)
    (run,) = contents(database)
    connect(database).delete_run(run["id"])
    with spool_path(spooled).open("a") as file:
        file.write('{"kind":"tags","values":{"late":"tag"}}\n')
    with pytest.raises(TrackingError, match=f"run {run['id']} was deleted"):
        send(spooled, database)
    assert contents(database) == []


def test_only_one_process_sends(spooled: Path, database: str) -> None:
    first = Delivery(spooled, database)
    first._lock()
    with pytest.raises(TrackingError, match="another process is sending this run"):
        send(spooled, database)
    first.close()
    assert send(spooled, database) > 0


def test_a_spool_without_a_beginning_is_refused(run_dir: Path, database: str) -> None:
    spool_path(run_dir).parent.mkdir()
    spool_path(run_dir).write_text('{"kind":"tags","values":{}}\n')
    with pytest.raises(BadInput, match="does not begin with the start of a run"):
        send(run_dir, database)


def test_records_of_a_newer_version_are_not_skipped(spooled: Path, database: str) -> None:
    with spool_path(spooled).open("a") as file:
        file.write('{"kind":"hologram"}\n')
    with pytest.raises(BadInput, match="'hologram'; it was written by a newer version"):
        send(spooled, database)
