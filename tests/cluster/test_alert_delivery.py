"""An alert on its way to a person: Prometheus finds it, Alertmanager hands it on, with what to do in it."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.engine import PROJECT, wait_for
from tests.cluster.live_cluster import RULES, free_port

SETTINGS = PROJECT / "cluster" / "alertmanager" / "alertmanager.yaml"


class Pager(BaseHTTPRequestHandler):
    """Somebody's webhook: keeps what it is told."""

    told: list[dict[str, Any]] = []  # noqa: RUF012 - one server, one test

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.told.extend(body["alerts"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def pager() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pager)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def monitoring(pager: str, tmp_path: Path) -> Iterator[None]:
    """The project's rules and routes with little patience; no Ray node anywhere.

    Some there must be: before Prometheus has found Alertmanager, seconds after its start, it drops what it finds.
    """
    for tool in ("prometheus", "prometheus-alertmanager"):
        if shutil.which(tool) is None:
            pytest.fail(f"{tool} is missing: run .ci/cluster.sh, which installs it")
    alertmanager, prometheus = (f"127.0.0.1:{free_port()}" for _ in range(2))
    routes = yaml.safe_load(SETTINGS.read_text())
    routes["route"] |= {"group_wait": "1s"}
    routes["receivers"] = [{"name": routes["route"]["receiver"], "webhook_configs": [{"url": pager}]}]
    (tmp_path / "alertmanager.yaml").write_text(yaml.safe_dump(routes))
    for rules in RULES:
        (tmp_path / rules.name).write_text(re.sub(r"\bfor: \w+", "for: 10s", rules.read_text()))
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(tmp_path / rules.name) for rules in RULES],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [{"job_name": "ray", "static_configs": [{"targets": [f"127.0.0.1:{free_port()}"]}]}],
    }
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(settings))
    commands = [
        ["prometheus-alertmanager", f"--config.file={tmp_path}/alertmanager.yaml", f"--storage.path={tmp_path}/am"],
        ["prometheus", f"--config.file={tmp_path}/prometheus.yaml", f"--storage.tsdb.path={tmp_path}/tsdb"],
    ]
    commands[0] += [f"--web.listen-address={alertmanager}", "--cluster.listen-address="]
    commands[1] += [f"--web.listen-address={prometheus}"]
    with (tmp_path / "log").open("w") as log:
        running = [subprocess.Popen(command, stdout=log, stderr=log) for command in commands]
        yield
        for process in running:
            process.terminate()
            process.wait(30)


@pytest.mark.usefixtures("monitoring")
def test_a_person_is_told_what_is_wrong_and_what_to_do() -> None:
    wait_for("an alert at the pager", lambda: Pager.told, timeout=90)
    [alert] = Pager.told  # one page: that the node does not answer either is not worth another
    assert (alert["labels"]["alertname"], alert["labels"]["severity"]) == ("RayHeadGone", "page")
    said = alert["annotations"]
    assert said["summary"] == "No Ray node answers."
    assert "docker compose ps ray-head" in said["action"]
    assert said["runbook"] == "docs/operations.md#rayheadgone"
