"""MLflow's client, tamed: bounded calls, nothing global, nothing sent home, and errors sorted in two.

In: an address. Out: an ``MlflowClient`` bound to it. MLflow reads its time limits from environment variables at every
call, so they are set here where the user has not; user name, password and token come from the environment as well
(``MLFLOW_TRACKING_USERNAME``, ``_PASSWORD``, ``_TOKEN``).
"""

import logging
import os
from typing import TYPE_CHECKING

from ray_jobs.errors import TrackingError
from ray_jobs.tracking.addresses import redact, sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

QUIET_AND_BOUNDED = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the delivery retries by itself, with a say in when
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds; MLflow's default is 120, times its retries
    "MLFLOW_DISABLE_TELEMETRY": "true",  # MLflow reports its usage to its makers by default
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

# The server has understood and will never accept: a retry is pointless. Everything else may pass with time.
_REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "FEATURE_DISABLED"})
_MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})


def connect(uri: str) -> "MlflowClient":
    """A client for ``uri``. Importing MLflow takes seconds: not a thing for the training thread."""
    for name, value in QUIET_AND_BOUNDED.items():
        os.environ.setdefault(name, value)
    if (database := sqlite_file(uri)) is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
    from mlflow import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # how it makes its tables concerns nobody
    return MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)


def probe(uri: str) -> None:
    """Ask the server for something small; raises TrackingError with the cause where it does not answer.

    A real call, since ``/health`` says 200 behind a wrong host name and with a dead database too. A SQLite file that
    is not there yet is not made, only its folder is looked at.
    """
    database = sqlite_file(uri)
    if database is not None and not database.exists():
        folder = next(parent for parent in database.parents if parent.exists())
        if not os.access(folder, os.W_OK):
            raise TrackingError(f"tracking database {database} cannot be made: {folder} is not writable")
        return
    try:
        connect(uri).search_experiments(max_results=1)
    except Exception as error:  # MLflow, requests, urllib3 and SQLAlchemy errors share no ancestor but this
        raise TrackingError(f"tracking server {redact(uri)} cannot be used: {cause(error)}") from error


def cause(error: BaseException) -> str:
    """An error in one line without secrets, as short as MLflow's nested messages allow."""
    text = " ".join(str(error).split()) or type(error).__name__
    for marker in ("(Caused by ", "failed with timeout exception ", "Failed to establish a new connection: "):
        text = text.rpartition(marker)[2].strip(" )\"'")
    return redact(text[:300])


def is_refusal(error: BaseException) -> bool:
    """True where the same request will be refused again, whenever it is sent."""
    return getattr(error, "error_code", None) in _REFUSALS or isinstance(error, FileNotFoundError)


def is_missing(error: BaseException) -> bool:
    """True where the server says that it does not know what was asked for."""
    return getattr(error, "error_code", None) in _MISSING
