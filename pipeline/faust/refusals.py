"""What is not carried over from Faust, refused at the start by name: `check_app`, `check_agent`, `check_table`."""

from __future__ import annotations

from typing import Any

import faust
from faust.serializers.codecs import Codec, get_codec
from faust.serializers.codecs import raw_pickle as raw_pickle_codec
from faust.types import TopicT
from faust.windows import HoppingWindow

from pipeline.errors import ConfigError

__all__ = ["check_agent", "check_app", "check_table", "check_topic"]

_PAGE = "docs/coming-from/faust.md lists what is carried over"
# What a subclass of faust.App may have that Faust's own classes have, too.
_HARMLESS = {
    "__abstractmethods__",
    "__doc__",
    "__init__",
    "__module__",
    "__qualname__",
    "_abc_impl",
    "logger",
}
_TABLES = {faust.Table, faust.SetTable}


def check_app(app: Any) -> None:
    """Refuse a subclass of `faust.App` that replaces parts of it. Raises ConfigError."""
    for cls in type(app).__mro__:
        if cls is faust.App:
            return
        replaced = [name for name in vars(cls) if hasattr(faust.App, name) and name not in _HARMLESS]
        if replaced:
            raise ConfigError(
                f"{cls.__qualname__} replaces {', '.join(sorted(replaced))} of faust.App, which this engine does not "
                "call",
                hint=f"use faust.App itself, or a subclass that only adds; {_PAGE}",
            )


def check_agent(agent: Any) -> None:
    """Refuse an agent whose channel cannot be an input. Raises ConfigError."""
    channel = agent.channel
    if not isinstance(channel, TopicT):
        raise ConfigError(
            f"agent {agent.name} reads the channel {channel!r}, which is in memory: its events would be lost in a "
            "crash",
            hint='let it read a topic: app.topic("name")',
        )
    if channel.pattern is not None:
        raise ConfigError(
            f"agent {agent.name} reads the topics that match {channel.pattern.pattern!r}; the inputs of an app are "
            "declared by name",
            hint='name the topics: app.topic("first", "second")',
        )


def check_topic(topic: Any) -> None:
    """Refuse a topic with a codec that could run code of a message. Raises ConfigError."""
    for serializer in (topic.schema.key_serializer, topic.schema.value_serializer):
        _check_serializer(f"topic {topic}", serializer)


def check_table(table: Any) -> None:
    """Refuse a table that is not carried over. Raises ConfigError."""
    where = f"table {table.name}"
    if table.is_global:
        raise ConfigError(
            f"{where} is a GlobalTable, of which each worker has all rows; here each task has rows of its own",
            hint="let the agents send to one topic, keyed as the table is, and keep a plain table there",
        )
    if type(table) not in _TABLES:
        raise ConfigError(
            f"{where} is a {type(table).__qualname__}; only faust.Table and faust.SetTable are carried over",
            hint="use app.Table or app.SetTable",
        )
    if table.window is not None:
        _check_window(where, table)
    for serializer in (table.key_serializer, table.value_serializer):
        _check_serializer(where, serializer)


def _check_window(where: str, table: Any) -> None:
    if table._on_window_close is not None:  # noqa: SLF001 - has no public name
        raise ConfigError(
            f"{where} has on_window_close=, which Faust calls by the clock of the machine, and again after a rebalance",
            hint="use a window of this package, which is closed once (docs/how-to/windows.md)",
        )
    if isinstance(table, faust.SetTable) or not isinstance(table.window, HoppingWindow):
        raise ConfigError(
            f"{where} has a {type(table.window).__name__}; only tumbling and hopping windows of app.Table are carried "
            "over",
            hint=_PAGE,
        )


def _check_serializer(where: str, serializer: Any) -> None:
    codec = get_codec(serializer) if serializer else None
    if isinstance(codec, Codec) and any(isinstance(node, raw_pickle_codec) for node in codec.nodes):
        raise ConfigError(
            f"{where} has the serializer pickle: loading a message would run code that it contains",
            hint="use json, or pickle_restricted, which loads known classes only",
        )
