"""The programs of docs/how-to/sinks.md do what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.testing import TestDriver


def test_the_programs_of_the_page_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are what people copy."""
    monkeypatch.setenv("DATABASE_URL", "host=test")
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "sinks.md").read_text(encoding="utf-8")
    program, its_test = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {"__name__": "shop"}
    exec(program + its_test, names)  # noqa: S102 - our own page
    names["test_an_order_is_one_row"]()
    rows = names["rows"]
    rows.sinks[0].sink.key = ("id",)
    driver = TestDriver(names["app"])
    driver.send(names["orders"], "o1", names["Order"]("ann", 500))
    driver.send(names["orders"], "o2", names["Order"]("bob", 700))
    driver.send(names["orders"], "o1", None)
    driver.run()
    assert driver.rows(rows.sinks[0].sink) == [{"id": "o2", "customer": "bob", "cents": 700}]
