"""The dashboard and the alarms ask for metrics and labels that the API really exports."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from perennial.series.checked import FIGURES
from perennial.serving.metrics import Metrics, ShippingMetrics
from perennial.settings import PROJECT_ROOT

DOCKER = PROJECT_ROOT / "docker"
FROM_PROMETHEUS = {"up": {"job", "instance"}, "ALERTS": set()}


def exported() -> dict[str, set[str]]:
    """Each series that the API can export, with its labels."""
    found: dict[str, set[str]] = dict(FROM_PROMETHEUS)
    for metric in [*vars(Metrics()).values(), *vars(ShippingMetrics()).values()]:
        if not isinstance(metric, Counter | Gauge | Histogram):
            continue
        name, labels = metric._name, set(metric._labelnames)
        if isinstance(metric, Counter):
            found[f"{name}_total"] = labels
        elif isinstance(metric, Histogram):
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
        else:
            found[name] = labels
    return found | {f"perennial_{name}": set(labels) for name, (_, labels) in FIGURES.items()}


def dashboard() -> Any:
    return json.loads((DOCKER / "grafana" / "dashboards" / "serving.json").read_text(encoding="utf-8"))


def questions() -> list[tuple[str, str]]:
    """Every PromQL expression, with where it is."""
    board = dashboard()
    found = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel["targets"]]
    found += [(note["name"], note["expr"]) for note in board["annotations"]["list"]]
    found += [(item["name"], item["query"]["query"]) for item in board["templating"]["list"]]
    groups = yaml.safe_load((DOCKER / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return found + [(rule["alert"], rule["expr"]) for group in groups for rule in group["rules"]]


@pytest.mark.parametrize(("place", "expression"), questions())
def test_each_question_has_an_answer(place: str, expression: str) -> None:
    series = exported()
    asked = re.findall(r"\b(perennial_\w+|up)\b(?:\{([^}]*)\})?", expression)
    assert asked, f"{place} asks for nothing"
    for name, matchers in asked:
        assert name in series, f"{place}: the API exports no {name}"
        used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert used <= series[name] | {"job", "instance"}, f"{place}: {name} has no label {used - series[name]}"
    grouped = {label.strip() for part in re.findall(r"\bby \(([^)]*)\)", expression) for label in part.split(",")}
    known = set().union(*(series[name] for name, _ in asked)) | {"job", "instance"}
    assert grouped <= known, f"{place} groups by {grouped - known}"


def test_every_metric_is_shown_or_watched() -> None:
    text = " ".join(expression for _, expression in questions())
    left = {name for name in exported() if name.startswith("perennial_") and not re.search(rf"\b{name}\b", text)}
    assert {name for name in left if not name.endswith(("_sum", "_count", "_bucket"))} == set()


def test_the_dashboard_is_sound() -> None:
    board = dashboard()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
        assert panel["description"]
        assert panel["datasource"]["uid"] == "prometheus"
    assert {target["datasource"]["uid"] for panel in board["panels"] for target in panel["targets"]} == {"prometheus"}


def test_grafana_finds_source_and_dashboard_where_compose_puts_them() -> None:
    provisioning = DOCKER / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text(encoding="utf-8"))
    assert source["datasources"][0]["uid"] == "prometheus"
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((provisioning / "dashboards" / "perennial.yaml").read_text(encoding="utf-8"))
    folder = provider["providers"][0]["options"]["path"]
    assert f"./grafana/dashboards:{folder}:ro" in services["grafana"]["volumes"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DOCKER / "grafana" / "dashboards" / home.removeprefix(f"{folder}/")).is_file()
