"""One module asks the Kafka client for headers: anywhere else the answer may end the process."""

from __future__ import annotations

import ast
from pathlib import Path

import pipeline

PACKAGE = Path(pipeline.__file__).parent


def test_headers_are_asked_for_in_one_module_only() -> None:
    """A call of a message's own `headers` is safe in no other place, and no test would crash for it."""
    calls = [
        f"{file.relative_to(PACKAGE)}:{node.lineno}"
        for file in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "headers"
    ]
    assert calls == []
