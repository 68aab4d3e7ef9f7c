"""From ``models:/NAME@ALIAS`` to a version of a registered model, and to the files that it was made from.

In: an address of MLflow and a model's address. Out: a ``ModelVersion`` in plain values, and its files on this disk,
compared with the SHA-256 that was registered with them.
"""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.errors import BadInput, TrackingError, WeightsError
from ray_jobs.storage import sha256_of
from ray_jobs.tracking.addresses import redact, sqlite_file
from ray_jobs.tracking.client import cause, connect, is_missing

if TYPE_CHECKING:
    from mlflow import MlflowClient

SCHEME = "models:/"
WEIGHTS_TAG = "best_pt_sha256"
ONNX_TAG = "best_onnx_sha256"
WEIGHTS_ARTIFACT = "weights/best.pt"
ONNX_ARTIFACT = "weights/best.onnx"

_ADDRESS = re.compile(
    r"models:/(?P<name>[A-Za-z0-9][A-Za-z0-9 _-]{0,99})"
    r"(@(?P<alias>[A-Za-z][A-Za-z0-9_-]{0,99})|/(?P<version>[1-9][0-9]{0,8}))"
)


@dataclass(frozen=True)
class ModelAddress:
    """``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``, taken apart."""

    name: str
    alias: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return f"models:/{self.name}@{self.alias}" if self.alias else f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model: the run it came from, its tags and its description."""

    name: str
    version: str
    run_id: str
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"


def parse_address(text: str) -> ModelAddress:
    """Take a model's address apart. Raises ``BadInput`` for everything that is none."""
    match = _ADDRESS.fullmatch(text)
    if not match:
        raise BadInput(
            f"{text!r}: must be models:/NAME@ALIAS or models:/NAME/VERSION, as models:/xray-detector@champion"
        )
    return ModelAddress(match["name"], match["alias"], match["version"])


def find_version(uri: str, address: ModelAddress) -> ModelVersion:
    """Ask the registry. Raises ``BadInput`` where there is no such database, model, alias or version, ``TrackingError``
    where the server fails."""
    database = sqlite_file(uri)
    if database is not None and not database.is_file():
        raise BadInput(f"{redact(uri)}: no such database; set MLFLOW_TRACKING_URI to where the model is registered")
    client = connect(uri)
    try:
        return look_up(client, address)
    except Exception as error:
        if is_missing(error) or getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE":
            raise BadInput(_explain_missing(client, uri, address)) from None
        raise TrackingError(f"{address}: {redact(uri)} cannot be asked: {cause(error)}") from error


def _explain_missing(client: "MlflowClient", uri: str, address: ModelAddress) -> str:
    """What there is instead, as far as the registry tells."""
    try:
        model = client.get_registered_model(address.name)
    except Exception as error:
        if not is_missing(error):
            raise TrackingError(f"{address}: {redact(uri)} cannot be asked: {cause(error)}") from error
        # A dot is in the names that turns are taken with (``turns``), and in no model's.
        known = [found.name for found in client.search_registered_models(max_results=20) if "." not in found.name]
        has = f"it has {', '.join(known)}" if known else "it has none yet"
        return f"{address}: no model of this name is registered at {redact(uri)}; {has}"
    aliases = ", ".join(f"@{alias} (version {version})" for alias, version in sorted(model.aliases.items())) or "none"
    return f"{address}: the model has no such alias or version; its aliases: {aliases}"


def look_up(client: "MlflowClient", address: ModelAddress) -> ModelVersion:
    """As ``find_version``, with MLflow's own errors."""
    if address.alias:
        found: Any = client.get_model_version_by_alias(address.name, address.alias)
    else:
        found = client.get_model_version(address.name, address.version)
    return ModelVersion(found.name, str(found.version), found.run_id, dict(found.tags), found.description or "")


def fetch_weights(uri: str, version: ModelVersion, folder: Path) -> Path:
    """The version's ``best.pt`` in ``folder``, named after its content, so that it is fetched once.

    Raises ``WeightsError`` for weights that are not kept or are not those that were registered.
    """
    return fetch_file(uri, version, WEIGHTS_ARTIFACT, version.tags.get(WEIGHTS_TAG), folder)


def fetch_file(uri: str, version: ModelVersion, artifact: str, digest: str | None, folder: Path) -> Path:
    """A file of the version's run in ``folder``, compared with its SHA-256 ``digest`` where one is known."""
    name = f"{version.name.replace(' ', '_')}-{version.version}"
    suffix = Path(artifact).suffix
    if digest:
        kept = folder / f"{name}-{digest[:12]}{suffix}"
        if kept.is_file() and sha256_of(kept) == digest:
            return kept
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        got = _download(uri, version, artifact, Path(scratch))
        found = sha256_of(got)
        if digest and found != digest:
            raise WeightsError(
                f"{version}: {artifact} of run {version.run_id} is not the file that was registered (SHA-256 "
                f"{found[:12]}, registered {digest[:12]}); it was replaced or damaged, do not use it"
            )
        target = folder / f"{name}-{found[:12]}{suffix}"
        got.replace(target)
    return target


def _download(uri: str, version: ModelVersion, artifact: str, folder: Path) -> Path:
    client = connect(uri)
    try:
        return Path(client.download_artifacts(version.run_id, artifact, str(folder)))
    except Exception as error:  # artifact stores raise errors of their own kinds
        gone = type(error) in (OSError, FileNotFoundError) or _status(error) == 404  # a network error is an OSError too
        if is_missing(error) or gone:
            raise WeightsError(
                f"{version}: run {version.run_id} keeps no {artifact}: {cause(error)}; was tracking.artifacts off?"
            ) from None
        raise TrackingError(f"{version}: {artifact} cannot be fetched from {redact(uri)}: {cause(error)}") from error


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
