"""How far a job is, read from its run's folder: nothing is asked of the job itself."""

import json
from pathlib import Path
from typing import Any

from ray_jobs.flows.journal import JournalReader
from ray_jobs.yaml_source import read_yaml

SHOWN = ("val/map50", "val/map50_95", "train/box_loss", "train/cls_loss", "train/dfl_loss", "images_per_second")


def progress_of(run: Path) -> dict[str, Any]:
    """``epoch``, ``epochs`` and ``metrics`` of a run; nothing where it has not begun."""
    reader = JournalReader(run / "journal.jsonl")
    found = list(reader.read_new())
    if not found:
        return {}
    last = found[-1]
    metrics: dict[str, float | None] = {key: _finite(last.metrics.get(key)) for key in SHOWN if key in last.metrics}
    metrics |= _tested(run / "summary.json")
    return {"epoch": last.number, "epochs": _epochs(run / "settings.yaml"), "metrics": metrics}


def _tested(summary: Path) -> dict[str, float | None]:
    try:
        found = json.loads(summary.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    split = "test" if "test" in found else "val"
    return {f"{split}/{key}": found[split].get(key) for key in ("map50", "map50_95")} if split == "test" else {}


def _epochs(settings: Path) -> int | None:
    return read_yaml(settings).values.get("epochs") if settings.is_file() else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) < float("inf") else None
