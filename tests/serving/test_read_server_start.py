"""What can be wrong at the start is told in one line, before anything runs."""

import os
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from small_detector import small_detector

from ray_jobs import read_server
from ray_jobs.errors import BadInput, PlatformError
from ray_jobs.read_server import check_room, main, stop_serving
from ray_jobs.tracking.client import connect


@pytest.fixture
def registry(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{shutil.copy(empty_database, tmp_path / 'mlflow.db')}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    connect(uri).create_registered_model("known")


def refusal(*arguments: str, token: str = "a token that nobody guesses") -> str:
    with mock.patch.dict(os.environ, XRAY_READ_TOKEN=token), pytest.raises(BadInput) as error:
        main(arguments)
    assert error.value.exit_code == 2
    return str(error.value)


@pytest.mark.parametrize("token", ["", "short"])
def test_no_token(token: str) -> None:
    assert "XRAY_READ_TOKEN: must be set" in refusal("--model", "best.onnx", token=token)


@pytest.mark.usefixtures("registry")
def test_no_such_model_or_alias() -> None:
    assert "it has known" in refusal("--model", "models:/unknown@champion", "--port", "0")
    assert "its aliases: none" in refusal("--model", "models:/known@champion", "--port", "0")
    assert "its aliases: none" in refusal("--model", "models:/known/7", "--port", "0")


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    "model",
    [
        "models:/../../etc/passwd",
        "models:/a/b@champion",
        "models:/known@champion/../1",
        "models:/known@../x",
        "models:/known",
        "models:/known@a b",
        "models:/%2e%2e@champion",
        "models:/known'or'1@champion",
        "models:/\n@champion",
    ],
)
def test_path_tricks_in_names(model: str) -> None:
    assert "must be models:/NAME@ALIAS" in refusal("--model", model, "--port", "0")


def test_no_registry_at_the_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'gone.db'}")
    assert "no such database" in refusal("--model", "models:/known@champion", "--port", "0")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    assert "check MLFLOW_TRACKING_URI" in refusal("--model", "models:/known@champion", "--port", "0")


def test_a_taken_port_and_a_threshold_that_does_not_fit() -> None:
    model = str(small_detector() / "best.onnx")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert "cannot be listened on" in refusal("--model", model, "--port", str(port))
    assert "no class 'Blob'" in refusal("--model", model, "--port", "0", "--threshold", "Blob=0.2")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray Serve's own fields
@pytest.mark.parametrize(
    ("joined", "applications", "done"),
    [
        (True, ["xray-reader", "translator"], ["delete xray-reader"]),
        (True, ["xray-reader"], ["shutdown"]),
        (False, ["xray-reader"], ["shutdown"]),
    ],
)
def test_what_others_serve_stays(
    monkeypatch: pytest.MonkeyPatch, joined: bool, applications: list[str], done: list[str]
) -> None:
    from ray import serve
    from ray.serve.schema import ServeStatus

    asked: list[str] = []
    monkeypatch.setattr(serve, "status", lambda: ServeStatus(applications=dict.fromkeys(applications)))
    monkeypatch.setattr(serve, "delete", lambda name: asked.append(f"delete {name}"))
    monkeypatch.setattr(serve, "shutdown", lambda: asked.append("shutdown"))
    stop_serving(joined)
    assert asked == done
    with pytest.raises(BadInput, match=r"10\.0\.0\.1:6379: a read server is there already"):
        check_room("10.0.0.1:6379", "127.0.0.1", 8010)


def test_a_cluster_that_serves_at_another_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Serve has one address for all that it serves and would ignore ours; here it only says which."""
    from ray import serve

    there = SimpleNamespace(http_config=SimpleNamespace(host="0.0.0.0", port=8000))
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications={}))
    monkeypatch.setattr("ray.serve.context._get_global_client", lambda **_: there)
    with pytest.raises(BadInput, match=r"Serve listens at 0\.0\.0\.0:8000 already; give --host 0\.0\.0\.0 --port 8000"):
        check_room("10.0.0.1:6379", "127.0.0.1", 8010)
    check_room("10.0.0.1:6379", "0.0.0.0", 8000)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray Serve's own fields
def test_a_proxy_that_does_not_start_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import serve
    from ray.exceptions import ActorDiedError

    stopped: list[bool] = []
    monkeypatch.setattr(serve, "start", mock.Mock(side_effect=ActorDiedError()))
    monkeypatch.setattr(read_server, "stop_serving", stopped.append)
    options = read_server._parse(["--model", "best.onnx"])
    with pytest.raises(PlatformError) as error:
        read_server._serve_until_stopped(options, None, "a token that nobody guesses", joined=False)
    assert str(error.value).startswith("the read server could not be started: The actor died")
    assert "\n" not in str(error.value)
    assert stopped == [False]
