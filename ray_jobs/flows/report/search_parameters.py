"""The part of a search's report that shows what mattered: importance, scores over parameters, all trials at once.

In: the trials that have a score. Out: ``Html``.
"""

from collections.abc import Mapping, Sequence

from ray_jobs.flows.report.search_figure import Measure
from ray_jobs.flows.search.trial import Trial
from ray_jobs.report.charts import Axis, bars, parallel, scatter
from ray_jobs.report.importance import FEWEST_TRIALS, is_number
from ray_jobs.report.page import Html, element, grid, join, section

MOST_SCATTERS = 12  # parameters that get a picture of their own, the important ones first
MOST_AXES = 9  # of the parallel coordinates
WIDE_RANGE = 30.0  # largest over smallest value, from which on an axis spaces by ratio


def importance_bars(shares: Mapping[str, float]) -> Html:
    """How much each parameter mattered."""
    title = "Share of the ranking explained"
    return bars(title, list(shares.items()), [f"{100 * share:.0f}\u00a0%" for share in shares.values()])


def parameters_section(
    scored: Sequence[Trial], best: Trial | None, measure: Measure, shares: Mapping[str, float], mattered: Html
) -> Html:
    """Importance (``mattered``, the picture of ``shares``), the score over each parameter, and all trials at once."""
    names = list(dict.fromkeys([*shares, *(name for trial in scored for name in trial.parameters)]))
    moved = [
        name for name in names if len({str(trial.parameters[name]) for trial in scored if name in trial.parameters}) > 1
    ]
    y = score_axis([measure.place(trial) for trial in scored])
    pictures = []
    for name in moved[:MOST_SCATTERS]:
        having = [trial for trial in scored if name in trial.parameters]
        axis, places = _parameter_axis(name, having)
        points = [
            (place, measure.place(trial), trial.state == "finished")
            for place, trial in zip(places, having, strict=True)
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
    return section("What mattered", shown, grid(*pictures), _parallel(scored, best, measure, moved), lead=lead)


def _parallel(scored: Sequence[Trial], best: Trial | None, measure: Measure, names: Sequence[str]) -> Html | None:
    names = list(names)[: MOST_AXES - 1]
    complete = [trial for trial in scored if all(name in trial.parameters for name in names)]
    if len(names) < 2 or len(complete) < 3:
        return None
    placed = [_parameter_axis(name, complete, whole=False) for name in names]
    scores = [measure.place(trial) for trial in complete]
    score = _between(measure.name, scores, log=False)
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
    ticks = [(float(at), written(word)) for at, word in enumerate(words)]
    return Axis(name, -0.5, len(words) - 0.5, ticks), [float(words.index(str(value))) for value in values]


def _between(label: str, values: Sequence[float], log: bool) -> Axis:
    ends = (min(values), max(values))
    return Axis(label, *ends, [(end, written(float(f"{end:.3g}"))) for end in ends], log)


def score_axis(scores: Sequence[float]) -> Axis:
    """An axis for the trials' figures."""
    return Axis.over("", scores or [0.0, 1.0])


def written(value: object) -> str:
    """A parameter's value as in YAML, numbers to four digits."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}".replace("e-0", "e-") if isinstance(value, float) else str(value)
