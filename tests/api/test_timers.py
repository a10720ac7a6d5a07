"""Declarations of timers and of `every`, what a handler may write into them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import App, AsyncContext, Context, Event, FiredTimer, Sqlite, Tick, Timers
from pipeline.api.timers import DeclaredTimers
from pipeline.errors import ConfigError, HandlerError, InputError
from pipeline.testing import TestDriver

pytestmark = pytest.mark.unverified  # outputs of timers are made from no record


def of_event(_event: Event[str, int], _ctx: Context) -> None: ...


def of_number(_timer: FiredTimer[int], _ctx: Context) -> None: ...


def of_tick(_tick: Tick, _ctx: Context) -> None: ...


@pytest.mark.parametrize("seconds", [0, 0.5, -1, float("nan"), float("inf"), "60", None, True])
def test_a_period_that_is_no_number_of_seconds_is_refused(seconds: Any) -> None:
    """It is found where it is written."""
    with pytest.raises(ConfigError, match=r"every main.size: the period is"):
        App("app").every(seconds, name="size")


def test_names_are_unique() -> None:
    """They are the names of rows and of pseudo-topics."""
    app = App("app")
    timers = app.timers("alarms", key=str)
    with pytest.raises(ConfigError, match="declared twice"):
        app.timers("alarms", key=str)
    with pytest.raises(ConfigError, match=r"timers main.alarms has the same name"):
        app.table("alarms", key=str, value=int)
    app.on_timer(timers)(lambda _timer, _ctx: None)
    with pytest.raises(ConfigError, match="must be the only one"):
        app.on_timer(timers)(lambda _timer, _ctx: None)
    app.every(60, name="size")(lambda _tick, _ctx: None)
    with pytest.raises(ConfigError, match="declared twice"):
        app.every(60, name="size")(lambda _tick, _ctx: None)


def test_groups_of_sinks_and_of_async_handlers_are_refused() -> None:
    """A sink has no rows, and the calls of async handlers end in any order."""
    app = App("app")
    topic = app.topic("orders", key=str, value=int)
    sinks, calls, late = app.group("sinks"), app.group("calls"), app.group("late")
    sinks.sink(topic, Sqlite("rows.db", "orders", row=lambda event: {"id": event.key}))

    @calls.async_handler(topic)
    async def call(_event: Event[str, int], _ctx: AsyncContext) -> None: ...

    for group, reason in (
        (sinks, "has sinks and cannot have"),
        (calls, "has async handlers and cannot have"),
    ):
        with pytest.raises(ConfigError, match=reason):
            group.timers("alarms", key=str)
        with pytest.raises(ConfigError, match=reason):
            group.every(60, name="size")(lambda _tick, _ctx: None)
    late.every(60, name="size")(lambda _tick, _ctx: None)
    with pytest.raises(ConfigError, match="cannot have every, size"):
        late.async_handler(topic)(call)
    with pytest.raises(ConfigError, match="cannot have a sink"):
        late.sink(topic, Sqlite("rows.db", "orders", row=lambda event: {"id": event.key}))


def test_functions_with_other_arguments_are_refused() -> None:
    """Otherwise the first timer would fail, days later."""
    app = App("app")
    timers = app.timers("alarms", key=str)

    with pytest.raises(ConfigError, match="the handler is called with a FiredTimer"):
        app.on_timer(timers)(of_event)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"(?s)keys of the topic are declared as str.*FiredTimer\[str\]"):
        app.on_timer(timers)(of_number)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the handler is called with a FiredTimer"):
        app.on_timer(timers)(of_tick)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the handler is called with a Tick"):
        app.every(60, name="size")(of_event)  # type: ignore[arg-type]
    app.every(60, name="size")(of_tick)


def test_timers_of_another_group_and_other_objects_are_refused() -> None:
    """Groups share no rows."""
    app = App("app")
    table: Any = app.table("table", key=str, value=int)
    timers = app.timers("alarms", key=str)
    with pytest.raises(ConfigError, match="are not timers"):
        app.on_timer(table)
    with pytest.raises(ConfigError, match="belong to another group"):
        app.group("other").on_timer(timers)
    with pytest.raises(InputError, match="are not timers"):
        TestDriver(app).timers(table)


def test_timers_without_a_function_are_refused_at_the_start() -> None:
    """Due timers would disappear."""
    app = App("app")
    topic = app.topic("orders", key=str, value=int)
    app.timers("alarms", key=str)
    app.handler(topic)(lambda _event, _ctx: None)
    with pytest.raises(
        ConfigError, match=r"timers main.alarms have no function, so due timers would be lost"
    ):
        TestDriver(app).run()


def app_with(change: Any) -> tuple[App, Timers[str], TestDriver]:
    """An app whose handler calls `change` with the timers and the value of the record. A record is processed."""
    app = App("app")
    topic = app.topic("orders", key=str, value=int)
    timers = app.timers("alarms", key=str)
    app.handler(topic)(lambda event, ctx: change(ctx.timers(timers), event.value))
    app.on_timer(timers)(lambda _timer, _ctx: None)
    driver = TestDriver(app)
    driver.send(topic, "a", 1)
    return app, timers, driver


@pytest.mark.parametrize(
    ("due", "error"),
    [(1.5, "TypeError"), (True, "TypeError"), (None, "TypeError"), (-1, "ValueError"), (2**63, "ValueError")],
)
def test_a_time_that_is_no_time_is_an_error_of_the_record(due: Any, error: str) -> None:
    """It would never fire, or its outputs could not be sent."""
    _, _, driver = app_with(lambda timers, _: timers.update(a=due))
    with pytest.raises(HandlerError, match=rf"{error}: timers main.alarms: "):
        driver.run()


def test_a_handler_sees_timers_as_a_mapping() -> None:
    """What it sets, it reads, before and after a commit."""
    seen: list[Any] = []

    def change(timers: Any, number: int) -> None:
        if number == 1:
            timers.update({"b": 2**62 + 2, "a": 2**62 + 1, "c": 2**62 + 3})
        seen.extend(
            [list(timers), len(timers), timers.get("z"), "a" in timers, timers["a"], dict(timers.items())]
        )
        if number == 2:
            seen.append(timers.pop("a"))
            del timers["b"]
            seen.extend([timers.pop("a", 7), timers.setdefault("d", 2**62), sorted(timers)])

    _, timers, driver = app_with(change)
    driver.run()
    first = [["a", "b", "c"], 3, None, True, 2**62 + 1, {"a": 2**62 + 1, "b": 2**62 + 2, "c": 2**62 + 3}]
    assert seen == first
    driver.send(driver.app.topics["orders"], "a", 2)
    driver.run()
    assert seen[6:] == [*first, 2**62 + 1, 7, 2**62, ["c", "d"]]
    assert driver.timers(timers) == {"c": 2**62 + 3, "d": 2**62}


def test_a_record_that_raises_has_set_and_cancelled_nothing() -> None:
    """Its timers belong to its commit."""

    def change(timers: Any, number: int) -> None:
        if number == 1:
            timers["a"] = 2**62
            return
        timers["a"] = 2**61
        timers["b"] = 2**61
        del timers["a"]
        raise ValueError("no")

    app = App("app")
    topic = app.topic("orders", key=str, value=int)
    timers = app.timers("alarms", key=str)
    app.handler(topic, on_error="skip")(lambda event, ctx: change(ctx.timers(timers), event.value))
    app.on_timer(timers)(lambda _timer, _ctx: None)
    driver = TestDriver(app)
    for number in (1, 2, 2):
        driver.send(topic, "a", number)
    driver.run()
    assert driver.timers(timers) == {"a": 2**62}


def test_another_key_type_or_a_removed_name_is_refused() -> None:
    """Stored keys could not be read, and stored timers would be lost."""
    _, _, driver = app_with(lambda timers, _: timers.update(a=2**62))
    driver.run()
    changes: list[tuple[str, Any, str]] = [
        ("alarms", int, "the schema of timers alarms changed"),
        ("others", str, "timers alarms has state"),
    ]
    for name, key, message in changes:
        app = App("app")
        app.handler(app.topic("orders", key=str, value=int))(lambda _event, _ctx: None)
        app.on_timer(app.timers(name, key=key))(lambda _timer, _ctx: None)
        driver.restart(app=app)
        with pytest.raises(ConfigError, match=message):
            driver.run()


def test_a_key_of_a_command_line_is_that_of_the_timer() -> None:
    """`table show NAME KEY` shows one timer."""
    timers = App("app").timers("alarms", key=tuple[str, int])
    assert isinstance(timers, DeclaredTimers)
    assert timers.parse_key('["a", 5]') == ("a", 5)
    assert timers.fingerprint.startswith("timers ")
    assert repr(timers) == "Timers(main.alarms)"
