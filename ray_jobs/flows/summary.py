"""The end of a run: ``summary.json`` for programs, a table for people.

In: what the stages of a run found. Out: one dictionary of plain values.
"""

from pathlib import Path
from typing import Any

from ray_jobs.entry import how_to_run
from ray_jobs.flows.assessment import Assessment
from ray_jobs.flows.journal import JournalReader
from ray_jobs.flows.preparation import Prepared
from ray_jobs.tracking.tracker import TrackingOutcome

MOST_CLASSES = 20  # that the summary shows: with the lines below it fits a screen; the report has all


def make_summary(
    prepared: Prepared,
    journal: JournalReader,
    assessment: Assessment,
    timings: dict[str, float],
) -> dict[str, Any]:
    """Everything worth knowing about a finished run, ready for JSON; ``tracking_part`` comes when it is known."""
    best, epochs, report = journal.best, journal.epochs, prepared.report
    assert best is not None
    speed = sorted(epoch.metrics["images_per_second"] for epoch in epochs)
    return {
        "run_name": prepared.run.name,
        **tracking_part(TrackingOutcome()),
        "model_name": prepared.settings.model_name,
        "classes": list(report.index.names),
        "dataset": {
            "path": report.index.source,
            "fingerprint": report.fingerprint,
            "counts": report.as_dict()["counts"],
        },
        "world_size": epochs[-1].world_size,
        "epochs_run": len(epochs),
        "best_epoch": best.number,
        "restarts": journal.restarts,
        "checkpoints_dropped": int(max(epoch.metrics.get("checkpoints_dropped", 0) for epoch in epochs)),
        "val": {key: best.metrics.get(f"val/{key}") for key in ("map50", "map50_95", "precision", "recall")},
        assessment.split: assessment.metrics,
        "thresholds": assessment.thresholds,
        "onnx": assessment.parity or None,
        "images_per_second": speed[len(speed) // 2],
        "timings": rounded(timings),
    }


def tracking_part(outcome: TrackingOutcome) -> dict[str, Any]:
    """What tracking came to."""
    return {
        "mlflow_run_id": outcome.run_id,
        "registry": outcome.registered.as_dict() if outcome.registered else None,
        "tracking": {
            "url": outcome.url,
            "open_with": outcome.open_with,
            "pending": outcome.pending,
            "error": outcome.error,
        },
    }


def rounded(timings: dict[str, float]) -> dict[str, float]:
    """Seconds to the millisecond."""
    return {name: round(seconds, 3) for name, seconds in timings.items()}


def print_summary(summary: dict[str, Any], run: Path) -> None:
    """The summary that ends a run, fitting a screen."""
    from rich.console import Console
    from rich.table import Table

    split = "test" if "test" in summary else "val"
    measured = summary[split]
    table = Table(title=f"Run {summary['run_name']}: {split} split", title_justify="left")
    for title in ("", "boxes", "mAP50", "mAP50-95", "precision", "recall", "F1"):
        table.add_column(title, justify="left" if not title else "right")
    keys = ("map50", "map50_95", "precision", "recall", "f1")
    classes = list(measured["per_class"].items())
    for name, figures in classes[:MOST_CLASSES]:
        table.add_row(name, str(figures["boxes"]), *(_figure(figures[key]) for key in keys))
    if len(classes) > MOST_CLASSES:
        table.add_row(f"and {len(classes) - MOST_CLASSES} more")
    table.add_section()
    table.add_row("all", str(measured["boxes"]), *(_figure(measured[key]) for key in keys))
    console = Console(highlight=False)
    console.print(table)
    if run.is_relative_to(Path.cwd()):
        run = run.relative_to(Path.cwd())
    for line in _lines(summary, measured, run):
        console.print(line, markup=False, soft_wrap=True)


def _lines(summary: dict[str, Any], measured: dict[str, Any], run: Path) -> list[str]:
    sensitivity = measured["froc"]["sensitivity"] or {}
    rates = [f"{value:.2f} at {rate}" for rate, value in sensitivity.items() if rate in ("0.5", "1", "4")]
    froc = f"sensitivity {', '.join(rates)} false positives per image" if rates else "no true boxes"
    auc = _figure(measured["image_auc"])
    timings, registered, tracking = summary["timings"], summary["registry"], summary["tracking"]
    lines = [
        _intervals(measured),
        f"{froc}; image-level AUC {auc}",
        f"{summary['epochs_run']} epochs (best {summary['best_epoch']}) on {summary['world_size']} worker(s), "
        f"median {summary['images_per_second']:.1f} images/s; {timings['total']:.0f} s in all: "
        + ", ".join(f"{name} {seconds:.0f}" for name, seconds in timings.items() if name != "total"),
        f"report      {run / 'report.html'}",
        f"samples     {run / 'samples'}",
        f"weights     {run / 'weights'}",
    ]
    if registered:
        lines.append(f"registered  {registered['name']} version {registered['version']} @{registered['alias']}")
    if tracking["pending"]:
        lines.append(f"not sent    {tracking['pending']} records; send them: {how_to_run('sync_tracking')} {run}")
    if tracking["open_with"]:
        lines.append(f"MLflow      {tracking['url'] or tracking['open_with']}")
    model = run / "weights" / ("best.onnx" if summary["onnx"] else "best.pt")
    lines.append(f"read one    {how_to_run('predict')} IMAGE.png --model {model} --out findings")
    return lines


def _intervals(measured: dict[str, Any]) -> str:
    """``95 % intervals: mAP50 0.078 to 0.139, mAP50-95 0.041 to 0.072 (1000 draws of 159 patients)``."""
    known = {name: measured[key] for name, key in (("mAP50", "map50_ci"), ("mAP50-95", "map50_95_ci"))}
    spans = [f"{name} {ends[0]:.3f} to {ends[1]:.3f}" for name, ends in known.items() if ends]
    made = measured["ci"]
    drawn = f"{made['resamples']} draws of {made['drawn']} {made['over']}"
    return f"95 % intervals: {', '.join(spans) or 'too few boxes'} ({drawn})"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
