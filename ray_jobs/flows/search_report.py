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
from ray_jobs.flows.run_report import duration
from ray_jobs.flows.trial import State, Trial
from ray_jobs.report.charts import Axis, Line, bars, line_chart, parallel, scatter
from ray_jobs.report.importance import FEWEST_TRIALS, importance, is_number
from ray_jobs.report.page import (
    Html,
    Tile,
    definitions,
    document,
    element,
    grid,
    join,
    picture_file,
    section,
    table,
    tiles,
)

MOST_SCATTERS = 12  # parameters that get a picture of their own, the important ones first
MOST_AXES = 9  # of the parallel coordinates
WIDE_RANGE = 30.0  # largest over smallest value, from which on an axis spaces by ratio
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
    scored = [trial for trial in trials if trial.score is not None and math.isfinite(trial.score)]
    shares = importance([trial.parameters for trial in scored], [trial.score or 0.0 for trial in scored])
    history, mattered = _history(scored, best, search), _importance(shares)
    for name, picture in ((HISTORY, history), (IMPORTANCE, mattered)):
        (folder / name).write_text(picture_file(picture), encoding="utf-8")
    sections = [
        _key_figures(trials, best, search),
        _winner(best, search) if best else None,
        section(
            "How the search went",
            grid(element("div", history), _learning_curves(scored, best, search)),
            lead="Each trial's score and the best so far; and what each epoch was worth, gray for stopped trials.",
        )
        if scored
        else None,
        _parameters(scored, best, search, shares, mattered) if scored else None,
        _trials(trials, best, search),
    ]
    sentence, tone = _verdict(trials, scored, best, search)
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
    trials: Sequence[Trial], scored: Sequence[Trial], best: Trial | None, search: Search
) -> tuple[str, Literal["good", "fair", "poor"]]:
    states = Counter(trial.state for trial in trials)
    if best is None or best.score is None:
        if not trials:
            return "No trial has begun.", "fair"
        failed = states["failed"]
        reason = next((trial.reason for trial in trials if trial.reason), None)
        if failed and failed == len(trials):
            return f"All {failed} trials failed. The first one: {reason or 'no reason is known'}.", "poor"
        return f"No trial has a score yet ({_states(trials)}).", "fair"
    parts = [f"Trial {best.number} is best: {search.metric} {best.score:.3f} after {_epochs(len(best.epochs))}"]
    others = sorted(trial.score for trial in scored if trial.state == "finished" and trial.score is not None)
    if len(others) > 2:
        parts[0] += f", where the median of the {len(others)} finished trials is {others[len(others) // 2]:.3f}"
    parts[0] += "."
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
    return " ".join(parts), "fair" if worse or states["failed"] * 4 > len(trials) else "good"


def _compared(value: float, low: float, high: float) -> str:
    span = f"{value:+.3f} mAP50-95 (95\u00a0% interval {low:+.3f} to {high:+.3f})"
    if low > 0:
        return f"On the test split it beats the defaults: {span}."
    if high < 0:
        return f"On the test split it is worse than the defaults, so keep those: {span}."
    return f"On the test split it cannot be told apart from the defaults: {span}."


def _key_figures(trials: Sequence[Trial], best: Trial | None, search: Search) -> Html:
    saved, share = epochs_saved(trials, search.epochs)
    ran = sum(len(trial.epochs) for trial in trials)
    gpu = sum(trial.seconds * trial.gpus for trial in trials) / 3600
    cpu = sum(trial.seconds * trial.cpus for trial in trials) / 3600
    spent = Tile("GPU hours", _hours(gpu)) if gpu else Tile("CPU core hours", _hours(cpu))
    score = "–" if best is None or best.score is None else f"{best.score:.3f}"
    return tiles(
        [
            Tile(f"Best {search.metric}", score, f"trial {best.number}" if best else "no trial has one"),
            Tile("Trials", str(len(trials)), _states(trials)),
            Tile("Epochs saved by stopping early", f"{100 * share:.0f}\u00a0%", f"{saved} saved, {ran} run"),
            spent._replace(note=f"{duration(search.seconds)} on the clock"),
        ]
    )


