"""What a search leaves behind: ``best_config.yaml``, ``trials.csv``, ``summary.json``, and a table on the screen.

In: the trials. Out: files that a person and the next command can use at once.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray_jobs.detector.bootstrap import Comparison
from ray_jobs.entry import how_to_run
from ray_jobs.errors import TrainingError
from ray_jobs.flows.report.search import REPORT, Search, epochs_saved, write_search_report
from ray_jobs.flows.search.preparation import PreparedSearch
from ray_jobs.flows.search.trial import Trial
from ray_jobs.settings import Settings


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest score; of equals, the first. Raises ``TrainingError`` where all failed."""
    scored = [trial for trial in trials if trial.score is not None and trial.state != "failed"]
    if not scored:
        reasons = Counter(trial.reason or "" for trial in trials)
        said = "; ".join(f"{reason} ({count} trials)" for reason, count in reasons.most_common(3))
        raise TrainingError(f"no trial came to a result: {said}")
    return max(scored, key=lambda trial: (trial.score, -trial.number))


def best_settings(settings: Settings, best: Trial) -> Settings:
    """The user's settings, with the epochs of a full training, and the best trial's parameters."""
    values = settings.as_dict() | dict(best.parameters) | {"run_name": None}
    return Settings.model_validate(values)


def write_best_config(prepared: PreparedSearch, best: Trial) -> None:
    """``best_config.yaml``, usable as ``--config`` at once."""
    best_settings(prepared.settings, best).save(prepared.folder.best_config)


def write_table(prepared: PreparedSearch, trials: Sequence[Trial]) -> None:
    """``trials.csv``: a line per trial."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.parameters))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["trial", "state", "reason", "epochs", "score", "seconds", "restarts", *names])
    for trial in trials:
        fixed = [trial.number, trial.state, trial.reason or "", len(trial.epochs)]
        score = "" if trial.score is None else f"{trial.score:.6g}"
        values = [trial.parameters.get(name, "") for name in names]
        writer.writerow([*fixed, score, f"{trial.seconds:.1f}", trial.restarts, *values])
    prepared.folder.table.write_text(buffer.getvalue(), encoding="utf-8")


def write_report(
    prepared: PreparedSearch, trials: Sequence[Trial], seconds: float, comparison: Comparison | None = None
) -> Path:
    """``report.html``: which trial won, what mattered, what it cost; ``comparison`` is with the defaults."""
    search = prepared.search
    facts = {
        "scheduler": search.scheduler.name,
        "searcher": search.searcher_name,
        "data set": prepared.report.index.source,
        "fingerprint": prepared.report.fingerprint,
    }
    about = Search(prepared.folder.name, search.metric, search.mode, search.budget.epochs, seconds, facts, comparison)
    return write_search_report(prepared.folder.path, trials, best_trial(trials), about)


def make_summary(prepared: PreparedSearch, trials: Sequence[Trial], best: Trial, seconds: float) -> dict[str, Any]:
    """Everything worth knowing about a finished search, ready for JSON."""
    saved, _ = epochs_saved(trials, prepared.search.budget.epochs)
    return {
        "run_name": prepared.folder.name,
        "metric": prepared.search.metric,
        "mode": prepared.search.mode,
        "searcher": prepared.search.searcher_name,
        "scheduler": prepared.search.scheduler.name,
        "trials": len(trials),
        "states": dict(Counter(trial.state for trial in trials)),
        "failures": {str(trial.number): trial.reason for trial in trials if trial.state == "failed"},
        "restarts": sum(trial.restarts for trial in trials),
        "best": {
            "trial": best.number,
            "score": best.score,
            "metric": _best_metric(prepared, best),
            "parameters": dict(best.parameters),
        },
        "epochs_run": sum(len(trial.epochs) for trial in trials),
        "epochs_saved": saved,
        "gpu_hours": round(sum(trial.seconds * trial.gpus for trial in trials) / 3600, 4),
        "cpu_hours": round(sum(trial.seconds * trial.cpus for trial in trials) / 3600, 4),
        "seconds": round(seconds, 1),
        "dataset": {"path": prepared.report.index.source, "fingerprint": prepared.report.fingerprint},
    }


def _best_metric(prepared: PreparedSearch, best: Trial) -> float:
    values = [epoch[prepared.search.metric] for epoch in best.epochs]
    return max(values) if prepared.search.mode == "max" else min(values)


def result_lines(prepared: PreparedSearch, summary: Mapping[str, Any]) -> list[str]:
    """The end of a search in a few lines."""
    best, folder = summary["best"], prepared.folder
    states = ", ".join(f"{count} {state}" for state, count in summary["states"].items())
    spent = f"{summary['gpu_hours']:.2f} GPU-hours" if summary["gpu_hours"] else f"{summary['cpu_hours']:.2f} CPU-hours"
    total = summary["epochs_run"] + summary["epochs_saved"]
    lines = [
        f"{summary['trials']} trials ({states}) in {summary['seconds']:.0f} s, {spent}; "
        f"{summary['epochs_run']} epochs run, {summary['epochs_saved']} of {total} saved by stopping early",
        f"best: trial {best['trial']}, {summary['metric']} {best['metric']:.4f}: "
        + ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in best["parameters"].items()
        ),
        f"report      {folder.path / REPORT}",
        f"trials      {folder.table}",
        f"train it    {how_to_run('train')} --config {folder.best_config}",
    ]
    if trained := summary.get("trained"):
        lines += _comparison_lines(trained)
    return lines


def _comparison_lines(trained: Mapping[str, Any]) -> list[str]:
    best, defaults, difference = trained["best_run"], trained["defaults_run"], trained["comparison"]["map50_95"]
    figures = (
        f"{trained['split']} mAP50-95 {best['map50_95'] or 0:.3f}, with the defaults {defaults['map50_95'] or 0:.3f}"
    )
    lines = [f"trained     {best['run']}: {figures}"]
    if difference:
        span = f"{difference['value']:+.3f} (95 % interval {difference['low']:+.3f} to {difference['high']:+.3f})"
        lines.append(f"difference  {span}, over {trained['comparison']['drawn']} {trained['comparison']['over']}")
    if trained["registry"]:
        registered = trained["registry"]
        lines.append(f"registered  {registered['name']} version {registered['version']} @{registered['alias']}")
    return lines
