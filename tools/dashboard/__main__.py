"""Writes deploy/grafana/dashboard.json: `python -m tools.dashboard`. A test compares the file with `dashboard`."""

from __future__ import annotations

import json
from pathlib import Path

from tools.dashboard.grafana import dashboard

__all__ = ["DASHBOARD", "text"]

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboard.json"


def text() -> str:
    """The content of the file."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    DASHBOARD.write_text(text(), encoding="utf-8")
