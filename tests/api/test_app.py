"""Declarations: every mistake is a ConfigError where it is made, and nothing runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest

from pipeline import App, Batch, Context, Dedup, Event, Topic
from pipeline.api.declarations import declared_topic
from pipeline.app import declared_app
from pipeline.core.names import GroupId
from pipeline.errors import ConfigError


class Flight(msgspec.Struct, frozen=True):
    carrier: str


def ignore(event: Event[Any, Any], ctx: Context) -> None:
    """Do nothing."""


def ignore_batch(batch: Batch[Any, Any], ctx: Context) -> None:
    """Do nothing."""


@pytest.fixture
def app() -> App:
    return App("shop")


@pytest.fixture
def topic(app: App) -> Topic[str, int]:
    return app.topic("in", key=str, value=int)


def test_an_app_declares_for_its_main_group(app: App, topic: Topic[str, int]) -> None:
    """A small app does not mention groups; the group's name is part of durable names."""
    app.handler(topic)(ignore)
    table = app.table("totals", key=str, value=int)
    declared = declared_app(app)
    assert declared.groups == [declared.main]
    assert declared.main.id == GroupId("shop", "main")
    assert declared.main.tables == {"totals": table}


def test_the_name_of_an_app_is_the_given_one(app: App) -> None:
    """It is what commands, journals and transactional ids call it, and not the name of a group."""
    assert (app.name, repr(app), declared_app(app).name) == ("shop", "App('shop')", "shop")


def test_groups_run_in_the_order_of_their_declaration_and_only_with_handlers(
    app: App, topic: Topic[str, int]
) -> None:
    """A group without handlers has no input, hence no tasks."""
    second, third = app.group("second"), app.group("third")
    app.group("empty")
    third.handler(topic)(ignore)
    second.handler(topic)(ignore)
    assert [group.name for group in declared_app(app).groups] == ["second", "third"]
    app.handler(topic)(ignore)
    assert [group.name for group in declared_app(app).groups] == ["main", "second", "third"]


def test_groups_declare_their_tasks() -> None:
    """The number limits how many workers can share a group, and cannot be changed later."""
    app = App("shop", tasks=8)
    for name, tasks in (("second", 1), ("third", None)):
        app.group(name, tasks=tasks).handler(app.topic(name, key=str, value=int))(ignore)
    app.handler(app.topic("first", key=str, value=int))(ignore)
    assert [group.tasks for group in declared_app(app).groups] == [8, 1, None]


@pytest.mark.parametrize("tasks", [0, -1, True, 2.0, "4"])
def test_a_wrong_number_of_tasks_is_refused(tasks: Any) -> None:
    """`True` would mean one task."""
    with pytest.raises(
        ConfigError, match=f"group main: tasks is {tasks!r}; it must be a whole number from 1"
    ) as caught:
        App("shop", tasks=tasks)
    assert (caught.value.hint or "").startswith("declare a whole number, such as four times the most workers")
    with pytest.raises(ConfigError, match="group second: tasks is"):
        App("shop").group("second", tasks=tasks)


def test_a_handler_stays_a_plain_function(app: App, topic: Topic[str, int]) -> None:
    """It can be called and tested without an app."""
    assert app.handler(topic)(ignore) is ignore
    assert app.group("b").batch_handler(topic)(ignore_batch) is ignore_batch


def test_one_function_serves_several_topics(app: App, topic: Topic[str, int]) -> None:
    """`Event[str, object]` is for that; inputs keep the order of their first handler."""
    other = app.topic("other", key=str, value=str)
    app.handler(other)(ignore)
    app.handler(topic)(ignore)
    app.handler(other)(ignore)
    assert declared_app(app).main.inputs == [other, topic]
    assert [binding.topic for binding in declared_app(app).main.bindings] == [other, topic, other]


def test_tables_of_two_groups_may_share_a_name(app: App) -> None:
    """The group's name is part of every durable name."""
    one = app.table("totals", key=str, value=int)
    other = app.group("hourly").table("totals", key=str, value=int)
    assert (repr(one), repr(other)) == ("Table(main.totals)", "Table(hourly.totals)")


@pytest.mark.parametrize("name", ["a.b", "", "a b", "pipeline"])
def test_an_app_name_that_cannot_be_part_of_a_durable_name_is_refused(name: str) -> None:
    """It is in the names of the journal, of transactional ids and of directories."""
    with pytest.raises(ConfigError, match="app name"):
        App(name)


def test_names_of_groups_and_tables_are_checked(app: App) -> None:
    """As the app's."""
    with pytest.raises(ConfigError, match=r"group name 'a\.b'"):
        app.group("a.b")
    with pytest.raises(ConfigError, match="table name 'a b'"):
        app.table("a b", key=str, value=int)


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "ä", "a/b", "x" * 250, "in\n"])
def test_a_topic_name_that_kafka_refuses_is_refused(app: App, name: str) -> None:
    """At the declaration, not at the first start."""
    with pytest.raises(ConfigError, match="not a topic name Kafka accepts"):
        app.topic(name, value=int)


