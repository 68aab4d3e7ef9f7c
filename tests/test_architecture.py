"""The plan of the house: imports only go down, each neighbour has one room, and importing does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ray_jobs
from ray_jobs import __main__ as program

PACKAGE = Path(ray_jobs.__file__).parent
GROUND = {
    "errors",
    "entry",
    "settings",
    "overrides",
    "training_arguments",
    "yaml_source",
    "storage",
    "pixels",
    "dicom",
    "telemetry",
}
ROOMS = {"reading", "dataset", "detector", "tracking", "report", "search"}
FLOWS = {"flows", "serving", "triggering"}
JOBS = {
    "train",
    "tune",
    "benchmark",
    "retrain",
    "promote",
    "trigger",
    "check_data",
    "predict",
    "read_server",
    "sync_tracking",
    "__main__",
}
FLOORS = [GROUND, ROOMS, FLOWS, JOBS]
ROOM_MAY_ENTER = {
    "reading": set(),
    "dataset": set(),
    "detector": {"reading", "dataset"},
    "tracking": {"reading"},
    "report": set(),
    "search": set(),
}
NEIGHBOURS = {
    "ultralytics": {"detector"},
    "mlflow": {"tracking"},
    "boto3": {"storage"},
    "pyarrow": {"storage"},
    "optuna": {"search"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def place_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor_of(place: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if place in floor)


def imports_of(module: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_imports_only_go_down(module: Path) -> None:
    place = place_of(module)
    if place == "__init__":
        return
    for name in imports_of(module):
        if not name.startswith("ray_jobs."):
            continue
        target = name.split(".")[1]
        assert floor_of(target) <= floor_of(place), f"{place} reaches up to {target}"
        if target in ROOMS and place in ROOMS and target != place:
            assert target in ROOM_MAY_ENTER.get(place, ()), f"{place} has no door to {target}"
        assert not (target in JOBS and target != place), f"{place} imports the job {target}"


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_each_neighbour_has_one_room(neighbour: str) -> None:
    rooms = {place_of(module) for module in MODULES if neighbour in {n.split(".")[0] for n in imports_of(module)}}
    assert rooms == NEIGHBOURS[neighbour] & rooms
    assert rooms, f"nobody imports {neighbour}: remove it from this test"


def test_the_program_lists_every_job() -> None:
    with_main = {
        module.stem
        for module in PACKAGE.glob("*.py")
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in ast.parse(module.read_text()).body)
    }
    assert with_main == JOBS
    assert set(program.JOBS) == JOBS - {"__main__"}


def test_the_detector_knows_nothing_of_ray() -> None:
    for module in (PACKAGE / "detector").rglob("*.py"):
        assert "ray" not in {name.split(".")[0] for name in imports_of(module)}, module


def test_importing_has_no_effect(tmp_path: Path) -> None:
    names = [".".join(("ray_jobs", *m.relative_to(PACKAGE).with_suffix("").parts)) for m in MODULES]
    harmless = [n for n in names if not n.endswith("__init__") and "pyfunc_model" not in n]
    code = (
        "import os, sys\nbefore = dict(os.environ)\n"
        + "".join(f"import {name}\n" for name in harmless if not needs_ultralytics(name))
        + "import ray\nassert not ray.is_initialized()\nassert 'mlflow' not in sys.modules\n"
        + "changed = {k for k in os.environ if os.environ[k] != before.get(k)}\n"
        + "assert not {k for k in changed if k.startswith(('RAY_TRAIN', 'YOLO', 'MLFLOW', 'AWS'))}, changed\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    assert list(tmp_path.iterdir()) == []


def needs_ultralytics(name: str) -> bool:
    """Modules that import Ultralytics at their top are imported by others only where they are called."""
    module = PACKAGE.parent / (name.replace(".", "/") + ".py")
    top = ast.parse(module.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ultralytics") for node in top)
