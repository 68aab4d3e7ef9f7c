"""Addresses: what they resolve to, and that they give no secret away."""

from pathlib import Path

import pytest

from ray_jobs.errors import SettingsError
from ray_jobs.tracking.addresses import open_command, redact, redact_value, resolve_uri, run_page


def test_without_settings_runs_go_to_a_file_in_the_output_folder(tmp_path: Path) -> None:
    assert resolve_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


def test_settings_come_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://from-environment:5000")
    assert resolve_uri(None, tmp_path) == "http://from-environment:5000"
    assert resolve_uri("http://from-settings:5000", tmp_path) == "http://from-settings:5000"


def test_a_relative_file_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_uri("sqlite:///x/mlflow.db", Path("runs")) == f"sqlite:///{tmp_path}/x/mlflow.db"


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "file:///tmp/mlruns"])
def test_a_folder_is_refused_with_what_to_use(tmp_path: Path, uri: str) -> None:
    with pytest.raises(SettingsError, match=r"tracking\.uri: .*use sqlite:///FILE"):
        resolve_uri(uri, tmp_path)


def test_credentials_in_addresses_are_hidden() -> None:
    assert redact("see https://anna:s3cr3t@host:5000/x and more") == "see https://***@host:5000/x and more"
    assert redact("http://host:5000/path@2") == "http://host:5000/path@2"


def test_values_of_secret_variables_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok-123456")
    assert redact("refused token tok-123456") == "refused token ***"


@pytest.mark.parametrize("key", ["password", "storage.secret_key", "AWS_SECRET_ACCESS_KEY", "hub_token"])
def test_what_is_named_like_a_secret_is_hidden(key: str) -> None:
    assert redact_value(key, "visible") == "***"


@pytest.mark.parametrize("key", ["tokens_seen", "keep", "patience", "model_name"])
def test_what_is_not_stays(key: str) -> None:
    assert redact_value(key, "visible") == "visible"


def test_a_page_only_where_a_server_shows_it() -> None:
    assert run_page("http://u:p@h:5000/", "1", "abc") == "http://***@h:5000/#/experiments/1/runs/abc"
    assert run_page("sqlite:////x/mlflow.db", "1", "abc") is None
    assert open_command("http://u:p@h:5000") == "http://***@h:5000"


def test_the_command_that_opens_a_database_exists() -> None:
    command = open_command("sqlite:////x/mlflow.db").split()
    assert Path(command[1]).is_file()
    assert command[2:] == ["server", "--backend-store-uri", "sqlite:////x/mlflow.db"]
