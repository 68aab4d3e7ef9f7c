"""The committed dashboards: what the code makes, no metric that is not declared, nothing that Grafana would drop."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.build import FOLDER, dashboards, text
from ray_jobs.telemetry import METRICS

BOARDS = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.json"))}
NAMES = {"training.json", "tuning.json", "cluster.json", "fleet.json"}
SERIES = {metric.series for metric in METRICS.values()}
every_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in panels(board) for target in panel["targets"]]


def test_what_is_committed_is_what_the_code_makes() -> None:
    made = dashboards()
    assert set(made) == set(BOARDS) == NAMES
    for file, content in made.items():
        assert (FOLDER / file).read_text(encoding="utf-8") == text(content), f"{file}: run make dashboards"


def test_there_are_at_least_thirty_queries() -> None:
    assert sum(len(queries(board)) for board in BOARDS.values()) >= 30


@every_board
def test_no_panel_names_a_metric_that_is_not_declared(board: dict[str, Any]) -> None:
    text_of_all = " ".join([*queries(board), *(str(each.get("query")) for each in board["templating"]["list"])])
    used = set(re.findall(r"\b(?:ray_)?xray_[a-z0-9_]+", text_of_all))
    assert used
    assert used <= SERIES


def test_every_declared_metric_is_looked_at() -> None:
    """On a dashboard or in an alert: what nobody looks at need not be measured."""
    rules = Path(__file__).parents[2] / "cluster" / "prometheus" / "rules"
    looked_at = json.dumps(BOARDS) + "".join(file.read_text(encoding="utf-8") for file in rules.glob("*.yaml"))
    unseen = {series for series in SERIES if not re.search(rf"\b{series}\b", looked_at)}
    assert unseen == set()


@every_board
def test_workers_that_are_started_again_make_no_second_series(board: dict[str, Any]) -> None:
    """WorkerId and SessionName change with a restart: every gauge of ours is aggregated over them."""
    for query in queries(board):
        assert re.search(r"\b(max|min|sum|count|topk|round)\b", query), query
        for metric in METRICS.values():
            if metric.series in query:
                by = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", query))))
                assert by <= {*metric.labels, *(label for each in METRICS.values() for label in each.labels)}, query


@every_board
def test_every_panel_says_what_it_shows_in_which_unit(board: dict[str, Any]) -> None:
    assert board["title"].endswith("?")
    assert [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    for panel in panels(board):
        assert panel["title"], panel
        assert panel["description"].rstrip().endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None
        assert panel["datasource"] == {"type": "prometheus", "uid": "${environment}"}
        assert all(target["expr"] for target in panel["targets"])
    assert len({panel["id"] for panel in panels(board)}) == len(panels(board))


@every_board
def test_panels_fill_the_width_and_do_not_overlap(board: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        x, y, width, height = place.get("x", 0), place.get("y", 0), place["w"], place["h"]
        assert x + width <= 24, panel["title"]
        cells = {(column, row) for column in range(x, x + width) for row in range(y, y + height)}
        assert not cells & taken, panel["title"]
        taken |= cells


@every_board
def test_environment_and_run_can_be_chosen_and_mlflow_and_ray_are_a_click_away(board: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["environment"]["type"] == "datasource"
    assert "run)" in variables["run"]["query"]
    links = [link["url"] for link in board["links"] if link["type"] == "link"]
    assert any(url.startswith("${mlflow}") for url in links)
    assert any(url.startswith("${ray}") for url in links)
    used = set(re.findall(r"\$\{?(\w+)", json.dumps([board["panels"], board["links"]])))
    assert used - {"__range", "__auto"} <= set(variables)


@every_board
def test_the_sdk_reads_it_and_drops_nothing(board: dict[str, Any]) -> None:
    read = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(board)))
    assert lost(board, read) == []


def lost(there: Any, read: Any, where: str = "") -> list[str]:
    """The places whose value did not come back."""
    if isinstance(there, dict) and isinstance(read, dict):
        return [place for key in there for place in lost(there[key], read.get(key), f"{where}.{key}")]
    if isinstance(there, list) and isinstance(read, list) and len(there) == len(read):
        return [place for at, each in enumerate(there) for place in lost(each, read[at], f"{where}[{at}]")]
    return [] if there == read else [where]
