"""Packs an exported detector as an MLflow model that stands on its own.

In: ``best.onnx``. Out: a folder with an ``MLmodel`` file, the detector, the source that reads with it, and pinned
requirements. Nothing is imported, run or inferred to make it, so it takes milliseconds. It is written in MLflow's
format by hand: ``mlflow.pyfunc.save_model`` needs a second to import, and warns at that of its own type hints.

The source travels under a package name of its own, made from its content. Were it called ``ray_jobs``, it would stand
in for the whole project wherever both are installed, and two models of different age could not be loaded side by side.
"""

import hashlib
import platform
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import yaml

import ray_jobs

PACKED_SOURCE = ("errors.py", "pixels.py", "reading", "tracking/pyfunc_model.py")
REQUIREMENTS = ("mlflow", "numpy", "onnxruntime", "opencv-python", "pillow")
LOADER = "tracking.pyfunc_model"

_IMPORT = re.compile(r"^(\s*(?:from|import)\s+)ray_jobs\b", re.MULTILINE)


def save_model_package(path: Path, onnx: Path, run_id: str | None = None, model_id: str | None = None) -> None:
    """Write the model folder ``path``, which must not exist; ``run_id`` and ``model_id`` say where it comes from."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Object, Property, Schema

    package = stage_source(path / "code")
    detector = path / "data" / onnx.name
    detector.parent.mkdir()
    shutil.copyfile(onnx, detector)
    if (thresholds := onnx.with_name("thresholds.json")).is_file():  # inside the ONNX file as well; here for people
        shutil.copyfile(thresholds, detector.with_name(thresholds.name))
    _write_environment(path)

    box = Property("box", Array(DataType.double))
    finding = Object([Property("label", DataType.string), Property("score", DataType.double), box])
    # No input schema: MLflow would hold every caller to one rank and one type, and one image, a batch and images of
    # several sizes are all welcome.
    signature = ModelSignature(outputs=Schema([ColSpec(Array(finding))]))
    model = Model(run_id=run_id, model_id=model_id, signature=signature)
    model.add_flavor(
        "python_function",
        loader_module=f"{package.name}.{LOADER}",
        data=str(detector.relative_to(path)),
        code="code",
        env={"virtualenv": "python_env.yaml"},
        python_version=platform.python_version(),
        config={"threshold": None, "iou": None},  # what load_model(..., model_config=...) may replace
    )
    model.model_size_bytes = detector.stat().st_size
    model.save(str(path / "MLmodel"))


def stage_source(folder: Path) -> Path:
    """Copy the packed source into ``folder`` as a package named after its content; return the package's folder."""
    root = Path(ray_jobs.__file__).parent
    sources: dict[Path, str] = {}
    for entry in PACKED_SOURCE:
        files = sorted((root / entry).rglob("*.py")) if (root / entry).is_dir() else [root / entry]
        sources |= {file.relative_to(root): file.read_text(encoding="utf-8") for file in files}
    digest = hashlib.sha256("".join(f"{path}\n{text}" for path, text in sources.items()).encode()).hexdigest()
    package = folder / f"xray_reader_{digest[:10]}"
    for path, text in sources.items():
        target = package / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_IMPORT.sub(rf"\g<1>{package.name}", text), encoding="utf-8")
    for parent in {package, *(package / path.parent for path in sources)}:
        (parent / "__init__.py").touch()
    return package


def _write_environment(path: Path) -> None:
    """What ``mlflow models serve`` and a person install before loading the model."""
    requirements = [f"{name}=={version(name)}" for name in REQUIREMENTS]
    (path / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    environment = {
        "python": platform.python_version(),
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": ["-r requirements.txt"],
    }
    (path / "python_env.yaml").write_text(yaml.safe_dump(environment, sort_keys=False), encoding="utf-8")
