"""A registered detector comes back: from ``models:/NAME@ALIAS`` to the bytes of its ONNX file.

In: an address and a tracking server. Out: the version that the alias stands for, and what it reads with. An alias
moves; a version never changes.
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ray_jobs.errors import BadInput, PlatformError, TrackingError
from ray_jobs.tracking.addresses import redact, sqlite_file
from ray_jobs.tracking.client import cause, connect, is_missing

if TYPE_CHECKING:
    from mlflow import MlflowClient

SCHEME = "models:/"

_NAME = r"[^/\\:.%\"'@\s][^/\\:.%\"'@\x00-\x1f]{0,199}"
_ADDRESS = re.compile(rf"models:/(?P<name>{_NAME})(?:@(?P<alias>[A-Za-z][A-Za-z0-9_-]*)|/(?P<version>[0-9]{{1,9}}))")


@dataclass(frozen=True)
class ModelAddress:
    """A registered model, and either an alias or a version of it."""

    name: str
    alias: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}@{self.alias}" if self.alias else f"{SCHEME}{self.name}/{self.version}"


def parse_address(text: str) -> ModelAddress:
    """``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``. Raises BadInput for anything else, such as paths."""
    found = _ADDRESS.fullmatch(text)
    if not found:
        raise BadInput(
            f"{text!r}: must be {SCHEME}NAME@ALIAS or {SCHEME}NAME/VERSION; names hold no / \\ : . % @ or quotes"
        )
    return ModelAddress(found["name"], found["alias"], found["version"])


def current_version(uri: str, address: ModelAddress) -> str:
    """The version that an address stands for now.

    Raises BadInput where there is no such model, alias or version, TrackingError where the server does not answer.
    """
    return _current_version(_connect(uri), uri, address)


def fetch_onnx(uri: str, name: str, version: str) -> bytes:
    """The ONNX file of a registered version.

    Raises BadInput for a version that holds none, TrackingError where the server does not answer.
    """
    client = _connect(uri)
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory(prefix="xray-model-") as folder:
        try:
            source = client.get_model_version_download_uri(name, version)
            download_artifacts(artifact_uri=source, dst_path=folder, tracking_uri=uri)
        except Exception as error:  # MLflow, requests, urllib3 and SQLAlchemy errors share no ancestor but this
            raise TrackingError(
                f"{SCHEME}{name}/{version}: cannot be fetched from {redact(uri)}: {cause(error)}"
            ) from None
        files = sorted(Path(folder).rglob("*.onnx"))
        if len(files) != 1:
            raise BadInput(
                f"{SCHEME}{name}/{version}: holds {len(files)} ONNX files; it was not registered by this project"
            )
        return files[0].read_bytes()


def _connect(uri: str) -> "MlflowClient":
    database = sqlite_file(uri)
    if database is not None and not database.is_file():
        raise BadInput(f"{redact(uri)}: no such database; set MLFLOW_TRACKING_URI to where the model is registered")
    return connect(uri)


def _current_version(client: "MlflowClient", uri: str, address: ModelAddress) -> str:
    try:
        if address.version:
            return str(client.get_model_version(address.name, address.version).version)
        return str(client.get_model_version_by_alias(address.name, str(address.alias)).version)
    except Exception as error:
        if is_missing(error) or getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE":
            raise BadInput(_explain_missing(client, uri, address)) from None
        raise TrackingError(f"{address}: tracking server {redact(uri)} cannot be used: {cause(error)}") from None


def _explain_missing(client: "MlflowClient", uri: str, address: ModelAddress) -> str:
    try:
        model = client.get_registered_model(address.name)
    except Exception as error:
        if not is_missing(error):
            raise PlatformError(f"{address}: {cause(error)}") from None
        known = [model.name for model in client.search_registered_models(max_results=20)]
        has = f"it has {', '.join(known)}" if known else "it has none yet"
        return f"{address}: no model of this name is registered at {redact(uri)}; {has}"
    aliases = ", ".join(f"@{alias} (version {version})" for alias, version in sorted(model.aliases.items())) or "none"
    return f"{address}: the model has no such alias or version; its aliases: {aliases}"
