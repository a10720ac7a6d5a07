"""The graph of an app: `topology_of`. Topics, groups, tables and databases, and who reads and writes what.

Declarations do not tell which topics a handler writes. So a group counts as a writer of the topics that its handlers
name as global variables or in closures, directly or in functions of the same module that they call. If no handler of
the app names a topic that is not read, every group of handlers may write it: such an edge is a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FunctionType
from typing import Any

from pipeline.api.app import DeclaredApp
from pipeline.api.declarations import DeclaredTopic
from pipeline.api.group import DeclaredGroup
from pipeline.core.names import GroupId, TaskId, is_replays
from pipeline.runtime.status.app_status import AppStatus

__all__ = ["topology_of"]

_DEPTH = 4  # of calls


def topology_of(
    app: DeclaredApp | None, found: AppStatus, tables: dict[str, Sequence[str]]
) -> dict[str, object]:
    """The document. `app`: None if only Kafka is known. `tables`: by group, for an app without declarations."""
    graph = _Graph()
    letters = {each.group.group: each.letters.open for each in found.letters}
    if app is None:
        _from_kafka(graph, found, tables)
    else:
        _from_declarations(graph, app)
    for name, opened in letters.items():
        if f"group:{name}" in graph.nodes:
            topic = GroupId(found.app, name).dead_letter_topic
            graph.node("dead letters", topic, f"{opened:,} open")
            graph.edge(f"group:{name}", f"topic:{topic}", guess=False)
    return {
        "nodes": list(graph.nodes.values()),
        "edges": list(graph.edges.values()),
        "outputs_known": app is not None,
    }


class _Graph:
    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, object]] = {}
        self.edges: dict[tuple[str, str], dict[str, object]] = {}

    def node(self, kind: str, name: str, text: str = "") -> str:
        place = "topic" if kind == "dead letters" else kind
        key = f"{place}:{name}"
        self.nodes.setdefault(key, {"id": key, "kind": kind, "name": name, "text": text, "tables": []})
        return key

    def edge(self, source: str, target: str, *, guess: bool) -> None:
        self.edges.setdefault((source, target), {"from": source, "to": target, "guess": guess})


def _from_declarations(graph: _Graph, app: DeclaredApp) -> None:
    for group in app.groups:
        key = graph.node("group", group.name)
        graph.nodes[key]["tables"] = list(group.tables)
        for topic in group.inputs:
            graph.edge(
                graph.node("topic", topic.name, "drops duplicates" if topic.dedup else ""), key, guess=False
            )
            if topic.dedup is not None and topic.dedup.duplicates_to is not None:
                graph.edge(key, graph.node("topic", topic.dedup.duplicates_to.name), guess=False)
        for binding in group.sinks:
            graph.edge(key, graph.node("sink", repr(binding.sink), binding.sink.mode), guess=False)
    written = {group.name: _written(group) for group in app.groups}
    read = {topic.name for group in app.groups for topic in group.inputs}
    handlers = [group for group in app.groups if group.bindings]
    for name, outputs in written.items():
        for output in outputs:
            graph.edge(f"group:{name}", graph.node("topic", output), guess=False)
    for other in sorted(
        app.topics.keys() - read - {name for outputs in written.values() for name in outputs}
    ):
        node = graph.node("topic", other)
        for group in handlers:
            graph.edge(f"group:{group.name}", node, guess=True)


def _written(group: DeclaredGroup) -> list[str]:
    """The topics that the functions of a group name, other than the inputs of the group."""
    inputs = {topic.name for topic in group.inputs}
    found: dict[str, None] = {}
    for binding in group.bindings:
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
    names = set(_names_in(plain.__code__))
    owner = getattr(function, "__self__", None)
    values = [*(plain.__globals__[name] for name in names if name in plain.__globals__), *cells]
    values += (
        [value for name, value in vars(owner).items() if name in names] if hasattr(owner, "__dict__") else []
    )
    for value in values:
        yield value
        if depth and isinstance(value, FunctionType) and value.__module__ == plain.__module__:
            yield from _named(value, depth - 1, seen)


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _names_in(code: CodeType) -> Iterator[str]:
    """The names in a function and in those within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _from_kafka(graph: _Graph, found: AppStatus, tables: dict[str, Sequence[str]]) -> None:
    groups: dict[str, dict[str, None]] = {}
    databases: dict[str, str] = {}
    for status in found.tasks:
        task: TaskId = status.task
        groups.setdefault(task.group, {}).update(dict.fromkeys(status.topics))
        if status.database:
            databases[task.group] = status.database
    for name, topics in groups.items():
        key = graph.node("group", name)
        graph.nodes[key]["tables"] = list(tables.get(name, ()))
        for topic in topics:
            if not is_replays(topic):
                graph.edge(graph.node("topic", topic), key, guess=False)
        if name in databases:
            graph.edge(key, graph.node("sink", databases[name]), guess=False)