def _winner(best: Trial, search: Search) -> Html:
    values = [(name, _written(value)) for name, value in best.parameters.items()]
    facts = definitions(search.facts.items()) if search.facts else None
    lead = "best_config.yaml holds them; give it to the training job as --config."
    return join(
        [
            section("The winner's parameters", definitions(values), lead=lead),
            section("The search", facts) if facts else None,
        ]
    )


def _history(scored: Sequence[Trial], best: Trial | None, search: Search) -> Html:
    points = [(float(trial.number), trial.score or 0.0, trial.state == "finished") for trial in scored]
    x = Axis.counting("trial", max((trial.number for trial in scored), default=1))
    y = _score_axis([point[1] for point in points])
    better = max if search.mode == "max" else min
    so_far = [better(score for _, score, _ in points[: at + 1]) for at in range(len(points))]
    # A staircase: the best stays as it is until the next trial.
    steps = [*[at for point in points for at in (point[0], point[0])][1:], x.high]
    line = Line("best so far", steps[: 2 * len(so_far)], [value for value in so_far for _ in range(2)], 1)
    number = next((at for at, trial in enumerate(scored) if best and trial.number == best.number), None)
    return scatter(f"{search.metric} by trial", points, x, y, number, [line])


def _learning_curves(scored: Sequence[Trial], best: Trial | None, search: Search) -> Html:
    lines = []
    for trial in scored:
        known = [
            (epoch.get("epoch", at), epoch[search.metric])
            for at, epoch in enumerate(trial.epochs, 1)
            if search.metric in epoch and math.isfinite(epoch[search.metric])
        ]
        if not known:
            continue
        won = best is not None and trial.number == best.number
        name = f"trial {trial.number} (best)" if won else trial.state
        tone: int | str = "all" if won else 0 if trial.state == "finished" else "pale"
        lines.append(Line(name, [float(at) for at, _ in known], [value for _, value in known], tone))
    x = Axis.counting("epoch", search.epochs)
    return line_chart(f"{search.metric} by epoch", lines, x, _score_axis([value for line in lines for value in line.y]))


def _importance(shares: Mapping[str, float]) -> Html:
    title = "Share of the ranking explained"
    return bars(title, list(shares.items()), [f"{100 * share:.0f}\u00a0%" for share in shares.values()])


def _parameters(
    scored: Sequence[Trial], best: Trial | None, search: Search, shares: Mapping[str, float], mattered: Html
) -> Html:
    names = list(dict.fromkeys([*shares, *(name for trial in scored for name in trial.parameters)]))
    moved = [
        name for name in names if len({str(trial.parameters[name]) for trial in scored if name in trial.parameters}) > 1
    ]
    y = _score_axis([trial.score or 0.0 for trial in scored])
    pictures = []
    for name in moved[:MOST_SCATTERS]:
        having = [trial for trial in scored if name in trial.parameters]
        axis, places = _parameter_axis(name, having)
        points = [
            (place, trial.score or 0.0, trial.state == "finished") for place, trial in zip(places, having, strict=True)
        ]
        number = next((at for at, trial in enumerate(having) if best and trial.number == best.number), None)
        pictures.append(element("div", scatter(name, points, axis, y, number)))
    lead = (
        "How much of the trials' ranking each parameter explains beyond those above it, and the score over each "
        "parameter. The large point is the winner; trials that were stopped are gray."
        if shares
        else f"The score over each parameter; with fewer than {FEWEST_TRIALS} trials their importance cannot be told."
    )
    shown = element("div", mattered, class_="half") if shares else None
    return section("What mattered", shown, grid(*pictures), _parallel(scored, best, search, moved), lead=lead)


