"""What a run ran on: package versions, Python, the machine, its GPUs, and the commit of the code.

In: nothing. Out: a dictionary that is written beside the run and logged with it. Holds no environment variables and no
user or host names.
"""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "xray-ray",
    "ray",
    "torch",
    "torchvision",
    "ultralytics",
    "mlflow",
    "onnx",
    "onnxruntime",
    "numpy",
    "opencv-python",
    "pillow",
    "pyarrow",
    "boto3",
    "pydantic",
)
_PATIENCE_S = 10  # for nvidia-smi, which waits for a driver that hangs, and for git on a slow disk


def describe_environment() -> dict[str, Any]:
    """Versions and hardware, ready for JSON. What cannot be found out is None; nothing is raised."""
    return {
        "python": platform.python_version(),
        "os": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "gpus": _gpus(),
        "git": _git(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_gb() -> float:
    import psutil

    return round(psutil.virtual_memory().total / 1e9, 1)


def _gpus() -> list[dict[str, str]]:
    fields = ("name", "memory.total", "driver_version")
    output = _run(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"])
    rows = [line.split(", ") for line in (output or "").splitlines()]
    return [dict(zip(("name", "memory", "driver"), row, strict=True)) for row in rows if len(row) == len(fields)]


def _git() -> dict[str, Any] | None:
    """The commit of the code that runs, and whether files were changed since; None where there is no repository."""
    folder = str(Path(__file__).resolve().parent)
    commit = _run(["git", "-C", folder, "rev-parse", "HEAD"])
    if commit is None:
        return None
    changes = _run(["git", "-C", folder, "status", "--porcelain", "--untracked-files=no"])
    return {"commit": commit, "changed": bool(changes)}


def _run(command: list[str]) -> str | None:
    """What a command prints; None where it is not installed, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
