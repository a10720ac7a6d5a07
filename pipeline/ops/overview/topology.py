"""The graph of an app: `topology_of`. Topics, groups, tables and databases, and who reads and writes what.

`api/written_topics.py` finds the topics that a group writes. Where it guesses, the edge is a guess.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.api.app import DeclaredApp
from pipeline.api.written_topics import topics_named_by_none, topics_named_in
from pipeline.core.names import GroupId, TaskId, is_replays
from pipeline.runtime.status.app_status import AppStatus

__all__ = ["topology_of"]


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
    handlers = [group for group in app.groups if group.bindings]
    for group in app.groups:
        for output in topics_named_in(group):
            graph.edge(f"group:{group.name}", graph.node("topic", output), guess=False)
    for other in topics_named_by_none(app):
        node = graph.node("topic", other)
        for group in handlers:
            graph.edge(f"group:{group.name}", node, guess=True)


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
