"""Nothing but the engine uses the transactional client: a rule that exists once cannot differ between its users."""

from __future__ import annotations

import ast
from pathlib import Path

import pipeline

PACKAGE = Path(pipeline.__file__).parent
ALLOWED = {
    "ports",
    "kafka",
    "testing",
    "transactions",
}  # the protocol, its adapter, its fake, and its one user


def test_only_the_engine_uses_the_transactional_client() -> None:
    """A user with a client of its own could begin without a fence, or trust a slow commit."""
    users = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        where = path.relative_to(PACKAGE)
        if where.parts[0] in ALLOWED:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            opens = isinstance(node, ast.Attribute) and ast.unparse(node).endswith(
                ("producers.open", ".producer.init")
            )
            named = isinstance(node, ast.ImportFrom) and any(
                name.name == "TransactionalClient" for name in node.names
            )
            if opens or named:
                users.add(str(where))
    assert users == set()


def test_the_engine_is_found_by_that_search() -> None:
    """The search must see what it forbids elsewhere."""
    text = (PACKAGE / "transactions" / "engine.py").read_text(encoding="utf-8")
    assert "producers.open" in text
    assert "TransactionalClient" in text
