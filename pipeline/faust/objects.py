"""What an application uses, according to its objects: the App, its settings, agents, topics, tables and tasks.

Nothing is started, and no attribute of the App is read that would create a part of Faust's engine.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any

from pipeline.faust.features import setting
from pipeline.faust.uses import Module, Place, Use, feature_of, place_of, place_of_code

__all__ = ["uses_of_objects"]

_COMPATIBLE = {
    "client_id": "broker_client_id",
    "commit_interval": "broker_commit_interval",
    "create_reply_topic": "reply_create_topic",
    "num_standby_replicas": "table_standby_replicas",
    "default_partitions": "topic_partitions",
    "replication_factor": "topic_replication_factor",
}
_DECLARED = ("partitions", "retention", "compacting", "deleting", "replicas", "config")


def uses_of_objects(app: Any, modules: list[Module]) -> Iterator[Use]:
    """The uses that objects show."""
    here = place_of(app, modules)
    yield from _class(app, here)
    yield from _settings(app, here)
    for name, agent in app.agents.items():
        yield from _agent(name, agent)
    for name, table in app.tables.items():
        yield from _table(app, name, table, modules)
    for topic in _topics(app, modules):
        yield from _topic(topic, modules)
    for function in app._app_tasks:  # noqa: SLF001 - Faust has no public list of them
        inner = getattr(function, "__wrapped__", function)
        periodic = hasattr(
            inner, "__wrapped__"
        )  # app.timer and app.crontab wrap the user's function once more
        key = "app.timer" if periodic else "app.task"
        yield Use(feature_of(key), getattr(function, "__name__", str(function)), place_of_code(function))
    for service in app._extra_services:  # noqa: SLF001
        yield Use(feature_of("app.service"), getattr(service, "__name__", str(service)), here)


def _class(app: Any, here: Place | None) -> Iterator[Use]:
    """The overridden parts of a subclass of faust.App."""
    faust_app = sys.modules["faust.app.base"].App
    for cls in takewhile(lambda each: each is not faust_app, type(app).__mro__):
        if cls.__module__.partition(".")[0] in {"faust", "mode"}:
            continue
        for name, value in vars(cls).items():
            replaces = callable(value) or isinstance(value, property | classmethod | staticmethod)
            if replaces and hasattr(faust_app, name) and not name.startswith("__"):
                yield Use(feature_of("app.subclass"), f"{cls.__name__}.{name}", place_of_code(value) or here)


def _settings(app: Any, here: Place | None) -> Iterator[Use]:
    """The settings that the application names, in its call of faust.App or in its configuration object."""
    given: dict[str, Any] = dict(app._default_options[1])  # noqa: SLF001
    if app._config_source is not None:  # noqa: SLF001
        source = app._load_settings_from_source(app._config_source, silent=True)  # noqa: SLF001
        known = type(app.conf).SETTINGS
        given.update({name: source[name] for name in source if name in known})
    for name, value in given.items():
        if value is not None:  # the value itself may be a password
            yield Use(setting(_COMPATIBLE.get(name, name)), f"{name}=", here)
    for name in ("key_serializer", "value_serializer"):
        if _unpickles(getattr(app.conf, name)):
            yield Use(feature_of("topic.pickle"), f"conf.{name}", here)
    monitor = app._monitor  # noqa: SLF001 - the property would create one
    if monitor is not None:
        plain = type(monitor) is sys.modules["faust"].Monitor
        yield Use(feature_of("app.monitor" if plain else "app.sensors"), type(monitor).__name__, here)
    for sensor in app.sensors:
        if sensor is not monitor:
            yield Use(feature_of("app.sensors"), type(sensor).__name__, here)


def _agent(name: str, agent: Any) -> Iterator[Use]:
    here = place_of_code(agent.fun)
    what = f"agent {name}"
    yield Use(feature_of("agent"), what, here)
    if inspect.isasyncgenfunction(agent.fun):
        yield Use(feature_of("agent.yield"), what, here)
    if agent._channel_arg is None:  # noqa: SLF001
        yield Use(feature_of("agent.own_topic"), what, here)
    channel = agent.channel
    if not hasattr(channel, "topics"):
        yield Use(feature_of("agent.channel"), what, here)
    elif channel.pattern is not None:
        yield Use(feature_of("agent.pattern"), f"{what}: {channel.pattern.pattern}", here)
    elif len(channel.topics) > 1:
        yield Use(feature_of("agent.topics"), f"{what}: {', '.join(channel.topics)}", here)
    for key, used in {
        "agent.concurrency": agent.concurrency > 1,
        "agent.isolated": agent.isolated_partitions,
        "agent.supervisor": agent.supervisor_strategy is not None,
    }.items():
        if used:
            yield Use(feature_of(key), what, here)
    for sink in agent._sinks:  # noqa: SLF001
        yield Use(feature_of("agent.sink"), f"{what}: {_short(sink)}", here)


def _table(app: Any, name: str, table: Any, modules: list[Module]) -> Iterator[Use]:
    here, what = place_of(table, modules), f"table {name}"
    is_set = isinstance(table, sys.modules["faust"].SetTable)
    if table.is_global:
        yield Use(feature_of("table.global"), what, here)
    else:
        yield Use(feature_of("table.set" if is_set else "table"), what, here)
    if is_set and table.start_manager:
        yield Use(feature_of("table.set_manager"), what, here)
    if table.window is not None:
        sliding = type(table.window).__name__ == "SlidingWindow"
        yield Use(feature_of("window.sliding" if sliding else "window"), what, here)
        if table.window.expires:
            yield Use(feature_of("window.expires"), what, here)
    if f"{name}-key_index" in app.tables:
        yield Use(feature_of("window.key_index"), what, here)
    if any(_unpickles(each) for each in (table.key_serializer, table.value_serializer)):
        yield Use(feature_of("topic.pickle"), what, here)
    for key, used in {
        "window.on_close": table._on_window_close is not None,  # noqa: SLF001
        "table.on_recover": bool(table._recover_callbacks or table._on_changelog_event),  # noqa: SLF001
        "table.partitioner": table.use_partitioner,
        "table.store": table._store is not None,  # noqa: SLF001
    }.items():
        if used:
            yield Use(feature_of(key), what, here)


def _topics(app: Any, modules: list[Module]) -> Iterable[Any]:
    """The topics of agents, and those that a module names."""
    topic_class = sys.modules["faust.topics"].Topic
    found = [agent.channel for agent in app.agents.values()]
    found += [value for module in modules for value in list(module.names.values())]
    unique = {id(each): each for each in found if isinstance(each, topic_class)}
    return unique.values()


def _topic(topic: Any, modules: list[Module]) -> Iterator[Use]:
    here = place_of(topic, modules)
    what = f"topic {', '.join(topic.topics) or topic.pattern.pattern}"
    if here is not None:
        yield Use(feature_of("topic"), what, here)
    schema = topic.schema
    if any(_unpickles(each) for each in (schema.key_serializer, schema.value_serializer)):
        yield Use(feature_of("topic.pickle"), what, here)
    if any(getattr(topic, name) for name in _DECLARED):
        yield Use(feature_of("topic.declare"), what, here)


def _unpickles(serializer: Any) -> bool:
    """Whether a codec, or one of those that `a|b` combines, is pickle."""
    if serializer is None:
        return False
    if isinstance(serializer, str):
        return "pickle" in serializer.split("|")
    nodes = getattr(serializer, "nodes", ()) or (serializer,)
    return any(type(node).__name__ == "raw_pickle" for node in nodes)


def _short(value: Any) -> str:
    text = getattr(value, "__name__", None) or repr(value)
    text = " ".join(str(text).split())
    return text if len(text) <= 40 else f"{text[:39]}…"
