"""What the chart promises, compared with the package and with the files of the monitoring."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]


def _yaml(path: str) -> Any:
    return YAML(typ="safe", pure=True).load((ROOT / path).read_text(encoding="utf-8"))


def test_the_chart_has_the_version_of_the_package() -> None:
    """Its default tag is that version."""
    chart = _yaml("deploy/helm/Chart.yaml")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]


def test_alerts_and_dashboard_of_the_chart_are_links() -> None:
    """A copy would age."""
    for name, source in (
        ("alerts.yml", "prometheus/alerts.yml"),
        ("dashboard.json", "grafana/dashboard.json"),
    ):
        link = ROOT / "deploy" / "helm" / "files" / name
        assert link.is_symlink()
        assert link.resolve() == (ROOT / "deploy" / source).resolve()
