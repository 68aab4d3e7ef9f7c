"""After a search: train with the best settings and with the defaults, to the end, and say which is better.

In: a finished search. Out: two training runs, ``<search>-best`` registered and ``<search>-defaults`` not, and their
difference on the same test split with its interval. A run that is finished is not trained again; where another one
has the name, the trial's number is added to it.
"""

import json
import time
from dataclasses import dataclass
from typing import Any

from ray_jobs.detector.bootstrap import Comparison
from ray_jobs.detector.detections_file import SplitDetections
from ray_jobs.flows.display import open_display
from ray_jobs.flows.preparation import prepare
from ray_jobs.flows.run_folder import RunFolder
from ray_jobs.flows.search.preparation import PreparedSearch, Say
from ray_jobs.flows.training_run import run_training
from ray_jobs.settings import Settings, load_config_with_defaults


@dataclass(frozen=True)
class BestTraining:
    """Both runs' summaries, and how much better the best settings are on the same images."""

    best: dict[str, Any]
    defaults: dict[str, Any]
    comparison: Comparison

    def as_dict(self) -> dict[str, Any]:
        """What a search's summary says of it."""
        runs = {"best_run": self.best, "defaults_run": self.defaults}
        split = "test" if "test" in self.best else "val"
        figures = {name: {"run": run["run_name"], "map50_95": run[split]["map50_95"]} for name, run in runs.items()}
        return {**figures, "split": split, "registry": self.best["registry"], "comparison": self.comparison.as_dict()}


def train_best(prepared: PreparedSearch, trial: int, say: Say) -> BestTraining:
    """Train both to the end, or go on with what was begun; ``trial`` is the best one's number.

    Raises the errors of a training run.
    """
    base = prepared.settings
    best = load_config_with_defaults(prepared.folder.best_config)
    unregistered = base.tracking.model_copy(update={"registry": None})
    defaults = base.model_copy(update={"tracking": unregistered})
    runs = []
    for kind, settings in (("defaults", defaults), ("best", best)):
        run = _run_for(prepared, settings, kind, trial)
        runs.append(_trained(settings.model_copy(update={"run_name": run.name}), run, say))
    worse, better = (SplitDetections.load(run.detections) for run in runs)
    summaries = [json.loads(run.summary.read_text(encoding="utf-8")) for run in runs]
    comparison = better.better_than(worse, base.data_check.patient_id_pattern)
    return BestTraining(summaries[1], summaries[0], comparison)


def _run_for(prepared: PreparedSearch, settings: Settings, kind: str, trial: int) -> RunFolder:
    """``<search>-<kind>``; where a run of other settings or data has that name, one with the trial's number."""
    run = RunFolder(prepared.folder.path.with_name(f"{prepared.folder.name}-{kind}"))
    if not run.exists:
        return run
    same_data = run.state()["fingerprint"] == prepared.report.fingerprint
    same = same_data and not settings.differences(load_config_with_defaults(run.settings))
    return run if same else RunFolder(run.path.with_name(f"{run.name}-{trial}"))


def _trained(settings: Settings, run: RunFolder, say: Say) -> RunFolder:
    if run.exists and run.state()["status"] == "finished":
        say(f"{run.name} was trained before")
        return run
    say(f"training {run.name} for {settings.epochs} epochs")
    with open_display() as display:
        run_training(prepare(settings, run, say), display, time.time())
    return run