def test_a_topic_may_have_any_name_that_kafka_accepts(app: App) -> None:
    """Topics exist already, named by others."""
    assert app.topic("Orders.v2_raw-" + "x" * 235, value=int).name.startswith("Orders")


def test_a_second_declaration_of_a_name_is_refused(app: App, topic: Topic[str, int]) -> None:
    """Two definitions of one topic, table or group could contradict each other."""
    app.table("t", key=str, value=int)
    app.group("g")
    with pytest.raises(ConfigError, match="topic in is declared twice"):
        app.topic("in", key=str, value=int)
    with pytest.raises(ConfigError, match=r"table main\.t is declared twice"):
        app.table("t", key=str, value=int)
    for name in ("g", "main"):
        with pytest.raises(ConfigError, match=f"group {name} is declared twice"):
            app.group(name)


def test_a_refused_declaration_leaves_nothing_behind(app: App) -> None:
    """The name is free for the corrected one."""
    with pytest.raises(ConfigError):
        app.topic("in", key=float, value=int)
    with pytest.raises(ConfigError):
        app.table("t", key=str, value=int, codec="raw")
    assert declared_app(app).topics == {}
    assert declared_app(app).main.tables == {}


def test_an_error_names_the_declaration(app: App) -> None:
    """An app has dozens of topics and tables."""
    with pytest.raises(ConfigError, match=r"topic prices: .* cannot be a key"):
        app.topic("prices", key=dict[str, int], value=int)
    with pytest.raises(ConfigError, match=r"table hourly\.prices: .* cannot be a key"):
        app.group("hourly").table("prices", key=float, value=int)
    with pytest.raises(ConfigError, match="topic blobs: the codec 'raw' requires the type bytes, not Flight"):
        app.topic("blobs", value=Flight, codec="raw")


def test_an_unknown_policy_is_refused(app: App, topic: Topic[str, int]) -> None:
    """A misspelt `dead-letter` must not mean `stop`."""
    with pytest.raises(ConfigError, match="on_error is 'dead-letter'; it must be stop, skip or dead_letter"):
        app.handler(topic, on_error="dead-letter")(ignore)  # type: ignore[arg-type]


def test_a_topic_of_another_app_is_refused(app: App) -> None:
    """Also one of the same name: its codec would be another."""
    app.topic("in", key=str, value=int)
    foreign = App("other").topic("in", key=str, value=str)
    with pytest.raises(ConfigError, match="topic in belongs to another app"):
        app.handler(foreign)(ignore)


def test_a_batch_handler_is_alone_on_its_topic(app: App, topic: Topic[str, int]) -> None:
    """Records and batches are undone in different units."""
    app.handler(topic)(ignore)
    with pytest.raises(ConfigError, match="topic in has a batch handler; it must be the only one"):
        app.batch_handler(topic)(ignore_batch)
    second = app.group("second")
    second.batch_handler(topic)(ignore_batch)
    with pytest.raises(ConfigError, match="it must be the only one"):
        second.handler(topic)(ignore)
    with pytest.raises(ConfigError, match="it must be the only one"):
        second.batch_handler(topic)(ignore_batch)


async def coroutine(event: Event[str, int], ctx: Context) -> None:
    """Would never be awaited."""


def generator(event: Event[str, int], ctx: Context) -> Iterator[None]:
    """Would never be advanced."""
    yield


async def stream(event: Event[str, int], ctx: Context) -> AsyncIterator[None]:
    """Would never be awaited, either."""
    yield


@pytest.mark.parametrize("function", [coroutine, generator, stream])
def test_a_handler_that_would_not_run_is_refused(app: App, topic: Topic[str, int], function: Any) -> None:
    """Calling it does nothing: every record would count as processed, and every result be missing."""
    with pytest.raises(ConfigError, match=rf"{function.__name__} \(.*test_app\.py:\d+\) is async or a gen"):
        app.handler(topic)(function)
    with pytest.raises(ConfigError, match="is async or a generator"):
        app.batch_handler(topic)(function)


def test_a_handler_without_a_topic_is_refused(app: App) -> None:
    """`@app.handler` without parentheses would register nothing, silently."""
    with pytest.raises(ConfigError, match=r"use @app\.handler\(topic\)"):
        app.handler(ignore)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"use @app\.batch_handler\(topic\)"):
        app.batch_handler(ignore_batch)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["shop.main.journal", "other.main.journal", "pipeline.loads"])
