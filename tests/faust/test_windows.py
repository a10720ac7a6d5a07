"""Windowed tables of a real `faust.App` over our rows. Expected values are those of Faust's own wrapper and windows."""

from __future__ import annotations

from typing import Any

import faust
import pytest

from pipeline.api.table import table_prefix
from pipeline.app import declared_app
from pipeline.core.expiry import row_value
from pipeline.core.inputs import row_prefix
from pipeline.errors import ConfigError
from pipeline.testing import Step, TestDriver
from tests.faust.test_agents import new_app, values

T = 1_800_000_000  # seconds, a multiple of 10


class Reading(faust.Record):
    at: float
    n: int


def test_a_tumbling_window_counts_by_the_time_of_the_stream() -> None:
    """Each window is a row, with the key that Faust's changelog has."""
    app = new_app()
    source, target = app.topic("source", value_type=str), app.topic("target")
    views = app.Table("views", default=int).tumbling(10)

    @app.agent(source)
    async def count(stream: Any) -> None:
        async for page in stream:
            views[page] += 1
            found = views[page]
            await target.send(value=[found.value(), found.current(), found.now(), found.delta(10)])

    driver = TestDriver(app)
    for second in (0, 3, 12, 25):
        driver.send(source, None, "p", timestamp_ms=(T + second) * 1000)
    driver.run()
    assert values(driver, target) == [[1, 1, 1, 0], [2, 2, 2, 0], [1, 1, 1, 2], [1, 1, 1, 1]]
    assert driver.table(views) == {
        ("p", (T + 0.0, T + 9.9)): 2,
        ("p", (T + 10.0, T + 19.9)): 1,
        ("p", (T + 20.0, T + 29.9)): 1,
    }


def test_a_hopping_window_writes_each_window_of_a_time() -> None:
    """`value()` is that of the latest window, `now()` of the earliest one that is open."""
    app = new_app()
    source, target = app.topic("source", value_type=str), app.topic("target")
    views = app.Table("views", default=int).hopping(10, 5)

    @app.agent(source)
    async def count(stream: Any) -> None:
        async for page in stream:
            views[page] += 1
            await target.send(value=[views[page].value(), views[page].now(), page in views, "q" in views])

    driver = TestDriver(app)
    for second in (2, 6):
        driver.send(source, None, "p", timestamp_ms=(T + second) * 1000)
    driver.run()
    assert driver.table(views) == {
        ("p", (T - 5.0, T + 4.9)): 1,
        ("p", (T + 0.0, T + 9.9)): 2,
        ("p", (T + 5.0, T + 14.9)): 1,
    }
    assert values(driver, target) == [[1, 1, True, False], [1, 1, True, False]]


def test_the_time_of_a_window_may_be_a_field() -> None:
    """Also that of a datetime or a text, and wrappers of one table share its rows."""
    app = new_app()
    source, target = app.topic("source", value_type=Reading), app.topic("target")
    table = app.Table("sums", default=int).tumbling(10)
    by_field, by_stream = table.relative_to_field(Reading.at), table.relative_to_stream()

    @app.agent(source)
    async def add(stream: Any) -> None:
        async for reading in stream:
            by_field["k"] += reading.n
            await target.send(value=[by_field["k"].value(), by_stream["k"].value(), table["k"].now()])

    driver = TestDriver(app)
    driver.send(source, None, Reading(at=T + 25.0, n=3), timestamp_ms=T * 1000)
    driver.send(source, None, Reading(at=T + 5.0, n=4), timestamp_ms=T * 1000)
    driver.run()
    assert values(driver, target) == [[3, 0, 3], [4, 4, 3]]


def test_keys_and_items_of_windows_need_the_index_as_in_faust() -> None:
    """They contain the keys that have a value in the window of the time."""
    app = new_app()
    source, target = app.topic("source", value_type=str), app.topic("target")
    views = app.Table("views", default=int).tumbling(10, key_index=True)

    @app.agent(source)
    async def count(stream: Any) -> None:
        async for page in stream:
            views[page] += 1
            found = [sorted(views.items()), sorted(views.keys()), len(views), sorted(views.items().delta(10))]
            await target.send(value=found)

    driver = TestDriver(app)
    for page, second in (("a", 0), ("b", 11)):
        driver.send(source, None, page, timestamp_ms=(T + second) * 1000)
    driver.run()
    assert values(driver, target) == [
        [[["a", 1]], ["a"], 1, [["a", 0]]],
        [[["a", 0], ["b", 1]], ["a", "b"], 2, [["a", 1], ["b", 0]]],
    ]


