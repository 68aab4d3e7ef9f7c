"""The model registry: from an exported detector to a version with a name, an alias and words that a person can use.

In: a run and a ``RegistryRequest``. Out: a registered version that
``mlflow.pyfunc.load_model("models:/NAME@ALIAS")`` loads without PyTorch, Ultralytics or Ray.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.tracking.model_package import save_model_package

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

MODEL_FOLDER = "model"
RUN_TAG = "xray.run_id"

REGISTERED_MODEL_DESCRIPTION = (
    "A detector that draws boxes around findings in X-rays. Each version says what it was trained on and how well it "
    "did on its test images. For research, not for diagnosis."
)


@dataclass(frozen=True)
class RegistryRequest:
    """What to register: the file ``onnx`` under ``name``, with ``alias`` moved to it unless that is None."""

    name: str
    onnx: Path
    alias: str | None = "challenger"
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""

    def as_record(self, run_dir: Path) -> dict[str, Any]:
        """As the spool keeps it, paths relative to the run where they lie in it."""
        onnx = self.onnx.resolve()
        path = onnx.relative_to(run_dir) if onnx.is_relative_to(run_dir) else onnx
        return {
            "name": self.name,
            "onnx": str(path),
            "alias": self.alias,
            "tags": dict(self.tags),
            "description": self.description,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any], run_dir: Path) -> "RegistryRequest":
        """The inverse of ``as_record``."""
        return cls(record["name"], run_dir / record["onnx"], record["alias"], record["tags"], record["description"])


@dataclass(frozen=True)
class Registered:
    """A version in the registry."""

    name: str
    version: str
    alias: str | None

    def as_dict(self) -> dict[str, str]:
        """Without the alias where there is none."""
        return {"name": self.name, "version": self.version} | ({"alias": self.alias} if self.alias else {})


def register_model(client: "MlflowClient", run_id: str, request: RegistryRequest, work_dir: Path) -> Registered:
    """Pack, upload and register a detector; doing it again for the same run and name finds what is there.

    ``work_dir`` holds the package meanwhile. Raises FileNotFoundError without the ONNX file, and MLflow's errors.
    """
    if not request.onnx.is_file():
        raise FileNotFoundError(f"{request.onnx}: no such file; the model cannot be registered")
    _ensure_registered_model(client, request.name)
    versions = _versions_of_run(client, run_id, request.name)
    if not versions:
        model = _upload(client, run_id, request, work_dir)
        _create_version(client, run_id, request, model)
        versions = _versions_of_run(client, run_id, request.name)
    version, *twins = versions
    for twin in twins:  # made by a request that this side gave up on, carried out after all
        client.delete_model_version(request.name, twin.version)
    if request.alias:
        client.set_registered_model_alias(request.name, request.alias, version.version)
    return Registered(request.name, str(version.version), request.alias)


def _ensure_registered_model(client: "MlflowClient", name: str) -> None:
    from mlflow import MlflowException

    try:
        client.create_registered_model(name, description=REGISTERED_MODEL_DESCRIPTION)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _versions_of_run(client: "MlflowClient", run_id: str, name: str) -> "list[ModelVersion]":
    """The versions of ``name`` made from this run, the oldest first."""
    found = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    return sorted(found, key=lambda version: int(version.version))


def _upload(client: "MlflowClient", run_id: str, request: RegistryRequest, work_dir: Path) -> "LoggedModel":
    """The run's logged model with every file in place; its page shows the run, and the run's page shows it."""
    from mlflow.entities import LoggedModelOutput

    run = client.get_run(run_id)
    model = _find_or_make_logged_model(client, run.info.experiment_id, run_id, request)
    package = work_dir / MODEL_FOLDER
    shutil.rmtree(package, ignore_errors=True)
    try:
        save_model_package(package, request.onnx, run_id=run_id, model_id=model.model_id)
        client.log_model_artifacts(model.model_id, str(package))
    finally:
        shutil.rmtree(package, ignore_errors=True)
    client.finalize_logged_model(model.model_id, "READY")
    outputs = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in {output.model_id for output in outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(model_id=model.model_id, step=0)])
    return model


def _find_or_make_logged_model(
    client: "MlflowClient", experiment_id: str, run_id: str, request: RegistryRequest
) -> "LoggedModel":
    found = client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'")
    if found:
        model, *twins = sorted(found, key=lambda model: (model.creation_timestamp, model.model_id))
        for twin in twins:
            client.delete_logged_model(twin.model_id)
        return model
    tags = {key: str(value) for key, value in request.tags.items()}
    return client.create_logged_model(experiment_id, name=MODEL_FOLDER, source_run_id=run_id, tags=tags)


def _create_version(
    client: "MlflowClient", run_id: str, request: RegistryRequest, model: "LoggedModel"
) -> "ModelVersion":
    # The artifacts' location rather than models:/ID, which a database store would look up through MLflow's global
    # address instead of this client's.
    return client.create_model_version(
        request.name,
        source=model.artifact_location,
        run_id=run_id,
        tags={**request.tags, RUN_TAG: run_id},
        description=request.description,
        model_id=model.model_id,
        await_creation_for=0,
    )


def model_description(
    *,
    name: str,
    alias: str | None,
    model_name: str,
    classes: list[str],
    image_size: int,
    run_name: str,
    data_name: str,
    fingerprint: str,
    counts: Mapping[str, Any],
    test_metrics: Mapping[str, float],
    date: str,
) -> str:
    """The words on a version's page (Markdown): what it is, what it learned from, how good it is, how to use it.

    ``counts`` by split, either images or a mapping such as ``{"images": 70, "boxes": 90}``; ``test_metrics`` by name
    in 0..1; ``date`` as text.
    """
    splits = "\n".join(f"- {split}: {_counted(count)}" for split, count in counts.items())
    metrics = "\n".join(f"| {metric} | {value:.3f} |" for metric, value in test_metrics.items())
    address = f"models:/{name}@{alias}" if alias else f"models:/{name}/VERSION"
    return f"""**For research, not for diagnosis.**

{model_name}, trained on {date} in run `{run_name}` to find {_listed(classes)} in X-rays.

Trained on `{data_name}` (fingerprint `{fingerprint}`):

{splits}

On the test images, which it has not seen:

| measure | value |
|---|---|
{metrics}

Reads grayscale pictures of any size, 8 or 16 bit; works at {image_size} x {image_size} pixels. To use it:

```python
import mlflow, cv2
model = mlflow.pyfunc.load_model("{address}")
findings = model.predict(cv2.imread("xray.png", cv2.IMREAD_UNCHANGED))[0]
# [{{"label": ..., "score": 0..1, "box": [x1, y1, x2, y2] in pixels}}, ...]; empty: no findings
```
"""


def _counted(count: Any) -> str:
    if isinstance(count, Mapping):
        return ", ".join(f"{value} {key.replace('_', ' ')}" for key, value in count.items() if isinstance(value, int))
    return f"{count} images"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
