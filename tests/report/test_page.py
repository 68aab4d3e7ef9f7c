from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from ray_jobs.report.charts import Axis, bars
from ray_jobs.report.page import (
    Html,
    Tile,
    definitions,
    document,
    element,
    figure,
    join,
    parts_of_whole,
    picture_file,
    section,
    table,
    tiles,
)

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'&amp;"


class Tags(HTMLParser):
    """Collects the tags of a page and checks that they are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_text_from_outside_stays_text() -> None:
    parts = [
        section(HOSTILE, element("p", HOSTILE, title=HOSTILE), lead=HOSTILE),
        tiles([Tile(HOSTILE, HOSTILE, HOSTILE)]),
        table([HOSTILE, HOSTILE], [[HOSTILE, HOSTILE]]),
        definitions([(HOSTILE, HOSTILE)], [HOSTILE]),
        parts_of_whole([(HOSTILE, 1.0, HOSTILE)]),
        figure(bars(HOSTILE, [(HOSTILE, 1.0)], [HOSTILE]), HOSTILE),
    ]
    tags = Tags(document(HOSTILE, HOSTILE, HOSTILE, parts, [HOSTILE]))
    assert not {"script", "img"} & set(tags.names)
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert tags.text.count(HOSTILE) >= 15
    assert ("title", HOSTILE) in tags.attributes


def test_a_page_asks_for_nothing_from_outside() -> None:
    tags = Tags(document("a run", "kicker", "fine", []))
    assert not {"script", "link", "iframe", "img"} & set(tags.names)
    policy = next(value for name, value in tags.attributes if name == "content" and value and "default-src" in value)
    assert policy.startswith("default-src 'none'")
    assert "@import" not in tags.text
    assert "url(" not in tags.text


def test_markup_goes_in_as_it_is_and_none_is_left_out() -> None:
    assert join([Html("<b>1</b>"), "<2>", None, 3]) == "<b>1</b>&lt;2&gt;3"
    assert element("rect", stroke_width=2, class_="a", style=None) == '<rect stroke-width="2" class="a"/>'


def test_a_table_tells_numbers_and_marked_rows() -> None:
    rows = table(["name", "count"], [["a", 1], ["b", 2]], numbers=[1], marked=[1])
    assert rows.count('class="number"') == 3
    assert '<tr class="marked"><th scope="row">b</th>' in rows


def test_a_picture_file_is_an_svg_of_its_own() -> None:
    root = ElementTree.fromstring(picture_file(bars("shares", [("a < b", 1.0)])))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "a < b" in "".join(root.itertext())


@pytest.mark.parametrize(
    ("values", "floor", "ends", "count"),
    [
        ([0.1, 0.83], 0, (0, 1), 5),
        ([3.0], None, (1.0, 5.0), 5),
        ([], None, (0, 1), 5),
        ([float("nan"), 7.0, 9.0], 0, (0, 10), 5),
        ([-2.0, 2.0], None, (-2, 2), 5),
    ],
)
def test_an_axis_holds_its_values_between_round_numbers(
    values: list[float], floor: float | None, ends: tuple[float, float], count: int
) -> None:
    axis = Axis.over("", values, floor)
    assert (axis.low, axis.high) == pytest.approx(ends)
    assert abs(len(axis.ticks) - count) <= 2
