"""Prometheus, Alertmanager and Grafana settings, read by Prometheus' and Alertmanager's own tools."""

import shutil
import subprocess

import pytest
import yaml

from tests.cluster.engine import HERE, PROJECT

CLUSTER = PROJECT / "cluster"


def checked(tool: str, *arguments: str) -> str:
    """Run a tool that must succeed; returns what it said."""
    if shutil.which(tool) is None:
        pytest.fail(f"{tool} is missing: run .ci/cluster.sh, which installs it")
    done = subprocess.run([tool, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_prometheus_settings_are_valid() -> None:
    checked("promtool", "check", "config", "--syntax-only", str(CLUSTER / "prometheus" / "prometheus.yaml"))


def test_alert_rules_are_valid() -> None:
    rules = sorted(map(str, (CLUSTER / "prometheus" / "rules").glob("*.yaml")))
    assert "SUCCESS" in checked("promtool", "check", "rules", *rules)


def test_alert_rules_fire_when_they_should() -> None:
    checked("promtool", "test", "rules", str(HERE / "alerts.test.yaml"))


def test_alertmanager_settings_are_valid() -> None:
    assert "1 inhibit rules" in checked("amtool", "check-config", str(CLUSTER / "alertmanager" / "alertmanager.yaml"))


def test_grafana_finds_its_data_and_its_dashboards() -> None:
    grafana = PROJECT / "grafana" / "provisioning"
    services = yaml.safe_load((CLUSTER / "services.yaml").read_text())["services"]
    [source] = yaml.safe_load((grafana / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["name"] == services["ray-head"]["environment"]["RAY_PROMETHEUS_NAME"]
    assert source["url"] == services["ray-head"]["environment"]["RAY_PROMETHEUS_HOST"]
    providers = yaml.safe_load((grafana / "dashboards" / "dashboards.yaml").read_text())["providers"]
    mounted = {volume.split(":")[1] for volume in services["grafana"]["volumes"]}
    assert {provider["options"]["path"] for provider in providers} <= mounted
