"""What users declare about sinks, and what is refused before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import App, Context, Dedup, Event, Postgres, Sqlite
from pipeline.app import declared_app
from pipeline.databases import RealDatabases
from pipeline.errors import ConfigError, SinkUnreachableError

DSN = "postgresql://pipeline:s3cret@db.example:5432/shop"


def row(event: Event[str, int]) -> dict[str, object]:
    return {"id": event.key, "n": event.value}


def one(**changes: Any) -> Postgres[str, int]:
    return Postgres(**{"dsn": DSN, "table": "t", "row": row, **changes})


def nothing(event: Event[str, int], ctx: Context) -> None:
    """A handler."""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dsn": ""}, "the DSN is empty"),
        ({"table": None}, "either a table or a write function"),
        ({"write": print}, "either a table or a write function"),
        ({"table": None, "write": print}, "row= belongs to a table"),
        ({"row": None}, "row is None"),
        ({"mode": "replace"}, "mode is 'replace'; it must be upsert, insert, append"),
        ({"table": "a."}, "is not a table name"),
        ({"table": None, "row": None, "write": "INSERT"}, "it must be a function"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    """At the line that declares it, and not when the first record arrives."""
    with pytest.raises(ConfigError, match=message) as caught:
        one(**changes)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("dsn", "place"),
    [
        (DSN, "postgresql://db.example:5432/shop"),
        ("postgres://db/shop?password=s3cret", "postgresql://db/shop"),
        ("postgresql://u:s3cr@et@db/shop", "postgresql:///"),
        ("postgresql://u:s3cr#et@db/shop", "postgresql:///"),
        ("host=db dbname=shop password=s3cret", "postgresql://db/shop"),
        ("host=db password='s3 cret' dbname=shop", "postgresql:///"),
        ("s3cret", "postgresql:///"),
    ],
)
def test_a_sink_is_named_without_its_password(dsn: str, place: str) -> None:
    """Its name is in logs, in errors and in the status."""
    sink = one(dsn=dsn)
    assert sink.database == place
    assert repr(sink) == f"Postgres {place} table t"


def test_a_sqlite_sink_has_a_file(tmp_path: Path) -> None:
    """In memory, positions would end with the process."""
    with pytest.raises(ConfigError, match="must be a file"):
        Sqlite(":memory:", "t", row=row)
    assert Sqlite(tmp_path / "a.db", "t", row=row).database == f"sqlite:{tmp_path}/a.db"


def test_a_missing_client_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    monkeypatch.setattr("pipeline.api.sinks.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="psycopg, which is not installed") as caught:
        one()
    assert caught.value.hint == "pip install 'psycopg[binary]<4,>=3.2'"


def _handler_first(app: App, group: Any, topic: Any) -> None:
    group.handler(topic)(nothing)
    group.sink(topic, one())


def _sink_first(app: App, group: Any, topic: Any) -> None:
    group.sink(topic, one())
    group.handler(topic)(nothing)


def _table_first(app: App, group: Any, topic: Any) -> None:
    group.table("t", key=str, value=int)
    group.sink(topic, one())


def _table_later(app: App, group: Any, topic: Any) -> None:
    group.sink(topic, one())
    group.table("t", key=str, value=int)


def _two_databases(app: App, group: Any, topic: Any) -> None:
    group.sink(topic, one())
    group.sink(topic, one(dsn="host=other"))


def _two_engines(app: App, group: Any, topic: Any) -> None:
    group.sink(topic, one())
    group.sink(topic, Sqlite("x.db", "t", row=row))


def _dead_letters(app: App, group: Any, topic: Any) -> None:
    group.sink(topic, one(), on_error="dead_letter")


def _no_policy(app: App, group: Any, topic: Any) -> None:
    group.sink(topic, one(), on_error="retry")


def _no_sink(app: App, group: Any, topic: Any) -> None:
    group.sink(topic, "postgresql://")


def _no_topic(app: App, group: Any, topic: Any) -> None:
    group.sink("amounts", one())


def _foreign_topic(app: App, group: Any, topic: Any) -> None:
    group.sink(App("other").topic("amounts", key=str, value=int), one())


def _dedup(app: App, group: Any, topic: Any) -> None:
    group.sink(app.topic("once", key=str, value=int, dedup=Dedup(ttl_s=60)), one())


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (_handler_first, "has handlers or tables and cannot have a sink"),
        (_sink_first, "has sinks and cannot have a handler"),
        (_table_first, "has handlers or tables and cannot have a sink"),
        (_table_later, "has sinks and cannot have a table, t"),
        (_two_databases, "cannot share a transaction"),
        (_two_engines, "cannot share a transaction"),
        (_dead_letters, "a sink has no dead letters"),
        (_no_policy, "it must be stop or skip"),
        (_no_sink, "is not a sink"),
        (_no_topic, "is not a topic"),
        (_foreign_topic, "belongs to another app"),
        (_dedup, "a sink remembers no ids"),
    ],
)
def test_a_group_that_cannot_be_is_refused(declare: Callable[[App, Any, Any], None], message: str) -> None:
    """Its positions can be in one place only; each refusal says what to do instead."""
    app = App("shop")
    topic = app.topic("amounts", key=str, value=int)
    with pytest.raises(ConfigError, match=message) as caught:
        declare(app, app.group("rows"), topic)
    assert "s3cret" not in str(caught.value)
    if "no dead letters" not in message:
        assert caught.value.hint or "belongs" in message or "on_error" in str(caught.value)


def test_a_group_of_sinks_is_one_of_the_apps_groups() -> None:
    """So that workers run it."""
    app = App("shop")
    topic = app.topic("amounts", key=str, value=int)
    rows = app.group("rows")
    assert declared_app(app).groups == []
    rows.sink(topic, one())
    rows.sink(topic, one(table="other"))
    (found,) = declared_app(app).groups
    assert (found.name, found.inputs) == ("rows", [topic])


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:tr0ub@d0r@nowhere.invalid/db",
        "postgresql://u:tr0ub#d0r@nowhere.invalid/db",
        "postgresql://u:tr0ub/d0r@127.0.0.1:1/db",
        "postgresql://u:tr0ub%zzd0r@127.0.0.1:1/db",
        "host=127.0.0.1 port=1 password='tr0ub d0r' dbname=db",
        "host=127.0.0.1 port=1 password=tr0ub d0r",
        "tr0ub d0r",
    ],
)
def test_no_part_of_a_password_is_in_an_error(dsn: str) -> None:
    """Also of one that was written in a way that the client misreads: its own message quotes it."""
    with pytest.raises((ConfigError, SinkUnreachableError)) as caught:
        RealDatabases().open(one(dsn=dsn), "shop")
    said = f"{caught.value} {caught.value.__cause__}"
    assert "tr0ub" not in said
    assert "d0r" not in said
    assert caught.value.__suppress_context__
