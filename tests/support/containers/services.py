"""What the services of the compose file say: the rows in PostgreSQL, and the targets and rules of Prometheus."""

from __future__ import annotations

import csv
import io
import json
import urllib.error
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.containers.engine import CommandError
from tests.support.containers.project import Project

__all__ = ["cancelled_flights", "prometheus", "rows", "targets"]

_TIMEOUT_S = 5.0


def rows(project: Project, table: str) -> list[dict[str, Any]]:
    """All rows of a table, by the command of the how-to page; none while PostgreSQL starts."""
    query = f"SELECT coalesce(json_agg(rows), '[]') FROM {table} AS rows"  # noqa: S608 - a name of the test
    command = ("psql", "--username=flights", "--tuples-only", "--no-align", f"--command={query}", "flights")
    try:
        found: list[dict[str, Any]] = json.loads(project.execute("postgres", *command))
    except CommandError:
        return []
    return found


def cancelled_flights(archive: Path) -> Counter[tuple[str, ...]]:
    """How often each row of `cancelled_flights` must be in the table, from the file alone."""
    with zipfile.ZipFile(archive) as packed, packed.open("flights.csv") as raw:
        return Counter(
            (row["carrier"], row["flight"], row["tailnum"], row["origin"], row["dest"])
            for row in csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
            if row["dep_delay"] == "NA"
        )


def prometheus(port: int, path: str) -> Any:
    """The data of an answer of Prometheus' API; None while it starts."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=_TIMEOUT_S) as answer:
            return json.load(answer)["data"]
    except (OSError, urllib.error.URLError):
        return None


def targets(port: int) -> Mapping[str, str]:
    """The health of each target, by its address: `up`, `down` or `unknown`."""
    data = prometheus(port, "targets?state=active") or {"activeTargets": []}
    return {target["labels"]["instance"]: target["health"] for target in data["activeTargets"]}
