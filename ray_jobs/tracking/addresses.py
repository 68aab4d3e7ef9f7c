"""Where tracking goes, as an address that may be written down.

In: ``tracking.uri`` of the settings and the environment. Out: the address to connect to, the same address without
its secrets, and the page or the command that shows a run.
"""

import os
import re
import sys
from pathlib import Path
from urllib.parse import quote, urlsplit

from ray_jobs.errors import SettingsError

TRACKING_OFF = frozenset({"none", "off"})
HIDDEN = "***"

_CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")
_SECRET_NAME = re.compile(r"(password|passwd|token|secret|secret_key|secret_access_key|api_key)$", re.IGNORECASE)
_SHORTEST_SECRET = 6  # shorter values of environment variables occur in ordinary words


def resolve_uri(uri: str | None, output_dir: Path) -> str:
    """The address to connect to: ``uri``, else ``MLFLOW_TRACKING_URI``, else a SQLite file in ``output_dir``.

    Relative SQLite files are made absolute, so that a later replay from another folder finds the same one.
    Raises SettingsError for an address that MLflow 3 does not serve, such as a folder.
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{output_dir.resolve() / 'mlflow.db'}"
    if chosen.startswith("sqlite:///"):
        return f"sqlite:///{Path(chosen.removeprefix('sqlite:///')).resolve()}"
    scheme = urlsplit(chosen).scheme
    if scheme in ("", "file"):
        raise SettingsError(
            f"tracking.uri: MLflow no longer keeps runs in folders, got {redact(chosen)!r}; "
            "use sqlite:///FILE, http(s)://SERVER, or none"
        )
    return chosen


def sqlite_file(uri: str) -> Path | None:
    """The file behind a SQLite address, None for any other."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def is_server(uri: str) -> bool:
    """True for an MLflow server, False for a database that is opened directly."""
    return uri.startswith(("http://", "https://"))


def redact(text: str) -> str:
    """``text`` without ``user:password@`` in addresses and without the values of secret environment variables."""
    clean = _CREDENTIALS.sub(f"{HIDDEN}@", text)
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and _SECRET_NAME.search(name) and value in clean:
            clean = clean.replace(value, HIDDEN)
    return clean


def redact_value(key: str, value: object) -> str:
    """A parameter or tag as text, hidden altogether where its name says that it is a secret."""
    return HIDDEN if value and _SECRET_NAME.search(key) else redact(str(value))


def run_page(uri: str, experiment_id: str | None, run_id: str | None) -> str | None:
    """The address of a run's page, None where no server shows it."""
    if not (is_server(uri) and experiment_id and run_id):
        return None
    return f"{redact(uri).rstrip('/')}/#/experiments/{quote(experiment_id)}/runs/{quote(run_id)}"


def open_command(uri: str) -> str:
    """What a person does to look at the runs: a command for a database, the page for a server.

    The command works as it stands, also where the virtual environment is not activated, and starts the server without
    its job runners, which need eight processes and 1.7 GB.
    """
    if is_server(uri):
        return redact(uri)
    program = Path(sys.executable).with_name("mlflow")
    shown = program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program
    return f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {shown} server --backend-store-uri {redact(uri)}"
