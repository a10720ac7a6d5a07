"""Finds every event that the package logs, by reading its source.

A log call is `LOG.info(EVENT, ...)`, also with `warning` and `error`, where LOG is a name or an attribute that ends
in `log`, or a call of `get_logger`. EVENT is a string, a choice between strings, or a name that other calls fill by
a keyword argument of the same name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["LogEvent", "log_events"]

_LEVELS = frozenset({"info", "warning", "error"})


@dataclass
class LogEvent:
    """An event's levels and the fields that its calls give, over all places that log it."""

    name: str
    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


def log_events(package: Path) -> list[LogEvent]:
    """All events that modules below `package` log, by name.

    Raises:
        SystemExit: The event of a log call cannot be told from the source.
    """
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(package.rglob("*.py"))}
    keywords = _string_keywords(trees.values())
    helpers = _field_helpers(trees.values())
    found: dict[str, LogEvent] = {}
    for path, tree in trees.items():
        for level, call in _log_calls(tree):
            names = _strings(call.args[0], keywords)
            if not names:
                raise SystemExit(f"{path}:{call.lineno}: the name of this log event cannot be told")
            for name in names:
                event = found.setdefault(name, LogEvent(name))
                event.levels.add(level)
                event.fields.update(_fields(call, helpers))
    return [found[name] for name in sorted(found)]


def _log_calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
            continue
        receiver = node.func.value
        receiver = receiver.func if isinstance(receiver, ast.Call) else receiver
        name = receiver.attr if isinstance(receiver, ast.Attribute) else getattr(receiver, "id", "")
        if node.func.attr in _LEVELS and (name.endswith("log") or name in {"get_logger", "logger"}):
            yield node.func.attr, node


def _fields(call: ast.Call, helpers: dict[str, set[str]]) -> Iterator[str]:
    """The names of the fields that a log call gives, with those of helpers such as `**task_fields(task)`."""
    for keyword in call.keywords:
        if keyword.arg is not None:
            yield keyword.arg
        elif isinstance(keyword.value, ast.Call) and isinstance(keyword.value.func, ast.Name):
            yield from helpers[keyword.value.func.id]


def _field_helpers(trees: Iterable[ast.Module]) -> dict[str, set[str]]:
    """The fields of each function named `*_fields`: the string keys that its body uses."""
    found: dict[str, set[str]] = {}
    for tree in trees:
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef) or not function.name.endswith("_fields"):
                continue
            names = found.setdefault(function.name, set())
            for node in ast.walk(function):
                keys = node.keys if isinstance(node, ast.Dict) else [getattr(node, "slice", None)]
                names.update(
                    key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
                )
    return found


def _strings(node: ast.expr, keywords: dict[str, set[str]]) -> set[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.IfExp):
        return _strings(node.body, keywords) | _strings(node.orelse, keywords)
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return keywords.get(name.lstrip("_"), set())


def _string_keywords(trees: Iterable[ast.Module]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if not isinstance(node, ast.keyword) or node.arg is None:
                continue
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                found.setdefault(node.arg, set()).add(node.value.value)
    return found
