"""Declarations of windows, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline import App, AsyncContext, ClosedWindow, Context, Event, Hopping, Sessions, Sqlite, Tumbling
from pipeline.api.windows import AlignedWindow, DeclaredWindow, WindowKey
from pipeline.errors import ConfigError, HandlerError, InputError
from pipeline.testing import TestDriver


def window_of(app: App, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "key": str,
        "value": int,
        "size": Tumbling(60),
        "grace_s": 5,
        "default": 0,
        **changes,
    }
    return app.window("counts", **options)


@pytest.mark.parametrize("seconds", [0, -1, 0.0001, float("nan"), float("inf"), "60", None, True])
def test_a_length_that_is_no_number_of_seconds_is_refused(seconds: Any) -> None:
    """It is found where it is written."""
    with pytest.raises(ConfigError, match="size_s is"):
        Tumbling(seconds)
    with pytest.raises(ConfigError, match="size_s is"):
        Hopping(seconds, 1)
    with pytest.raises(ConfigError, match="every_s is"):
        Hopping(60, seconds)


def test_hops_that_leave_gaps_or_overlap_too_much_are_refused() -> None:
    """Some events would be in no window, or in very many."""
    with pytest.raises(ConfigError, match="some events would be in no window"):
        Hopping(60, 61)
    with pytest.raises(ConfigError, match="each event would be in 61 windows; at most 60"):
        Hopping(61, 1)
    assert Hopping(60, 1).every_ms == 1_000


@pytest.mark.parametrize(
    ("size", "time_ms", "ends"),
    [
        (Tumbling(10), 0, [10_000]),
        (Tumbling(10), 9_999, [10_000]),
        (Tumbling(10), 10_000, [20_000]),
        (Hopping(10, 5), 10_000, [15_000, 20_000]),
        (Hopping(10, 5), 14_999, [15_000, 20_000]),
        (Hopping(10, 3), 10_000, [13_000, 16_000, 19_000]),
    ],
)
def test_an_event_is_in_the_windows_that_contain_its_time(
    size: Tumbling | Hopping, time_ms: int, ends: list[int]
) -> None:
    """The start belongs to a window, the end does not."""
    window: AlignedWindow[str, int] = window_of(App("a"), size=size)
    assert list(window.ends_at(time_ms)) == ends


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"size": 60}, "size is 60"),
        ({"grace_s": -1}, "grace_s is -1"),
        ({"grace_s": None}, "grace_s is None"),
        ({"default": "0"}, "the default '0' is not a value of its type"),
        ({"late_to": "late"}, "late_to is 'late'"),
        ({"upgrade": 1}, "upgrade is 1"),
        ({"key": float}, "cannot be a key"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused(changes: dict[str, Any], match: str) -> None:
    """A type checker does not find all of them."""
    with pytest.raises(ConfigError, match=match):
        window_of(App("a"), **changes)


def test_names_are_shared_with_tables() -> None:
    """Both are prefixes of rows."""
    app = App("a")
    app.table("counts", key=str, value=int)
    with pytest.raises(ConfigError, match=r"window main\.counts: table main\.counts has the same name"):
        window_of(app)
    other = App("b")
    window_of(other)
    with pytest.raises(ConfigError, match=r"window main.counts is declared twice"):
        window_of(other)


def test_late_events_cannot_go_to_an_input_of_the_group() -> None:
    """They would come back, and be late again, forever."""
    app = App("a")
    late = app.topic("late", key=str, value=int)
    window_of(app, late_to=late)
    with pytest.raises(ConfigError, match="late_to is topic late, which is an input of its group"):
        app.handler(late)(lambda _event, _ctx: None)
    other = App("b")
    events = other.topic("events", key=str, value=int)
    other.handler(events)(lambda _event, _ctx: None)
    with pytest.raises(ConfigError, match="which is an input of its group"):
        window_of(other, late_to=events)
    with pytest.raises(ConfigError, match="of another app"):
        window_of(App("c"), late_to=late)


def test_a_group_of_sinks_has_no_windows() -> None:
    """Its positions are in a database, and a window is in the journal."""
    app = App("a")
    events = app.topic("events", key=str, value=int)
    app.sink(events, Sqlite("events.db", "events", row=lambda event: {"id": event.key}))
    with pytest.raises(ConfigError, match="cannot have a window, counts"):
        window_of(app)
    other = App("b")
    topic = other.topic("events", key=str, value=int)
    window_of(other)
    with pytest.raises(ConfigError, match="cannot have a sink"):
        other.sink(topic, Sqlite("events.db", "events", row=lambda event: {"id": event.key}))


def of_another_window(_window: ClosedWindow[int, int], _ctx: Context) -> None: ...


def of_an_event(_event: Event[str, int], _ctx: Context) -> None: ...


def without_context(_window: object) -> None: ...


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (of_another_window, "the keys of the topic are declared as str"),
        (of_an_event, "called with a ClosedWindow"),
        (without_context, "cannot be called with"),
    ],
)
def test_a_function_of_another_kind_is_refused(function: Callable[..., None], match: str) -> None:
    """It would fail when the first window closes."""
    app = App("a")
    with pytest.raises(ConfigError, match=match):
        app.on_close(window_of(app))(function)


def test_a_window_has_one_function() -> None:
    """A row is removed once its function has returned."""
    app = App("a")
    window = window_of(app)
    app.on_close(window)(lambda _window, _ctx: None)
    with pytest.raises(ConfigError, match="has an on_close function; it must be the only one"):
        app.on_close(window)(lambda _window, _ctx: None)


def test_only_a_window_of_the_group_can_be_closed() -> None:
    """Another group has other clocks."""
    app = App("a")
    table: Any = app.table("totals", key=str, value=int)
    with pytest.raises(ConfigError, match="is not a window"):
        app.on_close(table)
    with pytest.raises(ConfigError, match="belongs to another group"):
        app.group("other").on_close(window_of(app))


@pytest.mark.parametrize(("on_error", "retries"), [("ignore", 0), ("stop", -1)])
def test_a_policy_that_does_not_exist_is_refused(on_error: Any, retries: int) -> None:
    """As for handlers."""
    app = App("a")
    with pytest.raises(ConfigError, match=r"(on_error|retries) is"):
        app.on_close(window_of(app), on_error=on_error, retries=retries)(lambda _window, _ctx: None)


def test_an_event_time_is_a_function() -> None:
    """A name of a field is not one."""
    with pytest.raises(ConfigError, match="event_time_ms is 'at_ms'"):
        App("a").topic("events", value=int, event_time_ms="at_ms")  # type: ignore[call-overload]


def test_a_row_is_named_by_key_and_start() -> None:
    """So that a command line can name it."""
    window: DeclaredWindow[str, int] = window_of(App("a"))
    key = WindowKey("ann@home", 1_767_866_400_000, 1_767_866_460_000)
    assert str(key) == "ann@home@2026-01-08T10:00:00.000Z"
    assert window.parse_key(str(key)) == key
    assert window.key.decode(window.key.encode(key)) == key
    with pytest.raises(InputError, match=r"is not a key of window main\.counts"):
        window.parse_key("ann")


def test_a_group_of_async_handlers_has_no_windows() -> None:
    """Their calls end in any order, so it is unknown which events came before the end of a window."""
    app = App("a")
    events = app.topic("events", key=str, value=int)

    async def handle(_event: Event[str, int], _ctx: AsyncContext) -> None: ...

    app.async_handler(events)(handle)
    with pytest.raises(ConfigError, match="has async handlers and cannot have a window, counts"):
        window_of(app)
    other = App("b")
    topic = other.topic("events", key=str, value=int)
    window_of(other)
    with pytest.raises(ConfigError, match="has async handlers and cannot have a window, counts"):
        other.async_handler(topic)(handle)


@pytest.mark.parametrize("kind", ["window", "sessions", "history"])
def test_a_key_instead_of_the_event_is_named_in_the_error(kind: str) -> None:
    """Users of other systems expect to pass a key."""
    app = App("shop")
    orders = app.topic("orders", key=str, value=int)
    sizes: list[Any] = [Tumbling(60), Sessions(60, merge=int.__add__)]
    windows = [
        app.window(name, key=str, value=int, size=size, grace_s=0, default=0)
        for name, size in zip(["window", "sessions"], sizes, strict=True)
    ]
    history = app.history("history", key=str, value=int, keep_s=60)

    @app.handler(orders)
    def handle(event: Event[str, int], ctx: Context) -> None:
        key: Any = event.key
        if kind == "history":
            ctx.history(history).add(key, 1)
        for window in windows:
            if window.name == kind:
                ctx.window(window).rows(key)

    driver = TestDriver(app)
    driver.send(orders, "ann", 1)
    with pytest.raises(HandlerError, match="takes the event that the handler was given, not str"):
        driver.run()
