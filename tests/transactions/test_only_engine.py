"""Nothing but the engine uses the transactional client: a rule that exists once cannot differ between its users."""

from __future__ import annotations

import ast
from pathlib import Path

import pipeline
from pipeline.ports import TransactionalClient

PACKAGE = Path(pipeline.__file__).parent
ALLOWED = {
    "ports",
    "kafka",
    "testing",
    "transactions",
}  # the protocol, its adapter, its fake, and its one user
FORWARDS = PACKAGE / "drills" / "shadow_ports.py"  # stands between the engine and the adapter


def test_only_the_engine_uses_the_transactional_client() -> None:
    """A user with a client of its own could begin without a fence, or trust a slow commit."""
    users = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        where = path.relative_to(PACKAGE)
        if where.parts[0] in ALLOWED or path == FORWARDS:
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


def test_what_stands_between_the_engine_and_its_client_only_forwards() -> None:
    """A step that it took by itself would escape the engine's order."""
    steps = {
        name
        for name, value in vars(TransactionalClient).items()
        if callable(value) and not name.startswith("_")
    }
    forwarded = set()
    for node in ast.walk(ast.parse(FORWARDS.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            called = {ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
            taken = {step for step in steps if f"self._inner.{step}" in called}
            assert taken <= {node.name}
            forwarded |= taken
    assert forwarded == steps
