"""Ray Train's list of a run's checkpoints, kept true: what is gone or damaged is taken off it before training goes on.

Ray refuses to start with a list that names what is not there, and knows no checksum. In: a run's storage. Out: the list
as it should be, and what was taken off it.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from ray_jobs.errors import DamagedCheckpoint
from ray_jobs.flows.checkpoints import EXPERIMENT, read_manifest
from ray_jobs.storage import Storage

SNAPSHOT = f"{EXPERIMENT}/checkpoint_manager_snapshot.json"
LISTS = (
    "pending_training_results",
    "pending_validation_specs",
    "validated_checkpoint_dir_names",
    "timed_out_validation_checkpoint_dir_names",
    "failed_validation_checkpoint_dir_names",
)


def repair_list(storage: Storage, drop_latest: bool = False) -> list[str]:
    """Take off the list what has no good manifest, or the latest too; returns a line for each problem, for people.

    A list that cannot be read is made anew from what is stored.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "snapshot.json"
        if not storage.get_file(SNAPSHOT, file):
            return []
        said = []
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            listed = [entry["checkpoint_dir_name"] for entry in state["checkpoint_results"]]
            latest = (state["latest_checkpoint_result"] or {}).get("checkpoint_dir_name")
        except (ValueError, KeyError, TypeError):
            said.append(f"{storage.url}/{SNAPSHOT}: cannot be read; made anew from the checkpoints that are there")
            state, listed, latest = None, storage.folders_below(EXPERIMENT), None
        good = []
        for name in listed:
            try:
                if drop_latest and name == latest:
                    continue
                read_manifest(storage, name, Path(folder))
                good.append(name)
            except DamagedCheckpoint as error:
                said.append(f"{error}; it is not used")
        if state is not None and good == listed and (latest in good or not good):
            return said
        file.write_text(json.dumps(_rewritten(state, sorted(good))), encoding="utf-8")
        storage.put_file(file, SNAPSHOT)
        return said


def _rewritten(state: dict[str, Any] | None, names: list[str]) -> dict[str, Any]:
    """The list with these checkpoints alone, the last of them the latest; its other entries as they were."""
    import ray

    known = {entry["checkpoint_dir_name"]: entry for entry in (state or {}).get("checkpoint_results", ())}
    results = [known.get(name, {"version": 0, "checkpoint_dir_name": name, "metrics": {}}) for name in names]
    return {
        "ray_version": ray.__version__,
        "checkpoint_results": results,
        "checkpoint_report_indices": list(range(len(results))),
        "latest_checkpoint_result": results[-1] if results else None,
        "current_report_index": (state or {}).get("current_report_index", len(results)),
        **{name: [] for name in LISTS},
    }
