"""The dashboard as a document: Grafana itself is not started."""

from __future__ import annotations

import json
import re
from typing import Any

from pipeline.http.families import FAMILIES
from tests.support.monitoring.rules import ALERTS
from tools.dashboard.__main__ import DASHBOARD, text


def document() -> Any:
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def panels() -> list[Any]:
    return [panel for panel in document()["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def test_the_file_is_what_the_tool_writes() -> None:
    """After a change of the panels: `python -m tools.dashboard`."""
    assert DASHBOARD.read_text(encoding="utf-8") == text()
    assert DASHBOARD.parent.parent == ALERTS.parent.parent


def test_every_panel_has_a_description_and_a_unit() -> None:
    """A person who opens it for the first time at night reads what a panel means, and what to do."""
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in {"short", "s", "bytes", "percentunit", "cps"}
        assert panel["targets"], panel["title"]


def test_the_units_are_those_of_the_metrics() -> None:
    """Bytes that are shown as a plain number are misread by a factor of 1024."""
    for panel in panels():
        names = " ".join(target["expr"] for target in panel["targets"])
        unit = panel["fieldConfig"]["defaults"]["unit"]
        if re.search(r"_bytes\{", names):
            assert unit == "bytes", panel["title"]
        if re.search(r"_seconds(_bucket)?\{", names):
            assert unit == "s", panel["title"]
        if "_ratio" in names:
            assert unit == "percentunit", panel["title"]


def test_the_panels_do_not_overlap_and_have_one_id_each() -> None:
    """Grafana moves panels that overlap, and the page then differs from what was reviewed."""
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in document()["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in document()["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_dashboard_belongs_to_no_instance() -> None:
    """An id of a data source of another Grafana would leave every panel empty after an import."""
    found = document()
    assert "id" not in found
    assert {json.dumps(each) for each in _sources(found["panels"])} == {
        '{"type": "prometheus", "uid": "${datasource}"}'
    }
    names = [variable["name"] for variable in found["templating"]["list"]]
    assert names == ["datasource", "app", "group"]
    used = set(re.findall(r"\$(?:\{)?([a-zA-Z_]+)", json.dumps(found["panels"])))
    assert used <= {*names, "__rate_interval"}


def _sources(panels: list[Any]) -> list[Any]:
    return [
        each["datasource"]
        for panel in panels
        if panel["type"] != "row"
        for each in (panel, *panel["targets"])
    ]


def test_every_metric_of_the_workers_is_shown() -> None:
    """A metric that no panel draws is not looked at."""
    shown = " ".join(expressions())
    missing = [family.name for family in FAMILIES if not re.search(rf"\b{family.name}", shown)]
    assert missing == []


def test_only_counters_are_turned_into_rates() -> None:
    """The rate of a gauge is a number without a meaning; a counter without a rate only grows."""
    counters = r"(?:_total|_bucket|_count|_sum)"
    for expr in expressions():
        for name in re.findall(r"(?:rate|increase)\((\w+)", expr):
            assert re.search(rf"{counters}$", name), expr
        for name in re.findall(r"(\w+_total)\b", expr):
            assert re.search(rf"(?:rate|increase)\({name}", expr), expr