def _parallel(scored: Sequence[Trial], best: Trial | None, search: Search, names: Sequence[str]) -> Html | None:
    names = list(names)[: MOST_AXES - 1]
    complete = [trial for trial in scored if all(name in trial.parameters for name in names)]
    if len(names) < 2 or len(complete) < 3:
        return None
    placed = [_parameter_axis(name, complete, whole=False) for name in names]
    scores = [trial.score or 0.0 for trial in complete]
    score = _between(search.metric, scores, log=False)
    order: tuple[int | str, ...] = ("pale", 0, 1)
    rows: list[tuple[Sequence[float], int | str]] = []
    for at, trial in enumerate(complete):
        values = [*(places[at] for _, places in placed), scores[at]]
        won = best is not None and trial.number == best.number
        rows.append((values, 1 if won else 0 if trial.state == "finished" else "pale"))
    rows.sort(key=lambda row: order.index(row[1]))
    chart = parallel("Parameters of all trials", [*(axis for axis, _ in placed), score], rows)
    return join([element("h3", "All trials at once"), element("p", "The winner is orange.", class_="lead"), chart])


def _parameter_axis(name: str, trials: Sequence[Trial], whole: bool = True) -> tuple[Axis, list[float]]:
    """An axis for a parameter, and where each trial stands on it; words stand side by side. ``whole``: it ends at round
    numbers, else at the least and the greatest value."""
    values = [trial.parameters[name] for trial in trials]
    if all(map(is_number, values)):
        numbers = sorted(map(float, values))
        low, middle, high = numbers[0], numbers[len(numbers) // 2], numbers[-1]
        # Numbers that were drawn evenly have their middle there; those drawn by ratio far below.
        log = low > 0 and high / low >= WIDE_RANGE and middle < (low + high) / 4
        return (Axis.over if whole else _between)(name, numbers, log=log), list(map(float, values))
    words = sorted({str(value) for value in values})
    ticks = [(float(at), _written(word)) for at, word in enumerate(words)]
    return Axis(name, -0.5, len(words) - 0.5, ticks), [float(words.index(str(value))) for value in values]


def _between(label: str, values: Sequence[float], log: bool) -> Axis:
    ends = (min(values), max(values))
    return Axis(label, *ends, [(end, _written(float(f"{end:.3g}"))) for end in ends], log)


def _score_axis(scores: Sequence[float], label: str = "") -> Axis:
    return Axis.over(label, scores or [0.0, 1.0])


def _trials(trials: Sequence[Trial], best: Trial | None, search: Search) -> Html:
    names = list(dict.fromkeys(name for trial in trials for name in trial.parameters))
    sign = -1 if search.mode == "max" else 1
    ordered = sorted(trials, key=lambda trial: (trial.score is None, sign * (trial.score or 0.0), trial.number))
    rows: list[list[object]] = []
    for trial in ordered:
        again = {0: "", 1: ", restarted once"}.get(trial.restarts, f", restarted {trial.restarts} times")
        rows.append(
            [
                f"{trial.number}",
                f"{trial.state}{again}",
                "–" if trial.score is None else f"{trial.score:.4f}",
                len(trial.epochs),
                duration(trial.seconds),
                *(_written(trial.parameters[name]) if name in trial.parameters else "–" for name in names),
                element("div", trial.reason or "", class_="remark"),
            ]
        )
    header = ["Trial", "State", "Score", "Epochs", "Time", *names, "Remark"]
    marked = [at for at, trial in enumerate(ordered) if best and trial.number == best.number]
    lead = f"Best first, by {search.metric}."
    return section("All trials", table(header, rows, numbers=range(2, len(header) - 1), marked=marked), lead=lead)


def _states(trials: Iterable[Trial]) -> str:
    states = Counter(trial.state for trial in trials)
    order: tuple[State, ...] = ("finished", "stopped", "failed", "running", "pending")
    return ", ".join(f"{states[state]} {state}" for state in order if states[state])


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 10 else f"{hours:.2f}"


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}".replace("e-0", "e-") if isinstance(value, float) else str(value)
