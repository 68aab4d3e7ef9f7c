"""``report.html`` of a search: which trial won and by how much, what was stopped, what mattered, what it cost.

In: the trials of a search. Out: one page without network or script, and beside it two of its pictures as SVG files.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ray_jobs.detector.bootstrap import Comparison
from ray_jobs.flows.report.search_figure import Measure
from ray_jobs.flows.report.search_parameters import importance_bars, parameters_section, score_axis, written
from ray_jobs.flows.search.trial import State, Trial
from ray_jobs.report.charts import Axis, Line, line_chart, scatter
from ray_jobs.report.importance import importance
from ray_jobs.report.page import (
    Html,
    Tile,
    definitions,
    document,
    duration,
    element,
    grid,
    join,
    picture_file,
    section,
    table,
    tiles,
)

REPORT, HISTORY, IMPORTANCE = "report.html", "history.svg", "importance.svg"


@dataclass(frozen=True)
class Search:
    """What a report says of a search beside its trials.

    ``epochs`` is the most that a trial may run, ``seconds`` the wall-clock so far. ``facts`` are shown as they are
    (scheduler, searcher, data set, fingerprint). ``comparison``: the winner against the defaults on the test split.
    """

    name: str
    metric: str
    mode: Literal["max", "min"]
    epochs: int
    seconds: float
    facts: Mapping[str, str]
    comparison: Comparison | None = None


def write_search_report(folder: Path, trials: Sequence[Trial], best: Trial | None, search: Search) -> Path:
    """Write ``report.html``, ``history.svg`` and ``importance.svg`` into the search's folder; returns the page's path.

    ``best`` is the winner, None where no trial has a score. Works at any time of a search, also before its first epoch.
    """
    measure = Measure.of(search.metric, search.mode, trials)
    scored = [trial for trial in trials if trial.score is not None and measure.value(trial) is not None]
    scored = [trial for trial in scored if math.isfinite(trial.score or 0.0)]
    shares = importance([trial.parameters for trial in scored], [trial.score or 0.0 for trial in scored])
    history, mattered = _history(scored, best, measure), importance_bars(shares)
    for name, picture in ((HISTORY, history), (IMPORTANCE, mattered)):
        (folder / name).write_text(picture_file(picture), encoding="utf-8")
    sections = [
        _key_figures(trials, best, search, measure),
        _winner(best, search) if best else None,
        section(
            "How the search went",
            grid(element("div", history), _learning_curves(scored, best, search.epochs, measure)),
            lead="Each trial's score and the best so far; and what each epoch was worth, gray for stopped trials.",
        )
        if scored
        else None,
        parameters_section(scored, best, measure, shares, mattered) if scored else None,
        _trials(trials, best, measure),
    ]
    sentence, tone = _verdict(trials, scored, best, search, measure)
    body = [part for part in sections if part is not None]
    page = document(search.name, "Search", sentence, body, tone=tone)
    (folder / REPORT).write_text(page, encoding="utf-8")
    return folder / REPORT


def epochs_saved(trials: Sequence[Trial], epochs: int) -> tuple[int, float]:
    """How many epochs stopping trials early has saved, and which share that is of all that they would have run."""
    ended = [trial for trial in trials if trial.state in ("finished", "stopped")]
    saved = sum(max(epochs - len(trial.epochs), 0) for trial in ended if trial.state == "stopped")
    ran = sum(len(trial.epochs) for trial in ended)
    return saved, saved / (saved + ran) if saved + ran else 0.0


def _verdict(
    trials: Sequence[Trial], scored: Sequence[Trial], best: Trial | None, search: Search, measure: Measure
) -> tuple[str, Literal["good", "fair", "poor"]]:
    states = Counter(trial.state for trial in trials)
    value = measure.value(best) if best else None
    if best is None or value is None:
        if not trials:
            return "No trial has begun.", "fair"
        failed = states["failed"]
        reason = next((trial.reason for trial in trials if trial.reason), None)
        if failed and failed == len(trials):
            return f"All {failed} trials failed. The first one: {reason or 'no reason is known'}.", "poor"
        return f"No trial has a score yet ({_states(trials)}).", "fair"
    parts = [f"Trial {best.number} is best: {measure.name} {value:.3f} after {_epochs(len(best.epochs))}"]
    others = sorted(measure.value(trial) or 0.0 for trial in scored if trial.state == "finished")
    if len(others) > 2:
        parts[0] += f", where the median of the {len(others)} finished trials is {others[len(others) // 2]:.3f}"
    parts[0] += "."
    if measure.stands_in:
        parts.insert(0, f"No trial has found anything yet ({search.metric} is 0), so the validation loss decides.")
    difference = search.comparison.map50_95 if search.comparison else None
    if difference:
        parts.append(_compared(difference.value, difference.low, difference.high))
    saved, share = epochs_saved(trials, search.epochs)
    if saved:
        parts.append(
            f"Stopping {states['stopped']} of {len(trials)} trials early saved {100 * share:.0f}\u00a0% of the epochs."
        )
    if states["failed"]:
        parts.append(f"{states['failed']} failed.")
    worse = difference is not None and difference.low <= 0
    return " ".join(parts), "fair" if worse or measure.stands_in or states["failed"] * 4 > len(trials) else "good"


def _compared(value: float, low: float, high: float) -> str:
    span = f"{value:+.3f} mAP50-95 (95\u00a0% interval {low:+.3f} to {high:+.3f})"
    if low > 0:
        return f"On the test split it beats the defaults: {span}."
    if high < 0:
        return f"On the test split it is worse than the defaults, so keep those: {span}."
    return f"On the test split it cannot be told apart from the defaults: {span}."


def _key_figures(trials: Sequence[Trial], best: Trial | None, search: Search, measure: Measure) -> Html:
    saved, share = epochs_saved(trials, search.epochs)
    ran = sum(len(trial.epochs) for trial in trials)
    gpu = sum(trial.seconds * trial.gpus for trial in trials) / 3600
    cpu = sum(trial.seconds * trial.cpus for trial in trials) / 3600
    spent = Tile("GPU hours", _hours(gpu)) if gpu else Tile("CPU core hours", _hours(cpu))
    value = measure.value(best) if best else None
    return tiles(
        [
            Tile(
                f"Best {measure.name}",
                "–" if value is None else f"{value:.3f}",
                f"trial {best.number}" if best else "no trial has one",
            ),
            Tile("Trials", str(len(trials)), _states(trials)),
            Tile("Epochs saved by stopping early", f"{100 * share:.0f}\u00a0%", f"{saved} saved, {ran} run"),
            spent._replace(note=f"{duration(search.seconds)} on the clock"),
        ]
    )


def _winner(best: Trial, search: Search) -> Html:
    values = [(name, written(value)) for name, value in best.parameters.items()]
    facts = definitions(search.facts.items()) if search.facts else None
    lead = "best_config.yaml holds them; give it to the training job as --config."
    return join(
        [
            section("The winner's parameters", definitions(values), lead=lead),
            section("The search", facts) if facts else None,
        ]
    )


def _history(scored: Sequence[Trial], best: Trial | None, measure: Measure) -> Html:
    points = [(float(trial.number), measure.place(trial), trial.state == "finished") for trial in scored]
    x = Axis.counting("trial", max((trial.number for trial in scored), default=1))
    y = score_axis([point[1] for point in points])
    so_far = [measure.best([value for _, value, _ in points[: at + 1]]) for at in range(len(points))]
    # A staircase: the best stays as it is until the next trial.
    steps = [*[at for point in points for at in (point[0], point[0])][1:], x.high]
    line = Line("best so far", steps[: 2 * len(so_far)], [value for value in so_far for _ in range(2)], 1)
    number = next((at for at, trial in enumerate(scored) if best and trial.number == best.number), None)
    return scatter(f"{measure.name} by trial", points, x, y, number, [line])


def _learning_curves(scored: Sequence[Trial], best: Trial | None, epochs: int, measure: Measure) -> Html:
    lines = []
    for trial in scored:
        points = [(float(epoch.get("epoch", at)), measure.at(epoch)) for at, epoch in enumerate(trial.epochs, 1)]
        known = [(at, value) for at, value in points if value is not None]
        won = best is not None and trial.number == best.number
        name = f"trial {trial.number} (best)" if won else trial.state
        tone: int | str = "all" if won else 0 if trial.state == "finished" else "pale"
        lines.append(Line(name, [at for at, _ in known], [value for _, value in known], tone))
    x = Axis.counting("epoch", epochs)
    return line_chart(f"{measure.name} by epoch", lines, x, score_axis([value for line in lines for value in line.y]))


def _trials(trials: Sequence[Trial], best: Trial | None, measure: Measure) -> Html:
    names = list(dict.fromkeys(name for trial in trials for name in trial.parameters))
    ordered = sorted(trials, key=lambda trial: (trial.score is None, -(trial.score or 0.0), trial.number))
    rows: list[list[object]] = []
    for trial in ordered:
        again = {0: "", 1: ", restarted once"}.get(trial.restarts, f", restarted {trial.restarts} times")
        rows.append(
            [
                f"{trial.number}",
                f"{trial.state}{again}",
                "–" if (value := measure.value(trial)) is None else f"{value:.4f}",
                len(trial.epochs),
                duration(trial.seconds),
                *(written(trial.parameters[name]) if name in trial.parameters else "–" for name in names),
                element("div", trial.reason or "", class_="remark"),
            ]
        )
    header = ["Trial", "State", measure.name, "Epochs", "Time", *names, "Remark"]
    marked = [at for at, trial in enumerate(ordered) if best and trial.number == best.number]
    lead = "Best first, as the search ranked them."
    return section("All trials", table(header, rows, numbers=range(2, len(header) - 1), marked=marked), lead=lead)


def _states(trials: Iterable[Trial]) -> str:
    states = Counter(trial.state for trial in trials)
    order: tuple[State, ...] = ("finished", "stopped", "failed", "running", "pending")
    return ", ".join(f"{states[state]} {state}" for state in order if states[state])


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 10 else f"{hours:.2f}"
