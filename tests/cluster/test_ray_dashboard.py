"""What Ray's dashboard needs to show Grafana's panels in frames, as far as it goes without a Grafana.

A stand-in answers Ray's question after Grafana's health. What the browser would be told is compared with what Ray has
written for Grafana; the frames themselves are not shown.
"""

import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cluster.engine import wait_for
from tests.cluster.live_cluster import TOKEN, LiveCluster

IFRAME_HOST = "http://xray.example.org:3000"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class StandIn(BaseHTTPRequestHandler):
    """Grafana's answer to a question after its health."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path.endswith("/api/health") else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"database": "ok"}')

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    grafana = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=grafana.serve_forever, daemon=True).start()
    folder = tmp_path_factory.mktemp("dashboard")
    (folder / "drawn").mkdir()
    hosts = {
        "RAY_GRAFANA_HOST": f"http://127.0.0.1:{grafana.server_address[1]}",
        "RAY_GRAFANA_IFRAME_HOST": IFRAME_HOST,
    }
    names = {"RAY_PROMETHEUS_NAME": "Prometheus", "RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR": str(folder / "drawn")}
    cluster = LiveCluster(folder, **hosts, **names)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
        grafana.shutdown()
        grafana.server_close()


def answer(cluster: LiveCluster, path: str) -> dict:
    asked = urllib.request.Request(f"http://{cluster.dashboard}{path}", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.load(answer)


def test_ray_finds_prometheus(cluster: LiveCluster) -> None:
    assert answer(cluster, "/api/prometheus_health")["msg"] == "prometheus running"


def test_the_browser_is_sent_to_dashboards_that_ray_has_drawn(cluster: LiveCluster) -> None:
    told = answer(cluster, "/api/grafana_health")["data"]
    assert (told["grafanaHost"], told["dashboardDatasource"]) == (IFRAME_HOST, "Prometheus")
    drawn = {
        board["uid"]: board for board in map(json.loads, map(Path.read_text, (cluster.folder / "drawn").glob("*.json")))
    }
    assert set(told["dashboardUids"].values()) == set(drawn) != set()


def test_what_ray_has_drawn_finds_data(cluster: LiveCluster) -> None:
    """One panel of each of its dashboards' own series that a cluster without jobs has: those of its nodes."""
    [board] = [
        board
        for board in map(json.loads, map(Path.read_text, (cluster.folder / "drawn").glob("*.json")))
        if board["uid"] == "rayDefaultDashboard"
    ]
    asked = json.dumps(board)
    series = sorted(set(re.findall(r"ray_node_(?:cpu_utilization|mem_used_host|disk_usage)\b", asked)))
    assert len(series) == 3
    assert cluster.prometheus
    for name in series:
        query = f"count(last_over_time({name}[5m]))"
        wait_for(name, lambda query=query: cluster.prometheus.now(query), timeout=60)
