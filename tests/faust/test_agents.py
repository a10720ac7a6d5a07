"""Agents of a real `faust.App`, run by the worker in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import ContextVar
from itertools import count as numbers
from typing import Any

import faust
import pytest

from pipeline import faust_error_policy
from pipeline.errors import ConfigError, HandlerError
from pipeline.testing import Step, TestDriver

_numbers: Iterator[int] = numbers()


class Order(faust.Record):
    account: str
    amount: int


def new_app(**options: Any) -> Any:
    """An app of its own for each test."""
    return faust.App(f"app-{next(_numbers)}", **options)


def values(driver: TestDriver, topic: Any) -> list[Any]:
    return [event.value for event in driver.outputs(topic)]


def test_words_are_counted_over_two_agents_and_a_sink() -> None:
    """Agents, a table, sends and sinks are what most applications consist of."""
    app = new_app()
    posts, words = app.topic("posts"), app.topic("words", key_type=str, value_type=str)
    totals = app.topic("totals", value_type=int)
    counts = app.Table("counts", default=int)

    @app.agent(posts)
    async def split(stream: Any) -> None:
        async for post in stream:
            for word in post["text"].split():
                await words.send(key=word, value=word)

    @app.agent(words, sink=[totals])
    async def count(stream: Any) -> Any:
        async for word in stream:
            counts[word] += 1
            yield counts[word]

    driver = TestDriver(app, partitions=4)
    driver.send(posts, None, {"text": "to be or not to be"})
    driver.run()
    assert driver.table(counts) == {"to": 2, "be": 2, "or": 1, "not": 1}
    assert sorted(values(driver, totals)) == [1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("step", [Step.AFTER_FLUSH, Step.AFTER_COMMIT])
def test_a_crash_around_the_commit_changes_no_result(step: Step) -> None:
    """An event counts once, whether its commit has happened or not."""
    app = new_app()
    orders, bills = app.topic("orders", value_type=Order), app.topic("bills", value_type=Order)
    totals = app.Table("totals", default=int)

    @app.agent(orders)
    async def bill(stream: Any) -> None:
        async for order in stream:
            totals[order.account] += order.amount
            await bills.send(key=order.account, value=Order(order.account, totals[order.account]))

    driver = TestDriver(app)
    driver.run()
    driver.send(orders, "a", Order("a", 5))
    driver.crash_at(step)
    driver.run()
    assert driver.crashed
    driver.restart(empty_disk=True)
    driver.send(orders, "a", Order("a", 7))
    driver.run()
    assert driver.table(totals) == {"a": 12}
    assert values(driver, bills) == [Order("a", 5), Order("a", 12)]


def test_events_items_filter_enumerate_and_echo_as_in_faust() -> None:
    """What an agent sees does not depend on how it iterates."""
    app = new_app()
    numbers_topic = app.topic("numbers", key_type=str, value_type=int)
    copies, seen = app.topic("copies", value_type=int), app.topic("seen")

    @app.agent(numbers_topic)
    async def by_event(stream: Any) -> None:
        async for event in stream.events():
            await seen.send(value=["event", event.key, event.value, event.headers["h"].decode()])

    @app.agent(numbers_topic)
    async def by_item(stream: Any) -> None:
        async for key, value in stream.items():
            await seen.send(value=["item", key, value])

    @app.agent(numbers_topic)
    async def even(stream: Any) -> None:
        async for number, value in stream.filter(lambda each: each % 2 == 0).echo(copies).noack().enumerate():
            event = faust.current_event()
            await seen.send(value=["even", number, value, event.message.offset])

    driver = TestDriver(app)
    for value in (1, 2, 4):
        driver.send(numbers_topic, "k", value, headers=[("h", b"x")])
    driver.run()
    assert values(driver, copies) == [2, 4]
    assert values(driver, seen) == [
        ["event", "k", 1, "x"],
        ["item", "k", 1],
        ["event", "k", 2, "x"],
        ["item", "k", 2],
        ["even", 0, 2, 1],
        ["event", "k", 4, "x"],
        ["item", "k", 4],
        ["even", 1, 4, 2],
    ]


def test_every_way_to_send_is_part_of_the_commit() -> None:
    """A send that bypassed the transaction would be doubled by a crash."""
    app = new_app()
    source, target = app.topic("source", value_type=str), app.topic("target", value_type=str)

    @app.agent(value_type=str)
    async def listener(stream: Any) -> None:
        async for value in stream:
            await target.send(value=f"listener {value}")

    @app.agent(source)
    async def sender(stream: Any) -> None:
        async for event in stream.events():
            await target.send(key=b"k", value="send", headers={"h": b"1"}, timestamp=1_600_000_000.5)
            target.send_soon(value="soon")
            await target.send(value="forced", force=True)
            await event.forward(target)
            await event.send(target, value="of the event")
            await app.send(target, value="of the app")
            await listener.send(value="send")
            await listener.cast("cast")
            sent = await (await target.send(value="awaited"))
            assert sent.offset == -1
            raise_unless_committed(driver)

    def raise_unless_committed(driver: TestDriver) -> None:
        assert values(driver, target) == []

    driver = TestDriver(app)
    driver.run()
    driver.send(source, b"key", "input")
    driver.crash_at(Step.AFTER_FLUSH)
    driver.run()
    assert values(driver, target) == []
    driver.restart()
    driver.run()
    assert values(driver, target) == [
        *["send", "soon", "forced", "input", "of the event", "of the app", "awaited"],
        *["listener send", "listener cast"],
    ]
    first = driver.outputs(target)[0]
    assert (first.key, list(first.headers), first.timestamp_ms) == (b"k", [("h", b"1")], 1_600_000_000_500)


def test_an_agent_may_wait_time_out_and_start_tasks() -> None:
    """The event loop runs only while an agent waits, which its code cannot see."""
    app = new_app()
    source = app.topic("source", value_type=int)
    seen = app.Table("seen", default=str)
    variable: ContextVar[int] = ContextVar("variable", default=0)

    async def doubled(value: int) -> int:
        await asyncio.sleep(0)
        return 2 * value

    @app.agent(source)
    async def waits(stream: Any) -> None:
        async for value in stream:
            task = asyncio.current_task()
            variable.set(value)
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(30)
            except TimeoutError:
                seen[f"{value} late"] = str(asyncio.current_task() is task)
            both = await asyncio.gather(doubled(value), asyncio.create_task(doubled(value + 1)))
            seen[str(value)] = f"{both} {variable.get()} {faust.current_event().value}"

    driver = TestDriver(app)
    driver.send(source, None, 1)
    driver.send(source, None, 2)
    driver.run()
    assert driver.table(seen) == {
        "1": "[2, 4] 1 1",
        "1 late": "True",
        "2": "[4, 6] 2 2",
        "2 late": "True",
    }


def test_an_agent_may_be_tested_inside_of_a_running_loop() -> None:
    """Tests of Faust applications are often async functions."""
    app = new_app()
    source = app.topic("source", value_type=int)
    seen = app.Table("seen", default=int)

    @app.agent(source)
    async def waits(stream: Any) -> None:
        async for value in stream:
            await asyncio.sleep(0.001)
            seen["sum"] += value

    async def test() -> asyncio.AbstractEventLoop:
        driver = TestDriver(app)
        driver.send(source, None, 1)
        driver.send(source, None, 2)
        driver.run()
        assert driver.table(seen) == {"sum": 3}
        return asyncio.get_running_loop()

    asyncio.run(test())


def test_a_failed_event_leaves_nothing_and_stops_its_partition() -> None:
    """Faust would lose the event and keep what it had written before the error."""
    app = new_app()
    source, target = app.topic("source", value_type=int), app.topic("target", value_type=int)
    seen = app.Table("seen", default=int)

    @app.agent(source)
    async def divide(stream: Any) -> None:
        async for value in stream:
            seen["events"] += 1
            await target.send(value=value)
            seen["last"] = 100 // value

    driver = TestDriver(app)
    for value in (5, 0, 2):
        driver.send(source, None, value)
    with pytest.raises(HandlerError, match=r"agent .*divide.*ZeroDivisionError"):
        driver.run()
    assert driver.table(seen) == {"events": 1, "last": 20}
    assert values(driver, target) == [5]


def test_an_agent_that_fails_after_it_has_waited_leaves_nothing() -> None:
    """The rest of the step runs on the event loop, and belongs to the same event."""
    app = new_app()
    source, target = app.topic("source", value_type=int), app.topic("target", value_type=int)
    seen = app.Table("seen", default=int)
    faust_error_policy(app, on_error="skip")

    @app.agent(source)
    async def divide(stream: Any) -> None:
        async for value in stream:
            await target.send(value=value)
            await asyncio.sleep(0)
            seen["events"] += 1
            await asyncio.sleep(0)
            seen["last"] = 100 // value

    driver = TestDriver(app)
    for value in (5, 0, 2):
        driver.send(source, None, value)
    driver.run()
    assert driver.table(seen) == {"events": 2, "last": 50}
    assert values(driver, target) == [5, 2]


def test_the_error_policy_of_an_app_is_that_of_its_agents() -> None:
    """A new coroutine of the agent gets the next event."""
    app = new_app()
    source = app.topic("source", value_type=int)
    seen = app.Table("seen", default=int)
    faust_error_policy(app, on_error="dead_letter", retries=1)

    @app.agent(source)
    async def divide(stream: Any) -> None:
        number = 0
        async for value in stream:
            number += 1
            seen[str(100 // value)] = number

    driver = TestDriver(app)
    for value in (5, 0, 2):
        driver.send(source, None, value)
    driver.run()
    assert driver.table(seen) == {"20": 1, "50": 1}
    assert [event.value for event in driver.dead_letters()] == [b"0"]


def test_a_record_that_cannot_be_decoded_is_an_error_of_it() -> None:
    """The agent never sees it, so the agent cannot lose it."""
    app = new_app()
    source = app.topic("source", value_type=Order)
    seen = app.Table("seen", default=int)
    faust_error_policy(app, on_error="dead_letter")

    @app.agent(source)
    async def add(stream: Any) -> None:
        async for order in stream:
            seen[order.account] += order.amount

    driver = TestDriver(app)
    driver.send_raw(source, None, b"not JSON")
    driver.send_raw(source, None, None)
    driver.send(source, None, Order("a", 1))
    driver.run()
    assert driver.table(seen) == {"a": 1}
    assert [event.value for event in driver.dead_letters()] == [b"not JSON", None]


def test_an_agent_that_returns_stops_its_task_at_the_next_event() -> None:
    """In Faust, nothing processes the topic from then on, and nothing says so."""
    app = new_app()
    source = app.topic("source", value_type=int)
    seen = app.Table("seen", default=int)

    @app.agent(source)
    async def once(stream: Any) -> None:
        async for value in stream:
            seen["value"] = value
            break

    driver = TestDriver(app)
    driver.send(source, None, 1)
    driver.send(source, None, 2)
    with pytest.raises(HandlerError, match=r"agent .*once has returned"):
        driver.run()
    assert driver.table(seen) == {"value": 1}


def test_a_send_or_a_write_outside_of_an_event_is_refused() -> None:
    """No commit would contain it."""
    app = new_app()
    source = app.topic("source", value_type=int)
    seen = app.Table("seen", default=int)

    @app.agent(source)
    async def early(stream: Any) -> None:
        seen["start"] = 1
        async for _ in stream:
            pass

    driver = TestDriver(app)
    driver.send(source, None, 1)
    with pytest.raises(HandlerError, match="table seen is used outside of an event"):
        driver.run()
    with pytest.raises(ConfigError, match="outside of an event"):
        asyncio.run(source.send(value=1))


def test_concurrency_runs_one_coroutine_for_each_task() -> None:
    """One of the orders that Faust allows, and the only one that can be repeated."""
    app = new_app()
    source = app.topic("source", value_type=int)
    seen = app.Table("seen", default=list)

    @app.agent(source, concurrency=8)
    async def gather(stream: Any) -> None:
        async for value in stream:
            await asyncio.sleep(0.001 * (3 - value))
            seen["order"] = [*seen["order"], value]

    driver = TestDriver(app)
    for value in (0, 1, 2):
        driver.send(source, None, value)
    driver.run()
    assert driver.table(seen) == {"order": [0, 1, 2]}
