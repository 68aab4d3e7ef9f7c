"""``report.html`` of a training run: what came of it, first in a sentence, then in figures, curves and pictures.

In: what the run's stages found. Out: one page without network or script. X-rays stand on it only where the user asked
for samples (``samples`` above 0), and no more of them than that.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.detector.froc import RATES
from ray_jobs.flows.assessment import Assessment
from ray_jobs.flows.journal import JournalReader
from ray_jobs.flows.report.mistakes import mistakes_section
from ray_jobs.flows.report.record import cost_section, data_section, settings_section, versions
from ray_jobs.flows.report.verdict import judge, ranked_classes
from ray_jobs.flows.run_folder import RunFolder
from ray_jobs.report.charts import Axis, Line, line_chart, span
from ray_jobs.report.page import (
    Html,
    Tile,
    document,
    element,
    grid,
    join,
    section,
    table,
    tiles,
)
from ray_jobs.settings import Settings

MOST_COLOURS = 8  # classes: beyond it, their curves are pale and have no names
RATE_TICKS = [(rate, f"{rate:g}" if rate >= 1 else f"1/{round(1 / rate)}") for rate in RATES]


@dataclass(frozen=True)
class _Facts:
    journal: JournalReader
    assessment: Assessment
    summary: dict[str, Any]

    @property
    def measured(self) -> dict[str, Any]:
        return self.assessment.metrics

    @property
    def split(self) -> str:
        return self.assessment.split


def write_run_report(
    run: RunFolder,
    settings: Settings,
    index: DatasetIndex,
    journal: JournalReader,
    assessment: Assessment,
    summary: dict[str, Any],
) -> Path:
    """Write ``report.html`` into the run's folder. ``summary`` is what ``make_summary`` gave."""
    environment_file = run.path / "environment.json"
    environment = json.loads(environment_file.read_text(encoding="utf-8")) if environment_file.is_file() else {}
    facts = _Facts(journal, assessment, summary)
    counts = summary["dataset"]["counts"]
    verdict = judge(
        facts.measured,
        facts.split,
        journal.epochs,
        summary["best_epoch"],
        settings.epochs,
        counts["train"]["per_class"],
    )
    sections = [
        _key_figures(facts),
        _advice(verdict.advice),
        _learning(facts),
        _classes(facts),
        _curves(facts),
        mistakes_section(assessment, index, settings.samples),
        cost_section(summary, environment),
        data_section(summary, list(facts.measured["per_class"]), index.fingerprint),
        settings_section(settings),
    ]
    kicker = f"Training run · {settings.model_name} · {index.root.name}"
    page = document(run.name, kicker, verdict.sentence, sections, versions(environment), verdict.tone)
    run.report.write_text(page, encoding="utf-8")
    return run.report


def figure_text(value: float | None, interval: Sequence[float] | None = None, digits: int = 2) -> str:
    """``0.65 (0.41 to 0.84)``, or a dash where nothing was measured. An interval without width says nothing."""
    if value is None:
        return "–"
    low, high = (_rounded(end, digits) for end in interval or (value, value))
    return _rounded(value, digits) + (f" ({low} to {high})" if low != high else "")


def _rounded(value: float, digits: int = 2) -> str:
    """Half up, so that 0.995, which is as good as AP can be with few boxes, does not become 0.99 and 1.00."""
    return f"{value + 1e-9:.{digits}f}"


def _key_figures(facts: _Facts) -> Html:
    measured, froc = facts.measured, facts.measured["froc"]

    def tile(label: str, value: float | None, interval: Sequence[float] | None, missing: str = "no boxes") -> Tile:
        if value is None:
            return Tile(label, "–", missing)
        if interval is None:
            return Tile(label, _rounded(value), "too few to tell how sure")
        low, high = map(_rounded, interval)
        return Tile(label, _rounded(value), f"{low} to {high}" if low != high else "the same in every draw")

    points, spans = froc["sensitivity"] or {}, froc.get("sensitivity_ci") or {}
    made = measured["ci"]
    note = (
        f"Measured on the {facts.split} split with best.pt (epoch {facts.summary['best_epoch']}). Ranges are 95\u00a0% "
        f"intervals, from drawing the {made['drawn']} {made['over']} {made['resamples']} times with replacement."
    )
    figures = [
        tile("mAP50", measured["map50"], measured.get("map50_ci")),
        tile("mAP50-95", measured["map50_95"], measured.get("map50_95_ci")),
        tile("Sensitivity at 1 false alarm per image", points.get("1"), spans.get("1")),
        tile(
            "AUC: any finding or none",
            measured["image_auc"],
            measured.get("image_auc_ci"),
            measured["image_auc_missing"] or "",
        ),
    ]
    return join([tiles(figures), element("p", note, class_="note")])


def _advice(lines: Sequence[str]) -> Html:
    if not lines:
        return Html("")
    return section("What to do next", element("ul", *(element("li", line) for line in lines), class_="next"))


