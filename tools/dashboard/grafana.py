"""The dashboard as Grafana imports it: `dashboard`. It contains no id of an instance."""

from __future__ import annotations

from tools.dashboard.panels import APPS, GROUPS, ROWS, Panel, Query

__all__ = ["dashboard"]

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS = 24
_HEIGHT = 8
_STAT_HEIGHT = 4


def dashboard() -> dict[str, object]:
    """The document."""
    return {
        "uid": "exactly-once-pipeline",
        "title": "exactly-once-pipeline",
        "description": "One app of exactly-once-pipeline: health, lag, commits, restores, handlers and state.",
        "tags": ["kafka", "exactly-once-pipeline"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                _variable("app", "App", APPS, several=False),
                _variable("group", "Group", GROUPS, several=True),
            ]
        },
        "panels": _panels(),
    }


def _variable(name: str, label: str, query: str, *, several: bool) -> dict[str, object]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": several,
        **({"allValue": ".*", "current": {"text": "All", "value": "$__all"}} if several else {}),
    }


def _panels() -> list[dict[str, object]]:
    """The rows and panels from left to right, with their places."""
    found: list[dict[str, object]] = []
    y = 0
    for row in ROWS:
        place = {"h": 1, "w": _COLUMNS, "x": 0, "y": y}
        found.append(
            {"id": len(found) + 1, "type": "row", "title": row.title, "gridPos": place, "panels": []}
        )
        x, y, height = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                x, y = 0, y + height
            height = _STAT_HEIGHT if panel.kind == "stat" else _HEIGHT
            place = {"h": height, "w": panel.width, "x": x, "y": y}
            found.append({"id": len(found) + 1, "gridPos": place, **_panel(panel)})
            x += panel.width
        y += height
    return found


def _panel(panel: Panel) -> dict[str, object]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "targets": [_target(panel, number, query) for number, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel),
    }


def _target(panel: Panel, number: int, query: Query) -> dict[str, object]:
    table = panel.kind == "table"
    return {
        "refId": chr(ord("A") + number),
        "datasource": _SOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend,
        "instant": table or panel.kind == "stat",
        "range": panel.kind == "timeseries",
        **({"format": "table"} if table else {}),
    }


def _field(panel: Panel) -> dict[str, object]:
    steps: list[dict[str, object]] = [{"color": "green", "value": None}]
    if panel.red_from is not None:
        steps.append({"color": "red", "value": panel.red_from})
    field: dict[str, object] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        field["min"] = 0
        field["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 20 if panel.stacked else 5,
            "showPoints": "never",
            "stacking": stacking,
        }
    return field


def _options(panel: Panel) -> dict[str, object]:
    if panel.kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "none"}
    if panel.kind == "table":
        return {"showHeader": True}
    return {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
