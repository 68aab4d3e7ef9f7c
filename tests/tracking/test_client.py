"""The tamed client: bounded and quiet by default, causes in one line, and a probe that changes nothing."""

import os
from pathlib import Path

import pytest

from ray_jobs.errors import TrackingError
from ray_jobs.tracking.client import cause, connect, probe

from .conftest import HungServer, MlflowServer, free_port


def test_calls_are_bounded_unless_the_user_says_otherwise(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    connect(database)
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_nothing_global_is_set(database: str) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    connect(database).search_experiments()
    assert mlflow.get_tracking_uri() == before != database
    assert mlflow.active_run() is None


def test_a_server_that_answers_passes_the_probe(mlflow_server: MlflowServer) -> None:
    probe(mlflow_server.url)


def test_a_server_that_is_down_is_named_with_its_cause() -> None:
    port = free_port()
    with pytest.raises(TrackingError) as caught:
        probe(f"http://anna:secret@127.0.0.1:{port}")
    assert (
        str(caught.value)
        == f"tracking server http://***@127.0.0.1:{port} cannot be used: [Errno 111] Connection refused"
    )


def test_a_server_that_hangs_is_given_up(hung_server: HungServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with pytest.raises(TrackingError, match=r"Read timed out\. \(read timeout=1"):
        probe(hung_server.url)
    assert hung_server.accepted


def test_a_database_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    probe(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be looked at" * 100)
    with pytest.raises(TrackingError, match=r"mlflow\.db cannot be used: .*not a database"):
        probe(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_cause_is_one_line_without_secrets() -> None:
    assert cause(ValueError("first\n  second https://a:b@host/x")) == "first second https://***@host/x"
    assert cause(ValueError()) == "ValueError"
