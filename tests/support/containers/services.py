"""What the services of the compose file say: rows in PostgreSQL, targets and rules of Prometheus, the page."""

from __future__ import annotations

import csv
import io
import json
import urllib.error
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.support.containers.engine import CommandError
from tests.support.containers.project import UI_TOKEN, Project

__all__ = ["cancelled_flights", "get_page", "prometheus", "rows", "status_of_page", "targets"]

_TIMEOUT_S = 5.0
_PAGE_TIMEOUT_S = 15.0  # above the 8 s that the page waits for Kafka


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
    except urllib.error.HTTPError as error:
        error.close()
        return None
    except OSError:
        return None


def get_page(port: int, path: str, token: str = "") -> tuple[int, str]:
    """The status code and the text of an answer of the page's port; 0 and the reason if there is no answer."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_PAGE_TIMEOUT_S) as answer:  # noqa: S310 - HTTP
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def status_of_page(port: int) -> Any:
    """The document of /api/status; an empty one while Kafka or the port does not answer."""
    code, text = get_page(port, "/api/status", UI_TOKEN)
    return json.loads(text) if code == HTTPStatus.OK else {}


def targets(port: int) -> Mapping[str, str]:
    """The health of each target, by its address: `up`, `down` or `unknown`."""
    data = prometheus(port, "targets?state=active") or {"activeTargets": []}
    return {target["labels"]["instance"]: target["health"] for target in data["activeTargets"]}