def _learning(facts: _Facts) -> Html:
    epochs = facts.journal.epochs
    numbers = [float(epoch.number) for epoch in epochs]

    def line(name: str, prefix: str, tone: int | str) -> Line:
        keys = ("box_loss", "cls_loss", "dfl_loss")
        values = [sum(epoch.metrics.get(f"{prefix}/{key}", 0.0) for key in keys) for epoch in epochs]
        return Line(name, numbers, values, tone)

    losses = [line("training", "train", 0), line("validation", "val", 1)]
    scores = [
        Line(name, numbers, [epoch.metrics.get(key, 0.0) for epoch in epochs], tone)
        for name, key, tone in (("mAP50", "val/map50", 0), ("mAP50-95", "val/map50_95", 1))
    ]
    x = Axis.counting("epoch", epochs[-1].number)
    best = [(float(facts.summary["best_epoch"]), f"best: {facts.summary['best_epoch']}")]
    loss_axis = Axis.over("", [value for one in losses for value in one.y], floor=0)
    score_axis = Axis.over("", [0.1, *(value for one in scores for value in one.y)], floor=0)
    restarts = facts.journal.restarts
    lead = f"{len(epochs)} epoch{'s' * (len(epochs) > 1)}; best.pt is from epoch {facts.summary['best_epoch']}."
    if restarts:
        times = "once" if restarts == 1 else f"{restarts} times"
        lead += f" Workers were lost and started again {times}; what was lost was trained again."
    return section(
        "How it learned",
        grid(
            line_chart("Loss", losses, x, loss_axis, best),
            line_chart("Score on the validation split", scores, x, score_axis, best),
        ),
        lead=lead,
    )


def _classes(facts: _Facts) -> Html:
    measured, trained = facts.measured, facts.summary["dataset"]["counts"]["train"]["per_class"]
    ranked = ranked_classes(measured)
    unknown = [name for name in measured["per_class"] if name not in ranked]
    rows = []
    for name in ranked + unknown:
        one = measured["per_class"][name]
        ends = one.get("map50_ci")
        rows.append(
            [
                name,
                _average_precision(one["map50"], ends),
                figure_text(one["map50_95"]),
                figure_text(one["recall"]),
                figure_text(one["precision"]),
                one["boxes"],
                trained.get(name, 0),
            ]
        )
    header = ("Class", "AP50", "AP50-95", "Recall", "Precision", "Boxes", "Trained on")
    lead = (
        "Best first; the bar shows AP50 and its 95\u00a0% interval from 0 to 1. "
        "Recall and precision stand at the score where mean F1 is best."
    )
    return section("Class by class", table(header, rows, numbers=range(1, 7)), lead=lead)


def _average_precision(value: float | None, ends: Sequence[float] | None) -> Html:
    bar = span(value, *(ends or (None, None))) if value is not None else None
    return join([figure_text(value, ends), bar])


def _curves(facts: _Facts) -> Html:
    froc, evaluation = facts.measured["froc"], facts.assessment.evaluation
    if froc["sensitivity"] is None or evaluation is None:
        return section("Sensitivity and false alarms", lead=f"No curve: the {facts.split} split has no boxes.")
    names = ranked_classes(facts.measured)
    tones: list[int | str] = [number if len(names) <= MOST_COLOURS else "pale" for number in range(len(names))]
    spans = [froc["sensitivity_ci"].get(f"{rate:g}") for rate in RATES] if "sensitivity_ci" in froc else []
    known = [ends for ends in spans if ends]
    low, high = zip(*known, strict=True) if len(known) == len(RATES) else ((), ())
    lines = [
        Line(name, RATES, [froc["per_class"][name][f"{rate:g}"] for rate in RATES], tone)
        for name, tone in zip(names, tones, strict=True)
    ]
    every = [froc["sensitivity"][f"{rate:g}"] for rate in RATES]
    lines.append(Line("all classes", RATES, every, "all", dots=True, low=low, high=high))
    unit = Axis.over("", [0, 1])
    x = Axis("false alarms per image", RATES[0], RATES[-1], RATE_TICKS, log=True)
    recall = [float(value) for value in evaluation.curves.recall[::10]]
    precision = [
        Line(name, recall, [float(value) for value in evaluation.curves.precision[name][::10]], tone)
        for name, tone in zip(names, tones, strict=True)
        if name in evaluation.curves.precision
    ]
    if len(names) > MOST_COLOURS:
        lines, precision = _unnamed(lines), _unnamed(precision)
    charts = grid(
        line_chart("FROC: share of true boxes that are found", lines, x, unit),
        line_chart("Precision over recall", precision, Axis.over("recall", [0, 1]), unit),
    )
    points = ", ".join(
        f"{figure_text(froc['sensitivity'][rate], (froc.get('sensitivity_ci') or {}).get(rate))} at {rate}"
        for rate in ("0.5", "1", "4")
    )
    lead = (
        f"Sensitivity is {points} false alarms per image. A hit is a box of the right class with an IoU of 0.5 or more."
    )
    return section("Sensitivity and false alarms", charts, lead=lead)


def _unnamed(lines: Sequence[Line]) -> list[Line]:
    return [Line("", line.x, line.y, line.tone) if line.tone == "pale" else line for line in lines]
