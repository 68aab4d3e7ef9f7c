"""The page that every report shares: its skeleton, headings, tables and small parts.

In: texts and numbers. Out: ``Html``, markup that is safe to put into a page. Texts of any origin go in as they are:
``element`` escapes all that is not ``Html``.
"""

import re
from collections.abc import Container, Iterable, Sequence
from html import escape
from typing import NamedTuple

from ray_jobs.report.style import PICTURE_STYLE, STYLE

_VOID = ("meta", "br", "img", "line", "rect", "circle", "path", "polyline", "image")
_VIEW_BOX = re.compile(r'viewBox="0 0 (\d+) (\d+)"')
MARGIN = 16  # round a chart that is a file
NOTE = "For research, not for diagnosis."


class Html(str):
    """Markup, as opposed to text that has to be escaped."""

    __slots__ = ()


class Tile(NamedTuple):
    """A key figure: what it is, its value, and what must be known about it."""

    label: str
    value: str
    note: str | Html = ""


def element(tag: str, /, *children: object, **attributes: object) -> Html:
    """``<tag attributes>children</tag>``. Attributes are named ``class_`` and ``stroke_width`` for ``class`` and
    ``stroke-width``; one that is None is left out."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID and not children:
        return Html(f"<{tag}{given}/>")
    return Html(f"<{tag}{given}>{join(children)}</{tag}>")


def join(parts: Iterable[object]) -> Html:
    """Parts one after the other: ``Html`` as it is, everything else escaped, None left out."""
    return Html("".join(part if isinstance(part, Html) else escape(str(part)) for part in parts if part is not None))


def document(
    title: str, kicker: str, verdict: str, body: Iterable[Html], footer: Sequence[str] = (), tone: str = ""
) -> str:
    """A whole page: what it is about (``kicker``, ``title``), what it says in one or two sentences (``verdict``), and
    the rest. ``tone`` colours the verdict: good, fair or poor."""
    # A page of our own may hold no script and fetch nothing, whatever a name in it says.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(STYLE)),
    ]
    top = [element("p", kicker, class_="kicker"), element("h1", title), element("p", verdict, class_=f"verdict {tone}")]
    end = element("footer", *(element("p", line) for line in (*footer, NOTE)))
    page = element("body", element("header", *top), element("main", *body), end)
    return f'<!doctype html>\n<html lang="en"><head>{join(head)}</head>\n{page}</html>\n'


def picture_file(svg: Html) -> str:
    """A chart as an SVG file of its own, on white."""
    found = _VIEW_BOX.search(svg)
    assert found, "a chart has a viewBox"
    width, height = int(found[1]), int(found[2])
    inner = Html(svg.replace("<svg", f'<svg x="{MARGIN}" y="{MARGIN}" width="{width}" height="{height}"', 1))
    view = f"0 0 {width + 2 * MARGIN} {height + 2 * MARGIN}"
    style = element("style", Html(PICTURE_STYLE))
    return element("svg", style, inner, xmlns="http://www.w3.org/2000/svg", viewBox=view) + "\n"


def section(heading: str, *children: object, lead: str | Html = "") -> Html:
    """A part of the page under its heading; ``lead`` says what is to be seen."""
    first = element("p", lead, class_="lead") if lead else None
    return element("section", element("h2", heading), first, *children)


def tiles(figures: Iterable[Tile]) -> Html:
    """Key figures side by side."""
    return element(
        "div",
        *(
            element("div", *(element("p", part, class_=name) for part, name in zip(tile, Tile._fields, strict=True)))
            for tile in figures
        ),
        class_="tiles",
    )


def table(
    header: Sequence[str], rows: Iterable[Sequence[object]], numbers: Container[int] = (), marked: Container[int] = ()
) -> Html:
    """A table whose first column names the row. ``numbers`` are the columns that hold numbers, ``marked`` the rows that
    stand out, both counted from 0."""

    def cell(column: int, value: object, tag: str = "td") -> Html:
        return element(tag, value, class_="number" if column in numbers else None)

    titles = [
        element("th", title, scope="col", class_="number" if at in numbers else None) for at, title in enumerate(header)
    ]
    lines = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(cell(column, value) for column, value in enumerate(row[1:], 1)),
            class_="marked" if number in marked else None,
        )
        for number, row in enumerate(rows)
    ]
    parts = element("table", element("thead", element("tr", *titles)), element("tbody", *lines))
    return element("div", parts, class_="scroll", tabindex="0")


def definitions(values: Iterable[tuple[str, object]], marked: Iterable[str] = ()) -> Html:
    """Names and values in columns; ``marked`` names stand out."""
    standing_out = set(marked)
    pairs = (
        element("div", element("dt", name), element("dd", value), class_="marked" if name in standing_out else None)
        for name, value in values
    )
    return element("dl", *pairs)


def figure(content: Html, caption: str | Html, class_: str | None = None) -> Html:
    """A picture or chart with its caption."""
    return element("figure", content, element("figcaption", caption), class_=class_)


def grid(*children: Html, class_: str = "grid") -> Html:
    """Children side by side where there is room."""
    return element("div", *children, class_=class_)


def parts_of_whole(parts: Sequence[tuple[str, float, str]]) -> Html:
    """A bar of shares with a legend: name, size, and how the size is written."""
    whole = sum(size for _, size, _ in parts) or 1.0
    bar = [
        element("span", class_=f"fill{number % 8}", style=f"width:{100 * size / whole:.2f}%")
        for number, (_, size, _) in enumerate(parts)
    ]
    names = [
        element("li", element("i", class_=f"fill{number % 8}"), f"{name} {written}")
        for number, (name, _, written) in enumerate(parts)
    ]
    return join([element("div", *bar, class_="whole", aria_hidden="true"), element("ul", *names, class_="legend")])


def duration(seconds: float) -> str:
    """``4.2 s``, ``5 min 47 s``, ``3 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
