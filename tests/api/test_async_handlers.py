"""Declarations of async handlers: every mistake is a ConfigError where it is made."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from pipeline import App, AsyncContext, Batch, Context, Dedup, Event, Sqlite, Topic
from pipeline.app import declared_app
from pipeline.errors import ConfigError


async def wait(event: Event[Any, Any], ctx: AsyncContext) -> None:
    """Do nothing."""


def ignore(event: Event[Any, Any], ctx: Context) -> None:
    """Do nothing."""


class Waiter:
    """An object that is called like an async function."""

    async def __call__(self, event: Event[str, int], ctx: AsyncContext) -> None:
        """Do nothing."""


@pytest.fixture
def app() -> App:
    return App("shop")


@pytest.fixture
def topic(app: App) -> Topic[str, int]:
    return app.topic("in", key=str, value=int)


@pytest.mark.parametrize("function", [wait, partial(wait), Waiter()])
def test_an_async_function_is_registered_with_its_options(
    app: App, topic: Topic[str, int], function: Any
) -> None:
    """The options reach the runtime, and the function is returned unchanged."""
    group = app.group("scoring")
    decorated = group.async_handler(topic, concurrency=8, timeout_s=5, on_error="skip", retries=2)(function)
    assert decorated is function
    (declared,) = declared_app(app).groups
    (binding,) = declared.bindings
    assert declared.is_async
    assert (binding.concurrency, binding.timeout_s) == (8, 5)
    assert (binding.on_error, binding.retries) == ("skip", 2)


def test_an_app_registers_for_its_main_group(app: App, topic: Topic[str, int]) -> None:
    """An app that only enriches needs no other group."""
    app.async_handler(topic)(wait)
    (binding,) = declared_app(app).main.bindings
    assert (binding.concurrency, binding.timeout_s) == (64, 30.0)


def test_a_plain_function_is_refused(app: App, topic: Topic[str, int]) -> None:
    """It would block the loop, and could not await anything."""
    register: Any = app.async_handler(topic)
    with pytest.raises(ConfigError, match=r"ignore \(.*test_async_handlers\.py:\d+\) is not async"):
        register(ignore)


def test_a_plain_handler_that_is_async_is_pointed_here(app: App, topic: Topic[str, int]) -> None:
    """A user who writes `async def` wants this decorator."""
    register: Any = app.handler(topic)
    with pytest.raises(ConfigError) as refused:
        register(wait)
    assert "async_handler(topic)" in str(refused.value)


@pytest.mark.parametrize("concurrency", [0, -1, 10_001, 1.5, True, "8"])
def test_a_concurrency_out_of_range_is_refused(app: App, topic: Topic[str, int], concurrency: Any) -> None:
    """With none, no record would ever be handled."""
    with pytest.raises(ConfigError, match=r"concurrency is .*; it must be a whole number, 1 to 10,000"):
        app.async_handler(topic, concurrency=concurrency)


@pytest.mark.parametrize("timeout_s", [0, -1, 3601, True, "5", float("nan"), None])
def test_a_time_out_out_of_range_is_refused(app: App, topic: Topic[str, int], timeout_s: Any) -> None:
    """A call without an end would hold its partition forever."""
    with pytest.raises(ConfigError, match=r"timeout_s is .*; it must be a number of seconds"):
        app.async_handler(topic, timeout_s=timeout_s)


@pytest.mark.parametrize("first", ["async_handler", "handler", "batch_handler"])
def test_a_group_is_all_async_or_not_at_all(app: App, topic: Topic[str, int], first: str) -> None:
    """Plain handlers write tables at once, and those of async calls wait for their turn."""
    other = app.topic("other", key=str, value=int)

    def all_of(batch: Batch[str, int], ctx: Context) -> None: ...

    functions: dict[str, Any] = {"async_handler": wait, "handler": ignore, "batch_handler": all_of}
    second = "handler" if first == "async_handler" else "async_handler"
    getattr(app, first)(topic)(functions[first])
    with pytest.raises(ConfigError, match="the handlers of a group are all async, or none of them is"):
        getattr(app, second)(other)(functions[second])


def test_a_topic_has_one_async_handler(app: App, topic: Topic[str, int]) -> None:
    """Two calls for one record would be two retries and two policies."""
    app.async_handler(topic)(wait)
    with pytest.raises(ConfigError, match="topic in has an async handler; it must be the only one"):
        app.async_handler(topic)(wait)


def test_the_handlers_of_a_group_have_one_concurrency(app: App, topic: Topic[str, int]) -> None:
    """It is the number of calls of the group; two numbers would be a guess."""
    other = app.topic("other", key=str, value=int)
    app.async_handler(topic, concurrency=8)(wait)
    with pytest.raises(ConfigError, match="has concurrency=8 and another one 9"):
        app.async_handler(other, concurrency=9)(wait)


def test_a_topic_that_drops_duplicates_is_refused(app: App) -> None:
    """Its ids are stored with their records in order; calls end in any order."""
    ids = app.topic("ids", key=str, value=int, dedup=Dedup(ttl_s=60))
    with pytest.raises(ConfigError, match=r"topic ids drops duplicates \(dedup=\), which a group of async"):
        app.async_handler(ids)


def test_a_group_of_async_handlers_has_no_sinks(app: App, topic: Topic[str, int]) -> None:
    """Its positions are in the journal."""
    app.async_handler(topic)(wait)
    with pytest.raises(ConfigError, match="cannot have a sink"):
        app.sink(topic, Sqlite("rows.db", "rows", row=lambda event: {"k": event.key}))


@pytest.mark.parametrize("is_async", [True, False])
def test_the_other_context_is_refused(app: App, topic: Topic[str, int], is_async: bool) -> None:
    """It has other methods, which the first record would miss."""

    async def wrong(event: Event[str, int], ctx: Context) -> None: ...

    def plain(event: Event[str, int], ctx: AsyncContext) -> None: ...

    register: Any = app.async_handler(topic) if is_async else app.handler(topic)
    with pytest.raises(ConfigError, match="parameter ctx is annotated"):
        register(wrong if is_async else plain)


def test_swapped_arguments_are_refused(app: App, topic: Topic[str, int]) -> None:
    """The first record would fail."""

    async def swapped(ctx: AsyncContext, event: Event[str, int]) -> None: ...

    register: Any = app.async_handler(topic)
    with pytest.raises(ConfigError) as refused:
        register(swapped)
    assert "ctx: AsyncContext" in str(refused.value)
