"""Charts as SVG that follows the page's colours, light or dark, and stays sharp on a phone and in print.

In: numbers. Out: ``Html``. A chart is as wide as its place; its letters are meant for about 330 to 540 pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ray_jobs.report.page import Html, element

WIDTH, HEIGHT = 440, 280
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 40, 42


@dataclass(frozen=True)
class Line:
    """One line: ``tone`` is 0 to 7, "all" for what matters most, or "pale". ``low`` and ``high`` draw a band."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    tone: int | str = 0
    dots: bool = False
    low: Sequence[float] = ()
    high: Sequence[float] = ()

    @property
    def stroke(self) -> str:
        """The class that colours the line."""
        return f"line{self.tone}" if isinstance(self.tone, int) else self.tone

    @property
    def fill(self) -> str:
        """The class that colours its dots and its band."""
        return {"all": "allfill", "pale": "paledot"}.get(str(self.tone), f"fill{self.tone}")


@dataclass(frozen=True)
class Axis:
    """What an axis says, its ends, and where numbers stand (value, text); ``log`` spaces by ratio."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value stands, 0..1 along the axis."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low) if high > low else 0.5

    @classmethod
    def over(cls, label: str, values: Sequence[float], floor: float | None = None, log: bool = False) -> "Axis":
        """An axis that holds the values, with about five round numbers; ``floor`` is where it starts at the latest."""
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min([*finite, *([] if floor is None else [floor])]), max(finite)
        if log and low > 0:
            return cls._powers(label, low, high)
        if high <= low:
            low, high = low - (floor is None) * (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
        step = _round_step((high - low) / 4)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        ticks = [(number * step, number_text(number * step)) for number in range(first, last + 1)]
        return cls(label, first * step, last * step, ticks)

    @classmethod
    def counting(cls, label: str, last: int) -> "Axis":
        """An axis of whole numbers from 1 to ``last``."""
        step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if last / step <= 6)
        rounds = [number for number in range(step, last + 1, step) if number - 1 > 0.6 * step]  # none too close to 1
        return cls(label, 1, max(last, 2), [(float(number), str(number)) for number in [1, *rounds]])

    @classmethod
    def _powers(cls, label: str, low: float, high: float) -> "Axis":
        first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
        last = max(last, first + 1)
        every = max(1, (last - first) // 4)
        ticks = [(10.0**power, number_text(10.0**power)) for power in range(first, last + 1, every)]
        return cls(label, 10.0**first, 10.0**last, ticks, log=True)


def number_text(value: float) -> str:
    """A number as short as it can be read: 0.25, 12, 1e-05."""
    return f"{value:.0e}".replace("e-0", "e-") if value and abs(value) < 0.001 else f"{round(value, 6):g}"


def line_chart(title: str, lines: Sequence[Line], x: Axis, y: Axis, marks: Sequence[tuple[float, str]] = ()) -> Html:
    """Lines over each other with a legend below; ``marks`` are upright lines, each with its word."""
    parts = [*_frame(title, x, y)]
    for at, word in marks:
        parts += _mark(_x(x, at), word)
    for line in sorted(
        lines, key=lambda line: ("pale", 0, "all").index(line.tone if line.tone in ("pale", "all") else 0)
    ):
        parts += _draw(line, x, y)
    named = [line for line in lines if line.name]
    return element("div", _svg(title, parts), legend(named) if len(named) > 1 else None)


def legend(lines: Sequence[Line]) -> Html:
    """Names beside their colours."""
    shown = {line.name: line for line in lines}
    items = [
        element("li", element("i", class_=line.fill.replace("allfill", "all").replace("paledot", "pale")), name)
        for name, line in shown.items()
    ]
    return element("ul", *items, class_="legend")


def scatter(
    title: str,
    points: Sequence[tuple[float, float, bool]],
    x: Axis,
    y: Axis,
    best: int | None = None,
    lines: Sequence[Line] = (),
) -> Html:
    """Points (x, y, whether it counts in full); the others are pale and the ``best`` one is large. ``lines`` lie under
    the points and have no legend."""
    parts = [*_frame(title, x, y), *(part for line in lines for part in _draw(line, x, y))]
    for number, (at, value, full) in sorted(enumerate(points), key=lambda point: (point[0] == best, point[1][2])):
        tone = "fill1" if number == best else "fill0" if full else "paledot"
        parts.append(element("circle", cx=_x(x, at), cy=_y(y, value), r=6 if number == best else 4, class_=tone))
    return _svg(title, parts)


def bars(title: str, values: Sequence[tuple[str, float]], written: Sequence[str] = ()) -> Html:
    """Lying bars from 0, longest first as given."""
    row, top = 26, TOP if title else 4
    longest = max((value for _, value in values), default=0) or 1.0
    parts = [element("text", title, x=0, y=14, class_="title")] if title else []
    for number, (name, value) in enumerate(values):
        y = top + number * row
        text = written[number] if written else f"{value:.2f}"
        parts += [
            element("text", _short(name, 22), x=0, y=y + 15),
            element(
                "rect", x=150, y=y + 3, width=f"{max(value / longest * 230, 1):.1f}", height=16, rx=2, class_="fill0"
            ),
            element("text", text, x=f"{156 + max(value / longest * 230, 1):.1f}", y=y + 15, class_="value"),
        ]
    return _svg(title, parts, height=top + len(values) * row + 4)


def span(value: float, low: float | None, high: float | None, most: float = 1.0) -> Html:
    """A value between the ends of its interval on a line from 0 to ``most``, for a table's cell."""
    width, place = 144, 136 / most
    parts = [element("line", x1=4, x2=width - 4, y1=9, y2=9, class_="axis")]
    if low is not None and high is not None:
        ends = {"x1": f"{4 + low * place:.1f}", "x2": f"{4 + high * place:.1f}"}
        parts.append(
            element("line", **ends, y1=9, y2=9, stroke_width=5, stroke_linecap="round", class_="line0", opacity=0.4)
        )
    parts.append(element("circle", cx=f"{4 + value * place:.1f}", cy=9, r=4.5, class_="fill0"))
    return element("svg", *parts, viewBox=f"0 0 {width} 18", class_="span", aria_hidden="true")


