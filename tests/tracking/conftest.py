"""A real MLflow server that can be killed, a SQLite file that is ready at once, and a server that never answers."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

START_LIMIT_S = 90


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture
def run_dir(tmp_path: Path, empty_database: Path) -> Path:
    """A run's folder in an output folder whose ``mlflow.db`` is there already."""
    folder = tmp_path / "runs" / "run-1"
    folder.mkdir(parents=True)
    shutil.copy(empty_database, folder.parent / "mlflow.db")
    return folder


@pytest.fixture
def database(run_dir: Path) -> str:
    """The address that a run in ``run_dir`` is tracked at by default."""
    return f"sqlite:///{run_dir.parent / 'mlflow.db'}"


class MlflowServer:
    """``mlflow server`` in a process of its own, on one port through all its lives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers an API call."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}", "--workers", "1"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._folder / "server.log").open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self._wait()

    def kill(self) -> None:
        """SIGKILL to it and the workers it started."""
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """SIGSTOP: connections are taken, nothing is answered; what was asked meanwhile is done after ``go_on``."""
        assert self._process
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        assert self._process
        os.killpg(self._process.pid, signal.SIGCONT)

    def _wait(self) -> None:
        request = urllib.request.Request(
            f"{self.url}/api/2.0/mlflow/experiments/search",
            data=b'{"max_results": 1}',
            headers={"Content-Type": "application/json"},
        )
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(request, timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError((self._folder / "server.log").read_text())


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[MlflowServer]:
    """One server for the session; a test that kills it starts it again."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "mlflow.db")
    server = MlflowServer(folder)
    server.start()
    yield server
    server.kill()


@dataclass
class HungServer:
    """Its address, and the connections that it has taken and will never answer."""

    url: str
    accepted: list[socket.socket]


@pytest.fixture
def hung_server() -> Iterator[HungServer]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    accepted.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield HungServer(f"http://127.0.0.1:{listener.getsockname()[1]}", accepted)
        listener.shutdown(socket.SHUT_RDWR)
        for connection in accepted:
            connection.close()
        thread.join(timeout=5)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
