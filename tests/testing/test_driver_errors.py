"""Poison and resources that fail, in a driven app."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import App, Context, Event
from pipeline.errors import ConfigError, HandlerError
from pipeline.testing import TestDriver


def test_poison_is_raised_after_what_came_before_it_was_committed() -> None:
    """`pipeline worker` ends in the same way; a corrected version continues from that record."""

    def make(limit: int) -> tuple[App, Any, Any]:
        made = App("strict")
        numbers = made.topic("numbers", value=int)
        sums = made.table("sums", key=str, value=int)

        @made.handler(numbers)
        def add(event: Event[None, int], ctx: Context) -> None:
            ctx.table(sums)["sum"] = ctx.table(sums).get("sum", 0) + event.value
            if event.value > limit:
                raise ValueError("too much")

        return made, numbers, sums

    old, numbers, sums = make(10)
    driver = TestDriver(old)
    for n in (1, 2, 50, 3):
        driver.send(numbers, None, n)
    for _ in range(2):
        with pytest.raises(HandlerError, match=r"numbers\[0\] offset 2 .*ValueError: too much"):
            driver.run()
        assert driver.table(sums) == {"sum": 3}
        driver.restart()
    repaired, _, sums = make(100)
    driver.restart(app=repaired)
    driver.run()
    assert driver.table(sums) == {"sum": 56}


def test_poison_as_the_very_first_record_stops_without_a_commit() -> None:
    """There is nothing before it; its position stays the one it had."""
    own = App("first")
    numbers = own.topic("numbers", value=int)

    @own.handler(numbers)
    def refuse(event: Event[None, int], ctx: Context) -> None:
        raise ValueError("never")

    driver = TestDriver(own)
    driver.send(numbers, None, 1)
    for _ in range(3):
        with pytest.raises(HandlerError, match=r"numbers\[0\] offset 0"):
            driver.run()
        driver.restart()


def test_poison_stops_its_own_task_only() -> None:
    """Other partitions are processed to the end of their input."""
    own = App("islands")
    numbers = own.topic("numbers", key=str, value=int)
    sums = own.table("sums", key=str, value=int)

    @own.handler(numbers)
    def add(event: Event[str, int], ctx: Context) -> None:
        if event.value < 0:
            raise ValueError("negative")
        ctx.table(sums)[event.key] = ctx.table(sums).get(event.key, 0) + event.value

    driver = TestDriver(own, partitions=2)
    for n in (1, -1, 1):
        driver.send(numbers, "a", n, partition=0)
        driver.send(numbers, "b", abs(n), partition=1)
    with pytest.raises(HandlerError):
        driver.run()
    assert driver.table_by_partition(sums) == {0: {"a": 1}, 1: {"b": 3}}


def test_a_resource_is_made_once_and_closed_when_the_worker_stops() -> None:
    """Database pools and models; a crash closes nothing."""
    made: list[Pool] = []

    class Pool:
        def __init__(self) -> None:
            self.closed = False
            made.append(self)

        def close(self) -> None:
            self.closed = True

    own = App("pools")
    topic = own.topic("in", key=str, value=int)
    pool = own.resource(Pool)

    @own.handler(topic)
    def use(event: Event[str, int], ctx: Context) -> None:
        assert not ctx.resource(pool).closed

    driver = TestDriver(own, partitions=3)
    for n in range(6):
        driver.send(topic, str(n), n)
    driver.run()
    driver.restart()
    for n in range(6):
        driver.send(topic, str(n), n)
    driver.run()
    driver.stop()
    assert [each.closed for each in made] == [False, True]


def test_a_resource_that_cannot_be_made_belongs_to_its_record() -> None:
    """The database is away: the task stops at that record, and the next start tries again."""
    own = App("broken-pool")
    topic = own.topic("in", value=int)
    answers = iter([ConnectionError("refused")])

    def connect() -> str:
        for error in answers:
            raise error
        return "connected"

    pool = own.resource(connect)
    seen: list[str] = []

    @own.handler(topic)
    def use(event: Event[None, int], ctx: Context) -> None:
        seen.append(ctx.resource(pool))

    driver = TestDriver(own)
    driver.send(topic, None, 1)
    with pytest.raises(HandlerError, match="ConnectionError: refused"):
        driver.run()
    driver.restart()
    driver.run()
    assert seen == ["connected"]


def _with_tasks(tasks: int) -> App:
    app = App("counts", tasks=tasks)

    @app.handler(app.topic("numbers", key=str, value=int))
    def count(event: Event[str, int], ctx: Context) -> None: ...

    return app


def test_by_default_there_is_a_partition_for_each_declared_task() -> None:
    """Otherwise the first test of an app with tasks would fail at its start."""
    for driver, partitions in ((TestDriver(_with_tasks(3)), 3), (TestDriver(_with_tasks(3), tasks=2), 2)):
        driver.run()
        info = driver.broker.describe("numbers")
        assert info is not None
        assert info.partitions == partitions


def test_too_few_partitions_are_refused_with_what_a_test_can_change() -> None:
    """The declaration of the app is right: the test has chosen the partitions."""
    driver = TestDriver(_with_tasks(3), partitions=1)
    with pytest.raises(
        ConfigError, match="group counts/main has tasks=3, and its inputs have 1 partition:"
    ) as caught:
        driver.run()
    assert caught.value.hint == "TestDriver(app, partitions=3), or TestDriver(app, partitions=1, tasks=1)"
