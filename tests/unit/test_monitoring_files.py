"""What docs/ gives to Prometheus and Grafana: it loads, names only metrics that exist, and its alerts fire."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from control_plane.core.metrics import Metrics
from tests.support.faults import need

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "monitoring"
DOCUMENT = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]

OF_PROMETHEUS = {"up"}
"""Metrics that Prometheus itself makes."""
NO_METRICS = {"and", "or", "unless", "bool", "offset", "on", "ignoring", "by", "without", "inf", "nan"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def series_of(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Return the documented name of each metric, and the names of the series that it has."""
    found = {}
    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = {f"{family.name}{suffix}" for suffix in SUFFIXES[family.type]}
    return found


METRICS = series_of(Metrics("0.0.0").registry)
SERIES = {series for names in METRICS.values() for series in names} | OF_PROMETHEUS


def dashboard_expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def alert_expressions() -> list[str]:
    return [rule["expr"] for rule in RULES]


def metrics_in(expression: str) -> Iterator[str]:
    """Yield the names of metrics that a PromQL expression has."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring)\s*\([^)]*\)", " ", bare)
    for found in re.finditer(r"(?<![\w.])([a-zA-Z_:][\w:]*)(\s*\()?", bare):
        if not found[2] and found[1].lower() not in NO_METRICS:
            yield found[1]


@pytest.fixture(scope="module")
def promtool() -> str:
    need("promtool")  # in Debian's package `prometheus`
    return "promtool"


def run(*command: str | Path) -> str:
    ended = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_every_metric_is_explained_and_every_explained_metric_exists() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (\w+)([^|]*)\| (.+) \|$", DOCUMENT, re.MULTILINE)
    assert {name for name, _, _, _ in rows} == set(METRICS)


def test_every_metric_is_explained_with_its_type_and_labels() -> None:
    registry = Metrics("0.0.0").registry
    families = {f"{f.name}_total" if f.type == "counter" else f.name: f for f in registry.collect()}
    for name, kind, labels in re.findall(r"^\| `([a-z_]+)` \| (\w+)([^|]*)\|", DOCUMENT, re.MULTILINE):
        assert kind == families[name].type, name
        told = set(re.findall(r"`(\w+)`", labels))
        seen = {label for sample in families[name].samples for label in sample.labels} - {"le"}
        assert told >= seen, name


def test_names_follow_prometheus_conventions() -> None:
    for name in METRICS:
        assert re.fullmatch(r"(instadeploy|process|python)_[a-z_]+", name)
        assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|percent|count|sum|bucket)\b", name), name


@pytest.mark.parametrize("expressions", [dashboard_expressions, alert_expressions])
def test_expressions_name_only_metrics_that_exist(expressions: Any) -> None:
    for expression in expressions():
        named = set(metrics_in(expression))
        assert named, expression
        assert named <= SERIES, expression


def test_a_metric_that_does_not_exist_would_be_found() -> None:
    expression = 'sum by (le) (rate(instadeploy_nothing_total{a="up"}[5m])) > 3 * process_open_fds and up'
    assert set(metrics_in(expression)) == {"instadeploy_nothing_total", "process_open_fds", "up"}


def test_the_dashboard_shows_every_metric_of_ours_but_the_version() -> None:
    shown = {name for expression in dashboard_expressions() for name in metrics_in(expression)}
    ours = {name: series for name, series in METRICS.items() if name.startswith("instadeploy_")}
    assert {name for name, series in ours.items() if not series & shown} == {"instadeploy_build_info"}


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        cells = {(x, y) for x in columns for y in rows}
        assert columns.stop <= 24
        assert not cells & taken
        taken |= cells


def test_prometheus_can_parse_every_expression_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(dashboard_expressions())
    ]
    assert len(rules) > 20
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in run(promtool, "check", "rules", file)


def test_prometheus_takes_the_example_settings_and_the_rules(promtool: str) -> None:
    run(promtool, "check", "config", "--syntax-only", "prometheus.yml")
    assert f"{len(RULES)} rules found" in run(promtool, "check", "rules", "alerts.yml")


def test_every_alert_fires_when_it_should_and_is_quiet_before(promtool: str) -> None:
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text("utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    alerts = {rule["alert"] for rule in RULES}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == alerts
    assert "SUCCESS" in run(promtool, "test", "rules", "alerts_test.yml")


def test_every_alert_is_told_in_the_document() -> None:
    assert re.findall(r"^\| `(InstaDeploy\w+)` \|", DOCUMENT, re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_rules_and_dashboard_ask_for_the_job_that_the_settings_name() -> None:
    settings = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    [job] = settings["scrape_configs"]
    named = re.findall(r'job="([^"]*)"', " ".join([*alert_expressions(), *dashboard_expressions()]))
    assert set(named) == {job["job_name"]}
    assert settings["rule_files"] == ["alerts.yml"]
