"""Prometheus, Alertmanager and Grafana settings, read by Prometheus' and Alertmanager's own tools."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_jobs.telemetry import METRICS
from tests.cluster.engine import HERE, PROJECT

CLUSTER = PROJECT / "cluster"
OPERATIONS = PROJECT / "docs" / "operations.md"


def checked(tool: str, *arguments: str) -> str:
    """Run a tool that must succeed; returns what it said."""
    if shutil.which(tool) is None:
        pytest.fail(f"{tool} is missing: run .ci/cluster.sh, which installs it")
    done = subprocess.run([tool, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_prometheus_settings_are_valid() -> None:
    checked("promtool", "check", "config", "--syntax-only", str(CLUSTER / "prometheus" / "prometheus.yaml"))


def test_alert_rules_are_valid() -> None:
    rules = sorted(map(str, (CLUSTER / "prometheus" / "rules").glob("*.yaml")))
    assert "SUCCESS" in checked("promtool", "check", "rules", *rules)


def test_alert_rules_fire_when_they_should_and_not_otherwise() -> None:
    checked("promtool", "test", "rules", str(HERE / "alerts.test.yaml"))


def alerts() -> list[dict[str, Any]]:
    files = [yaml.safe_load(file.read_text()) for file in (CLUSTER / "prometheus" / "rules").glob("*.yaml")]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def test_every_alert_is_tested_for_firing_and_for_not_firing() -> None:
    fires, keeps_quiet = set(), set()
    for world in yaml.safe_load((HERE / "alerts.test.yaml").read_text())["tests"]:
        checks = world["promql_expr_test"]
        named = set(re.findall(r"\w+", str([each for each in checks if each.get("exp_samples")])))
        fires |= named
        if any(not each.get("exp_samples") for each in checks):
            keeps_quiet |= named
    names = {alert["alert"] for alert in alerts()}
    assert names - fires == set()
    assert names - keeps_quiet == set()


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_every_alert_says_what_it_means_and_what_to_do(alert: dict[str, Any]) -> None:
    said = alert["annotations"]
    assert alert["labels"]["severity"] in ("page", "warn")
    assert said["summary"].endswith((".", "again."))
    assert said["action"].endswith(".")
    file, _, heading = said["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (PROJECT / file).read_text(), re.MULTILINE)
    assert heading == alert["alert"].lower()
    assert heading in {each.lower() for each in headings}


def test_no_alert_looks_at_a_metric_that_is_not_declared() -> None:
    declared = {metric.series for metric in METRICS.values()}
    used = {name for alert in alerts() for name in re.findall(r"\b(?:ray_)?xray_[a-z0-9_]+", alert["expr"])}
    assert used
    assert used <= declared


def test_alertmanager_settings_are_valid() -> None:
    assert "1 inhibit rules" in checked("amtool", "check-config", str(CLUSTER / "alertmanager" / "alertmanager.yaml"))


def test_the_receivers_of_the_runbook_are_valid(tmp_path: Path) -> None:
    [example] = re.findall(r"```yaml\n(global:.*?)```", OPERATIONS.read_text(), re.DOTALL)
    settings = (CLUSTER / "alertmanager" / "alertmanager.yaml").read_text()
    (tmp_path / "alertmanager.yaml").write_text(example + settings[settings.index("inhibit_rules:") :])
    assert "2 receivers" in checked("amtool", "check-config", str(tmp_path / "alertmanager.yaml"))


def test_the_runbook_lists_the_alerts_by_severity() -> None:
    for severity in ("page", "warn"):
        [listed] = re.findall(rf"^\| `{severity}` \|.*\| ([\w, ]+) \|$", OPERATIONS.read_text(), re.MULTILINE)
        assert set(listed.split(", ")) == {each["alert"] for each in alerts() if each["labels"]["severity"] == severity}


def test_grafana_finds_its_data_and_its_dashboards() -> None:
    grafana = PROJECT / "grafana" / "provisioning"
    services = yaml.safe_load((CLUSTER / "services.yaml").read_text())["services"]
    [source] = yaml.safe_load((grafana / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["name"] == services["ray-head"]["environment"]["RAY_PROMETHEUS_NAME"]
    assert source["url"] == services["ray-head"]["environment"]["RAY_PROMETHEUS_HOST"]
    providers = yaml.safe_load((grafana / "dashboards" / "dashboards.yaml").read_text())["providers"]
    mounted = {volume.split(":")[1] for volume in services["grafana"]["volumes"]}
    assert {provider["options"]["path"] for provider in providers} <= mounted