def test_a_topic_of_the_pipeline_cannot_be_declared(app: App, name: str) -> None:
    """An output to a journal, this app's or another's, would end its tasks for good."""
    with pytest.raises(ConfigError, match=f"topic {name} (is|starts) "):
        app.topic(name, value=bytes)
    assert declared_app(app).topics == {}


def test_dead_letters_can_be_declared(app: App) -> None:
    """An app can read dead letters like any topic, for example to correct and resend them."""
    assert app.topic("shop.main.dead-letters", key=bytes | None, value=bytes | None)


def too_few(event: Event[str, int]) -> None:
    """Takes one argument."""


def too_many(event: Event[str, int], ctx: Context, more: int) -> None:
    """Takes three."""


@pytest.mark.parametrize("function", [too_few, too_many, partial(too_few)])
def test_a_handler_that_cannot_be_called_is_refused(app: App, topic: Topic[str, int], function: Any) -> None:
    """It would fail every record, and under `dead_letter` empty the topic into the dead letters."""
    with pytest.raises(ConfigError, match=r"cannot be called with \(Event, Context\)"):
        app.handler(topic, on_error="dead_letter")(function)
    with pytest.raises(ConfigError, match=r"cannot be called with \(Batch, Context\)"):
        app.batch_handler(topic)(function)
    with pytest.raises(ConfigError, match="the handler None is not a function"):
        app.handler(topic)(None)  # type: ignore[arg-type]
    assert declared_app(app).main.bindings == []


class Stateful:
    def __call__(self, event: Event[str, int], ctx: Context) -> None:
        """Take what every handler takes."""


@pytest.mark.parametrize("function", [Stateful(), partial(too_many, more=1), ignore, print])
def test_whatever_takes_an_event_and_a_context_is_a_handler(
    app: App, topic: Topic[str, int], function: Any
) -> None:
    """Functions are wrapped, bound and given defaults."""
    assert app.handler(topic)(function) is function


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "3"])
def test_a_number_of_retries_that_is_none_is_refused(app: App, topic: Topic[str, int], wrong: Any) -> None:
    """Found when the app is declared, not when the first record fails."""
    with pytest.raises(ConfigError, match="retries is"):
        app.handler(topic, retries=wrong)(ignore)


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "1s", 3601])
def test_a_delay_that_is_none_is_refused(app: App, topic: Topic[str, int], wrong: Any) -> None:
    """Milliseconds taken for seconds would stop a partition for a day."""
    with pytest.raises(ConfigError, match="retry_delay_s is"):
        app.batch_handler(topic, retry_delay_s=wrong)(ignore_batch)


@pytest.mark.parametrize("ttl_s", [0, -1, 0.0001, float("nan"), float("inf"), True, "60", None, 10**10])
def test_a_time_to_live_that_is_none_is_refused(ttl_s: Any) -> None:
    """Nothing, or everything, would be a duplicate."""
    with pytest.raises(ConfigError, match=r"ttl_s is .*; it must be a number of seconds"):
        Dedup(ttl_s=ttl_s)


def test_what_cannot_give_an_id_or_take_a_duplicate_is_refused(app: App) -> None:
    """It would fail at the first record, or at the first duplicate, which may be months later."""
    with pytest.raises(ConfigError, match="id is 'event_id'; it must be a function"):
        Dedup(ttl_s=1, id="event_id")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"duplicates_to is 'dropped'; it must be what app\.topic"):
        Dedup(ttl_s=1, duplicates_to="dropped")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"topic in: dedup is 60; it must be a Dedup"):
        app.topic("in", value=int, dedup=60)  # type: ignore[call-overload]
    foreign = App("other").topic("dropped", value=bytes)
    with pytest.raises(ConfigError, match="topic in: duplicates_to is topic dropped of another app"):
        app.topic("in", value=int, dedup=Dedup(ttl_s=1, duplicates_to=foreign))
    assert "in" not in declared_app(app).topics  # nothing is half declared


def test_a_topic_keeps_how_its_duplicates_are_found(app: App) -> None:
    """In whole milliseconds, as the clocks of records are."""
    dropped = app.topic("dropped", value=bytes)
    dedup: Dedup[None, int] = Dedup(ttl_s=1.5, id=lambda event: str(event.value), duplicates_to=dropped)
    topic = app.topic("in", value=int, dedup=dedup)
    assert declared_topic(topic).dedup is dedup
    assert (dedup.ttl_ms, dedup.duplicates_to) == (1500, dropped)
    assert declared_topic(dropped).dedup is None


def test_a_resource_is_a_function_that_makes_it() -> None:
    """An object that exists already would be shared by forks and never closed."""
    with pytest.raises(ConfigError, match=r"app\.resource takes a function") as caught:
        App("delays").resource(5)  # type: ignore[arg-type]
    assert "lambda" in (caught.value.hint or "")