def parallel(title: str, axes: Sequence[Axis], rows: Sequence[tuple[Sequence[float], int | str]]) -> Html:
    """Parallel coordinates: each row is a line through its value on every axis, in the tone given with it, as for
    ``Line``; what comes last lies on top."""
    width, height, top, bottom = max(WIDTH, 110 * len(axes)), 300, 34, 14
    inner = height - top - bottom

    def place(number: int) -> float:
        return 40 + number * (width - 100) / max(len(axes) - 1, 1)

    def level(axis: Axis, value: float) -> float:
        return top + inner * (1 - axis.share(value))

    parts = []
    for values, tone in rows:
        points = [f"{place(at):.1f},{level(axis, values[at]):.1f}" for at, axis in enumerate(axes)]
        wide = 1.2 if tone == "pale" else 2.6
        stroke = Line("", (), (), tone).stroke
        parts.append(element("polyline", points=" ".join(points), stroke_width=wide, class_=f"curve {stroke}"))
    for number, axis in enumerate(axes):
        x = place(number)
        parts.append(element("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=top, y2=height - bottom, class_="mark"))
        parts.append(element("text", _short(axis.label, 15), x=f"{x:.1f}", y=16, text_anchor="middle", class_="value"))
        for value, text in axis.ticks:
            y = level(axis, value) + 4
            parts.append(element("text", _short(text, 9), x=f"{x + 5:.1f}", y=f"{y:.1f}", class_="halo"))
    limits = f"min-width:{width}px;max-width:{1.3 * width:.0f}px"
    return element("div", _svg(title, parts, width, height, limits), class_="scroll", tabindex="0")


def _frame(title: str, x: Axis, y: Axis) -> list[Html]:
    left, right, base = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [element("text", title, x=0, y=14, class_="title")]
    for value, text in y.ticks:
        at = _y(y, value)
        parts.append(element("line", x1=left, x2=right, y1=at, y2=at, class_="axis"))
        parts.append(element("text", text, x=left - 7, y=f"{float(at) + 4:.1f}", text_anchor="end"))
    for value, text in x.ticks:
        cut = x.share(value) == 1 and len(text) > 4  # in the middle of its place it would reach over the edge
        at, anchor = (f"{WIDTH}", "end") if cut else (_x(x, value), "middle")
        parts.append(element("text", text, x=at, y=base + 17, text_anchor=anchor))
    parts.append(element("text", x.label, x=(left + right) / 2, y=HEIGHT - 5, text_anchor="middle"))
    if y.label:
        parts.append(element("text", y.label, x=right, y=14, text_anchor="end"))
    return parts


def _mark(x: str, word: str) -> list[Html]:
    end = float(x) > WIDTH * 0.7
    at = f"{float(x) + (-5 if end else 5):.1f}"
    return [
        element("line", x1=x, x2=x, y1=TOP - 10, y2=HEIGHT - BOTTOM, class_="mark"),
        element("text", word, x=at, y=TOP - 3, text_anchor="end" if end else "start"),
    ]


def _draw(line: Line, x: Axis, y: Axis) -> list[Html]:
    points = [(_x(x, at), _y(y, value)) for at, value in zip(line.x, line.y, strict=True) if math.isfinite(value)]
    parts = []
    if line.low and line.high:
        edge = [(at, high) for at, high in zip(line.x, line.high, strict=True)]
        edge += [(at, low) for at, low in zip(line.x[::-1], line.low[::-1], strict=True)]
        corners = " ".join(f"{_x(x, at)},{_y(y, value)}" for at, value in edge)
        parts.append(element("polyline", points=corners, class_=f"band {line.fill}"))
    if len(points) > 1:
        wide = {"all": 3, "pale": 1.3}.get(str(line.tone), 2)
        path = " ".join(",".join(point) for point in points)
        parts.append(element("polyline", points=path, stroke_width=wide, class_=f"curve {line.stroke}"))
    if line.dots or len(points) == 1:
        parts += [element("circle", cx=at, cy=value, r=3.5, class_=line.fill) for at, value in points]
    return parts


def _x(axis: Axis, value: float) -> str:
    return f"{LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT):.1f}"


def _y(axis: Axis, value: float) -> str:
    return f"{HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - BOTTOM - TOP):.1f}"


def _svg(title: str, parts: Sequence[Html], width: int = WIDTH, height: int = HEIGHT, style: str | None = None) -> Html:
    return element("svg", *parts, viewBox=f"0 0 {width} {height}", role="img", aria_label=title, style=style)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
