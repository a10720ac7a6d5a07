"""Declarations of joins, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline import App, AsyncContext, Context, Event, Sqlite
from pipeline.errors import ConfigError


def joined(app: App, **changes: Any) -> Any:
    options: dict[str, Any] = {"within_s": 10, "grace_s": 5, **changes}
    left = options.pop("left", None) or app.topic("left", key=str, value=int)
    right = options.pop("right", None) or app.topic("right", key=str, value=str)
    return app.join(options.pop("name", "pairs"), left, right, **options)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"within_s": -1}, r"join main\.pairs: within_s is -1"),
        ({"within_s": None}, "within_s is None"),
        ({"grace_s": "5"}, "grace_s is '5'"),
        ({"max_events": 0}, "max_events is 0"),
        ({"left": "left"}, "'left' is not a topic"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"retries": -1}, "retries is -1"),
        ({"name": "a.b"}, "a.b"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused(changes: dict[str, Any], match: str) -> None:
    """A type checker does not find all of them."""
    with pytest.raises(ConfigError, match=match):
        joined(App("a"), **changes)


def test_topics_whose_keys_cannot_be_equal_are_refused() -> None:
    """No event would ever match."""
    app = App("a")
    texts = app.topic("texts", key=str, value=int)
    numbers: Any = app.topic("numbers", key=int, value=int)
    loose: Any = app.topic("loose", key=str | None, value=int)
    with pytest.raises(ConfigError, match="no key of one equals a key of the other"):
        joined(app, left=texts, right=numbers)
    with pytest.raises(ConfigError, match="both sides are topic"):
        app.join("pairs", texts, texts, within_s=1, grace_s=0)
    with pytest.raises(ConfigError, match="may have records without a key"):
        joined(app, left=texts, right=loose)


def test_names_are_shared_with_tables_and_windows() -> None:
    """A mark or a row would be that of another."""
    app = App("a")
    app.table("pairs", key=str, value=int)
    with pytest.raises(ConfigError, match=r"join main\.pairs: table main\.pairs has the same name"):
        joined(app)
    other = App("b")
    join = joined(other)
    assert repr(join) == "Join(pairs)"
    with pytest.raises(ConfigError, match=r"join main\.pairs is declared twice"):
        other.join(
            "pairs",
            other.topic("c", key=str, value=int),
            other.topic("d", key=str, value=int),
            within_s=1,
            grace_s=0,
        )
    with pytest.raises(ConfigError, match=r"table main\.pairs: join main\.pairs has the same name"):
        other.table("pairs", key=str, value=int)


def test_groups_of_sinks_and_of_async_handlers_have_no_joins() -> None:
    """A join needs the journal, and records one after the other."""
    app = App("a")
    app.sink(
        app.topic("events", key=str, value=int), Sqlite("e.db", "e", row=lambda event: {"id": event.key})
    )
    with pytest.raises(ConfigError, match="cannot have a join, pairs"):
        joined(app)
    other = App("b")

    @other.async_handler(other.topic("events", key=str, value=int))
    async def call(_event: Event[str, int], _ctx: AsyncContext) -> None: ...

    with pytest.raises(ConfigError, match="has async handlers and cannot have a plain one"):
        joined(other)


def test_a_topic_with_a_batch_handler_cannot_be_joined_in_its_group() -> None:
    """It is the only handler of its topic."""
    app = App("a")
    left = app.topic("left", key=str, value=int)
    app.batch_handler(left)(lambda _batch, _ctx: None)
    with pytest.raises(ConfigError, match="topic left has a batch handler; it must be the only one"):
        joined(app, left=left)
    app.group("joins").join("pairs", left, app.topic("other", key=str, value=str), within_s=1, grace_s=0)


def two_arguments(_left: object, _right: object) -> None: ...


async def not_plain(_left: object, _right: object, _ctx: object) -> None: ...


def of_swapped(_left: Event[str, str], _right: Event[str, int], _ctx: Context) -> None: ...


def of_both(_left: Event[str, int], _right: Event[str, str], _ctx: Context) -> None: ...


def of_left(_left: Event[str, int], _ctx: Context) -> None: ...


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (two_arguments, "cannot be called with two events and a context"),
        (not_plain, "is async or a generator"),
        (
            of_swapped,
            "parameter _left is annotated .* given an event of topic left, and the values of the topic",
        ),
        ("text", "'text' is not a function"),
    ],
)
def test_a_function_that_cannot_be_called_with_a_pair_is_refused(
    function: Callable[..., None], match: str
) -> None:
    """It would fail at the first pair."""
    with pytest.raises(ConfigError, match=match):
        joined(App("a")).on_match(function)


def test_each_function_is_the_only_one_of_its_kind() -> None:
    """The order of several would be unclear."""
    join = joined(App("a"))
    assert join.on_match(of_both) is of_both
    assert join.on_unmatched_left(of_left) is of_left
    with pytest.raises(ConfigError, match="has an on_match function; it must be the only one"):
        join.on_match(of_both)
    with pytest.raises(ConfigError, match="has an on_unmatched_left function; it must be the only one"):
        join.on_unmatched_left(of_left)
    with pytest.raises(ConfigError, match="the values of the topic are declared as str"):
        join.on_unmatched_right(of_left)
