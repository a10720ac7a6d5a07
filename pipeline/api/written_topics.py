"""The topics that the handlers of a group write, as far as their code tells: `topics_written`.

Declarations do not tell which topics a handler writes. So a group counts as a writer of the topics that its handlers
name as global variables or in closures, directly or in functions of the same module that they call. If no handler of
the app names a topic that is not read, every group of handlers may write it.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

from pipeline.api.app import DeclaredApp
from pipeline.api.declarations import DeclaredTopic
from pipeline.api.declared_group import DeclaredGroup

__all__ = ["topics_named_by_none", "topics_named_in", "topics_written"]

_DEPTH = 4  # of calls
_LOADS_VARIABLE = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})
_LOADS_ATTRIBUTE = frozenset({"LOAD_ATTR", "LOAD_METHOD"})  # the latter until Python 3.11


def topics_written(app: DeclaredApp, group: DeclaredGroup) -> list[str]:
    """The topics that a group writes or may write, including those for duplicates and late events, in order."""
    if not group.bindings:
        return []
    dedup = [topic.dedup for topic in group.inputs if topic.dedup is not None]
    duplicates = [each.duplicates_to.name for each in dedup if each.duplicates_to is not None]
    late = [window.late_to.name for window in group.windows.values() if window.late_to is not None]
    return sorted({*topics_named_in(group), *topics_named_by_none(app), *duplicates, *late})


def topics_named_by_none(app: DeclaredApp) -> list[str]:
    """The topics that no group reads, and that no handler names."""
    read = {topic.name for group in app.groups for topic in group.inputs}
    named = {name for group in app.groups for name in topics_named_in(group)}
    return sorted(app.topics.keys() - read - named)


def topics_named_in(group: DeclaredGroup) -> list[str]:
    """The topics that the functions of a group name, other than the inputs of the group."""
    inputs = {topic.name for topic in group.inputs}
    found: dict[str, None] = {}
    for binding in group.functions:
        for value in _named(binding.function, _DEPTH, set()):
            if isinstance(value, DeclaredTopic) and value.name not in inputs:
                found[value.name] = None
    return list(found)


def _named(function: Callable[..., Any], depth: int, seen: set[int]) -> Iterator[object]:
    """The values of the global and the closed-over variables that a function names."""
    plain = getattr(function, "__func__", function)
    if not isinstance(plain, FunctionType) or id(plain) in seen:
        return
    seen.add(id(plain))
    cells = [cell.cell_contents for cell in plain.__closure__ or () if _is_filled(cell)]
    variables, attributes = _names_in(plain.__code__)
    owner = getattr(function, "__self__", None)
    values = [*(plain.__globals__[name] for name in variables if name in plain.__globals__), *cells]
    if hasattr(owner, "__dict__"):
        values += [value for name, value in vars(owner).items() if name in attributes]
    for value in values:
        yield value
        if depth and isinstance(value, FunctionType) and value.__module__ == plain.__module__:
            yield from _named(value, depth - 1, seen)


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _names_in(code: CodeType) -> tuple[set[str], set[str]]:
    """The global variables, and the attributes, that a function and those within it name.

    They are kept apart: `total.orders` does not name the topic in the global variable `orders`.
    """
    variables: set[str] = set()
    attributes: set[str] = set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in _LOADS_VARIABLE:
            variables.add(instruction.argval)
        elif instruction.opname in _LOADS_ATTRIBUTE:
            attributes.add(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = _names_in(constant)
            variables |= inner[0]
            attributes |= inner[1]
    return variables, attributes
