"""``report.html`` of a benchmark: which settings are fastest, and why.

In: the points of a benchmark. Out: one page without network or script.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from ray_jobs.flows.benchmark.sweep import Point, Setting
from ray_jobs.flows.benchmark.table import COLUMNS, row, verdict
from ray_jobs.report.charts import Axis, Line, bars, line_chart
from ray_jobs.report.page import Html, Tile, document, duration, element, grid, section, table, tiles

_KINDS = {
    "batch_size": "Batch size",
    "num_workers": "Workers",
    "workers": "Loader processes of each worker",
    "precision": "Precision",
}


def write_benchmark_report(path: Path, result: dict[str, Any], points: Sequence[Point], best: Point) -> None:
    """Write the page to ``path``."""
    sections = [
        _key_figures(result, best),
        _recommended(result),
        _fastest(points),
        *(_kind(kind, points) for kind in _KINDS),
        _steps(points),
        _all(result),
    ]
    sentence = verdict(result).removesuffix(" In config.yaml:")
    body = [part for part in sections if part is not None]
    failed = sum(point.error is not None for point in points)
    page = document(result["name"], "Benchmark", sentence, body, tone="fair" if failed == len(points) - 1 else "good")
    path.write_text(page, encoding="utf-8")


def _key_figures(result: dict[str, Any], best: Point) -> Html:
    spread = f"{min(best.epochs):.1f} to {max(best.epochs):.1f} in {len(best.epochs)} epochs"
    startup = result["startup_seconds"]
    return tiles(
        [
            Tile("Images per second", f"{best.images_per_second:.1f}", spread),
            Tile("Against what is configured", f"{result['faster']:.2f} ×" if result["faster"] else "–", "in training"),
            Tile("Waiting for images", f"{best.data_wait or 0:.0%}", "of training time"),
            Tile(
                "Command to first step",
                "–" if startup is None else duration(startup),
                f"{duration(result['seconds'])} for the whole benchmark",
            ),
        ]
    )


def _recommended(result: dict[str, Any]) -> Html:
    lead = (
        "These lines go into config.yaml. Precision and workers change how long training takes. The batch size also "
        "changes what is learned, because every batch is a step of the optimizer: compare the scores of both."
    )
    text = yaml.safe_dump(result["recommended"], sort_keys=False)
    return section("Recommended", element("pre", element("code", text)), lead=lead)


def _fastest(points: Sequence[Point]) -> Html:
    ranked = sorted((p for p in points if p.images_per_second), key=lambda p: -(p.images_per_second or 0.0))
    values = [(_short(point.setting), point.images_per_second or 0.0) for point in ranked]
    chart = bars("Images per second", values, [f"{value:.1f}" for _, value in values])
    lead = "Batch, workers, loader processes and precision of each, the fastest first."
    return section("All settings", element("div", chart, class_="half"), lead=lead)


def _kind(kind: str, points: Sequence[Point]) -> Html | None:
    """How speed, waiting and memory change with one kind alone; None where it was not varied."""
    family = _family(kind, points)
    if len(family) < 2:
        return None
    charts = [
        _chart("Images per second", family, kind, lambda point: point.images_per_second),
        _chart("Waiting for images, % of the time", family, kind, lambda point: 100 * (point.data_wait or 0.0)),
        _chart("Memory, GiB", family, kind, _memory),
    ]
    failed = [getattr(p.setting, kind) for p in points if p.error and _alike(p.setting, family[0].setting, kind)]
    lead = "Everything else stays the same."
    if failed:
        lead += f" With {', '.join(map(str, failed))} it failed."
    return section(_KINDS[kind], grid(*(element("div", chart) for chart in charts if chart)), lead=lead)


def _family(kind: str, points: Sequence[Point]) -> list[Point]:
    """The largest set of points that differ in this kind alone."""
    worked = [point for point in points if point.images_per_second is not None]
    families = [[other for other in worked if _alike(other.setting, one.setting, kind)] for one in worked]
    largest: list[Point] = max(families, key=lambda family: len(family), default=[])
    return sorted(largest, key=lambda point: getattr(point.setting, kind))


def _alike(one: Setting, other: Setting, kind: str) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in _KINDS if name != kind)


def _memory(point: Point) -> float | None:
    held = point.gpu_memory_bytes or point.memory_bytes
    return held / 2**30 if held else None


def _chart(title: str, family: Sequence[Point], kind: str, value: Callable[[Point], float | None]) -> Html | None:
    known = [(getattr(point.setting, kind), value(point)) for point in family]
    pairs = [(at, figure) for at, figure in known if figure is not None]
    if len(pairs) < 2:
        return None
    if kind == "precision":
        return bars(title, pairs, [f"{figure:.3g}" for _, figure in pairs])
    ticks = [(float(number), str(at)) for number, (at, _) in enumerate(pairs)]
    x = Axis(_KINDS[kind].lower(), -0.3, len(pairs) - 0.7, ticks)
    y = Axis.over("", [figure for _, figure in pairs], floor=0.0)
    return line_chart(title, [Line("", [at for at, _ in ticks], [figure for _, figure in pairs], dots=True)], x, y)


def _steps(points: Sequence[Point]) -> Html | None:
    """What a step is made of: computing, and waiting for images."""
    known = [p for p in points if p.step_seconds is not None and p.data_wait is not None]
    if not known:
        return None
    computing, waiting = [], []
    for point in known:
        wait = (point.step_seconds or 0.0) * (point.data_wait or 0.0)
        name, each = _short(point.setting), 1000 / point.setting.batch_size
        computing.append((name, ((point.step_seconds or 0.0) - wait) * each))
        waiting.append((name, wait * each))
    charts = [
        bars("Computing, ms per image", computing, [f"{value:.3g}" for _, value in computing]),
        bars("Waiting for images, ms per image", waiting, [f"{value:.2g}" for _, value in waiting]),
    ]
    lead = "Where waiting is much of the time, more loader processes or smaller pictures help; elsewhere the processor "
    return section("Where the time goes", grid(*charts), lead=lead + "or the GPU sets the pace.")


def _all(result: dict[str, Any]) -> Html:
    marked = [at for at, point in enumerate(result["points"]) if point["setting"] == result["best"]["setting"]]
    rows = [[f"{at}", *row(point), point["error"] or ""] for at, point in enumerate(result["points"], 1)]
    header = ["Point", *COLUMNS, "Remark"]
    lead = (
        f"Each trained {result['epochs']} epochs over {result['images']['train']} images, of which the first does not "
        "count; medians over the others. Memory is what all workers of this machine hold together."
    )
    return section("All points", element("div", table(header, rows, range(1, 11), marked), class_="scroll"), lead=lead)


def _short(setting: Setting) -> str:
    return f"{setting.batch_size} · {setting.num_workers} · {setting.workers} · {setting.precision}"