def test_windows_that_have_expired_are_removed_for_good() -> None:
    """By the time of the events. A key of the index lasts as long as its last window."""
    app = new_app()
    source = app.topic("source", value_type=str)
    views = app.Table("views", default=int).tumbling(10, expires=60, key_index=True)
    index = views.key_index_table

    @app.agent(source)
    async def count(stream: Any) -> None:
        async for page in stream:
            views[page] += 1

    driver = TestDriver(app)
    driver.clock.advance(max(0, T + 1000 - driver.clock.wall_ms() / 1000))
    for page, second in (("a", 0), ("b", 1), ("a", 40), ("c", 75)):
        driver.send(source, None, page, timestamp_ms=(T + second) * 1000)
    driver.run()
    driver.restart(empty_disk=True)
    driver.run()
    assert {key for key, _ in driver.table(views)} == {"a", "c"}
    assert driver.table(index) == {"a": 1, "c": 1}
    assert len(_raw(driver, "views")) == 2


def test_rows_of_windows_have_the_keys_and_values_of_faust() -> None:
    """So that the tables of an application can be taken over."""
    app = new_app()
    source = app.topic("source", value_type=str)
    plain, expiring = (
        app.Table("plain").tumbling(10),
        app.Table("brief", key_type=str).hopping(10, 5, expires=60),
    )

    @app.agent(source)
    async def write(stream: Any) -> None:
        async for value in stream:
            plain["é", 1] = {"n": value}
            expiring["é"] = {"n": value}

    driver = TestDriver(app)
    driver.clock.advance(max(0, T + 10 - driver.clock.wall_ms() / 1000))
    driver.send(source, None, "x", timestamp_ms=T * 1000)
    driver.run()
    dumps = app.serializers.dumps_key
    first, second = (T - 5.0, T + 4.9), (T + 0.0, T + 9.9)
    assert _raw(driver, "plain") == {dumps(None, (("é", 1), second), serializer="json"): b'{"n":"x"}'}
    found = {key: row_value(data) for key, data in _raw(driver, "brief").items()}
    assert found == {dumps(str, ("é", each), serializer="json"): b'{"n":"x"}' for each in (first, second)}
    assert driver.table(plain) == {(("é", 1), second): {"n": "x"}}
    declared: Any = declared_app(app).main.tables["brief"]
    assert declared.parse_key(f'["é", [{T}, {T + 9.9}]]') in found


@pytest.mark.parametrize("step", [Step.AFTER_FLUSH, Step.AFTER_COMMIT])
def test_a_crash_around_a_commit_changes_no_window(step: Step) -> None:
    """Windows, their newest end and their index are rows of one commit."""
    app = new_app()
    source, target = app.topic("source", value_type=str), app.topic("target")
    views = app.Table("views", default=int).tumbling(10, expires=600, key_index=True)

    @app.agent(source)
    async def count(stream: Any) -> None:
        async for page in stream:
            views[page] += 1
            await target.send(value=views[page].now())

    driver = TestDriver(app)
    driver.run()
    for number in range(3):
        driver.send(source, None, "p", timestamp_ms=driver.clock.wall_ms())
        driver.crash_at(step)
        driver.run()
        assert driver.crashed
        driver.restart(empty_disk=number == 1)
        driver.run()
    assert values(driver, target) == [1, 2, 3]
    assert list(driver.table(views).values()) == [3]


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda app: app.Table("t", on_window_close=print).tumbling(10), "t has on_window_close="),
        (lambda app: app.SetTable("t").tumbling(10), "only tumbling and hopping windows of app.Table"),
        (lambda app: app.Table("t", key_type=bytes).tumbling(10), "cannot encode the keys of windows"),
    ],
)
def test_windows_that_are_not_carried_over_are_refused(declare: Any, message: str) -> None:
    """At the start, with the name of the table."""
    app = new_app()
    declare(app)
    with pytest.raises(ConfigError, match=message):
        declared_app(app)


def _raw(driver: TestDriver, name: str) -> dict[bytes, bytes]:
    """The stored rows of a table, as bytes."""
    prefix = row_prefix(0) + table_prefix(name)
    stored = [driver.stores.contents(task).items() for task in driver.stores.positions()]
    return {key[len(prefix) :]: data for rows in stored for key, data in rows if key.startswith(prefix)}
