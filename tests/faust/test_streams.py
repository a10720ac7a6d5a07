"""Streams of agents that read another topic, or batches: `group_by`, `through`, `take`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline import faust_error_policy
from pipeline.app import declared_app
from pipeline.errors import ConfigError, HandlerError
from pipeline.testing import Step, TestDriver
from tests.faust.test_agents import Order, new_app, values

STEPS = [Step.AFTER_OUTPUTS, Step.AFTER_FLUSH, Step.DURING_COMMIT, Step.AFTER_COMMIT, Step.AFTER_APPLY]


def test_group_by_a_field_counts_by_that_field() -> None:
    """Events of one account meet in one partition, whatever their key was."""
    app = new_app()
    orders = app.topic("orders", key_type=str, value_type=Order)
    totals = app.Table("totals", default=int)

    @app.agent(orders)
    async def add(stream: Any) -> None:
        async for order in stream.group_by(Order.account):
            totals[order.account] += order.amount

    driver = TestDriver(app, partitions=4)
    for number in range(40):
        driver.send(orders, str(number), Order(f"a{number % 5}", 1))
    driver.run()
    assert driver.table(totals) == {f"a{number}": 8 for number in range(5)}
    assert sum(len(rows) for rows in driver.table_by_partition(totals).values()) == 5


def test_the_repartition_topic_has_the_name_and_the_records_of_faust() -> None:
    """So that records that Faust has sent there are processed after a migration."""
    app = new_app()
    orders = app.topic("orders", key_type=str, value_type=Order)

    @app.agent(orders, name="add")
    async def add(stream: Any) -> None:
        async for _ in stream.group_by(Order.account):
            pass

    driver = TestDriver(app)
    driver.send(orders, "k", Order("a", 1), headers=[("h", b"1")])
    driver.run()
    (record,) = driver.broker.records("add-orders-Order.account-repartition")
    (sent,) = driver.broker.records("orders")
    assert (record.key(), record.value(), record.headers()) == (b"a", sent.value(), [("h", b"1")])


def test_events_items_and_processors_follow_the_grouped_stream() -> None:
    """As in Faust, filters run behind the repartition topic, and a key function may be async."""
    app = new_app()
    source, target = app.topic("source", key_type=str, value_type=int), app.topic("target")

    async def parity(value: int) -> str:
        await asyncio.sleep(0)
        return str(value % 2)

    @app.agent(source)
    async def by_items(stream: Any) -> None:
        grouped = stream.filter(lambda value: value > 1).group_by(parity, name="parity")
        async for key, value in grouped.items():
            await target.send(value=[key, value])

    @app.agent(source)
    async def by_events(stream: Any) -> Any:
        async for event in stream.group_by(str, name="number").events():
            assert event.message.topic.endswith("-number-repartition")
            yield event.value

    driver = TestDriver(app)
    for value in (1, 2, 3):
        driver.send(source, None, value)
    driver.run()
    assert values(driver, target) == [["0", 2], ["1", 3]]


def test_through_a_topic_and_a_second_group_by() -> None:
    """A chain of streams is processed stage by stage."""
    app = new_app()
    source, middle = app.topic("source", value_type=Order), app.topic("middle", value_type=Order)
    seen = app.Table("seen", default=int)

    @app.agent(source)
    async def chain(stream: Any) -> None:
        async for event in stream.through(middle).group_by(Order.account).events():
            seen[event.key.decode()] += event.value.amount

    driver = TestDriver(app)
    driver.send(source, "x", Order("a", 1))
    driver.send(source, "y", Order("a", 2))
    driver.run()
    assert driver.table(seen) == {"a": 3}
    assert values(driver, middle) == [Order("a", 1), Order("a", 2)]


def test_a_key_function_that_raises_is_an_error_of_its_event() -> None:
    """Faust logs it, and loses the event."""
    app = new_app()
    source = app.topic("source", value_type=int)
    seen = app.Table("seen", default=int)
    faust_error_policy(app, on_error="dead_letter")

    @app.agent(source)
    async def divide(stream: Any) -> None:
        async for value in stream.group_by(lambda value: str(6 // value), name="quotient"):
            seen["sum"] += value

    driver = TestDriver(app)
    for value in (1, 0, 2):
        driver.send(source, None, value)
    driver.run()
    assert driver.table(seen) == {"sum": 3}
    assert [letter.value for letter in driver.dead_letters()] == [b"0"]


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_a_step_neither_loses_nor_doubles_a_grouped_event(step: Step) -> None:
    """The repartition topic gets the event in the commit of the source's position."""
    app = new_app()
    orders = app.topic("orders", key_type=str, value_type=Order)
    totals = app.Table("totals", default=int)

    @app.agent(orders)
    async def add(stream: Any) -> None:
        async for order in stream.group_by(Order.account):
            totals[order.account] += order.amount

    driver = TestDriver(app)
    driver.run()
    for nth in (1, 2):
        driver.send(orders, "k", Order("a", nth))
        driver.crash_at(step, nth=nth)
        driver.run()
        assert driver.crashed
        driver.restart(empty_disk=nth == 2)
        driver.run()
    assert driver.table(totals) == {"a": 3}


def test_take_gives_batches_of_n_and_the_rest_after_within() -> None:
    """What is held is a row of the state, and no batch mixes partitions."""
    app = new_app()
    source, target = app.topic("source", value_type=int), app.topic("target")

    @app.agent(source, name="batches")
    async def batches(stream: Any) -> None:
        async for batch in stream.take(3, within=10):
            await target.send(value=batch)

    driver = TestDriver(app)
    for value in range(5):
        driver.send(source, None, value)
    driver.run()
    held = declared_app(app).main.tables["batches-held"]
    assert values(driver, target) == [[0, 1, 2]]
    assert [record.value() for record in driver.table(held).values()] == [b"3", b"4"]
    driver.restart(empty_disk=True)
    driver.advance(11)
    assert values(driver, target) == [[0, 1, 2], [3, 4]]
    assert driver.table(held) == {}
    driver.advance(30)
    assert values(driver, target) == [[0, 1, 2], [3, 4]]


def test_take_without_within_waits_for_a_whole_batch() -> None:
    """As in Faust, whose documents warn of it."""
    app = new_app()
    source, target = app.topic("source", value_type=int), app.topic("target")

    @app.agent(source)
    async def batches(stream: Any) -> None:
        async for batch in stream.take(2, within=None):
            await target.send(value=batch)

    driver = TestDriver(app)
    for value in range(3):
        driver.send(source, None, value)
    driver.advance(100)
    assert values(driver, target) == [[0, 1]]


def test_each_form_of_take_gives_what_faust_gives() -> None:
    """Values, events, and dicts with a time."""
    app = new_app()
    source, target = app.topic("source"), app.topic("target")

    @app.agent(source)
    async def events(stream: Any) -> None:
        async for batch in stream.take_events(1, within=10):
            await target.send(value=[[event.key.decode(), event.value["n"]] for event in batch])

    @app.agent(source)
    async def unacked(stream: Any) -> None:
        async for batch in stream.noack_take(1, within=10):
            for event in batch:
                event.ack()
                await target.send(value=event.value)

    @app.agent(source)
    async def timed(stream: Any) -> Any:
        async for batch in stream.take_with_timestamp(1, 10, "at"):
            await target.send(value=batch)

    driver = TestDriver(app)
    driver.send(source, "k", {"n": 1}, timestamp_ms=1_500)
    driver.run()
    assert values(driver, target) == [[["k", 1]], {"n": 1}, [{"n": 1, "at": 1.5}]]


def test_filtered_events_take_no_place_in_a_batch() -> None:
    """And what is echoed is sent once, when the event arrives."""
    app = new_app()
    source, copies, target = app.topic("source", value_type=int), app.topic("copies"), app.topic("target")

    @app.agent(source)
    async def even(stream: Any) -> None:
        async for batch in stream.filter(lambda value: value % 2 == 0).echo(copies).take(2, within=10):
            await target.send(value=batch)

    driver = TestDriver(app)
    for value in range(5):
        driver.send(source, None, value)
    driver.advance(20)
    assert values(driver, target) == [[0, 2], [4]]
    assert values(driver, copies) == [0, 2, 4]


def test_take_after_group_by_holds_events_of_the_new_key() -> None:
    """Both forms together, as a batch writer for each account uses them."""
    app = new_app()
    orders, target = app.topic("orders", value_type=Order), app.topic("target")

    @app.agent(orders)
    async def batches(stream: Any) -> None:
        async for batch in stream.group_by(Order.account).take(2, within=5):
            await target.send(value=sum(order.amount for order in batch))

    driver = TestDriver(app)
    for amount in (1, 2, 4):
        driver.send(orders, None, Order("a", amount))
    driver.advance(6)
    assert values(driver, target) == [3, 4]


def test_a_batch_whose_agent_raises_is_held_again_and_stops_its_partition() -> None:
    """Also if records that fail become dead letters: the error belongs to no single record."""
    app = new_app()
    source, target = app.topic("source", value_type=int), app.topic("target")
    faust_error_policy(app, on_error="dead_letter")
    broken = [True]

    @app.agent(source)
    async def batches(stream: Any) -> None:
        async for batch in stream.take(2, within=10):
            await target.send(value=batch)
            if broken[0]:
                raise ValueError("broken")

    driver = TestDriver(app)
    driver.send(source, None, 1)
    driver.send(source, None, 2)
    with pytest.raises(HandlerError, match="broken"):
        driver.run()
    assert values(driver, target) == []
    broken[0] = False
    driver.restart()
    driver.run()
    assert values(driver, target) == [[1, 2]]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_crash_at_a_step_neither_loses_nor_doubles_a_held_event(step: Step, nth: int) -> None:
    """Whether the commit holds the event, gives a batch, or is that of a due time."""
    app = new_app()
    source, target = app.topic("source", value_type=int), app.topic("target")

    @app.agent(source)
    async def batches(stream: Any) -> None:
        async for batch in stream.take(2, within=10):
            await target.send(value=batch)

    driver = TestDriver(app)
    driver.run()
    driver.crash_at(step, nth=nth)
    for value in range(3):
        if not driver.crashed:
            driver.send(source, None, value)
            driver.run()
        else:
            driver.restart(empty_disk=value == 1)
            driver.send(source, None, value)
            driver.run()
    if driver.crashed:
        driver.restart()
    driver.advance(11)
    if driver.crashed:
        driver.restart()
    driver.advance(11)
    assert [value for batch in values(driver, target) for value in batch] == [0, 1, 2]


@pytest.mark.parametrize(
    ("derive", "message"),
    [
        (lambda stream: stream.add_processor(len) or stream.take(2, 1), "add_processor and take"),
        (lambda stream: stream.left_join(), "joins or combines"),
        (lambda stream: stream.combine(stream), "joins or combines"),
        (lambda stream: stream.through(stream.app.channel()), "in memory"),
        (lambda stream: stream.group_by(len), "group_by with a function needs name="),
        (lambda stream: [stream.through("a"), stream.through("b")], "is derived already"),
    ],
)
def test_what_a_stream_cannot_do_is_refused_at_the_start(derive: Any, message: str) -> None:
    """Before the first event, and with the name of the agent."""
    app = new_app()
    source = app.topic("source")

    async def agent(stream: Any) -> None:
        async for _ in derive(stream):
            pass

    agent.__code__ = _naming(agent.__code__)
    app.agent(source, name="joiner")(agent)
    with pytest.raises(ConfigError, match=f"(?s)joiner.*{message}"):
        declared_app(app)


def _naming(code: Any) -> Any:
    """The code with the name of a method of streams, as if the agent itself called it."""
    return code.replace(co_names=(*code.co_names, "through"))


def test_group_by_that_was_not_seen_at_the_start_is_refused() -> None:
    """Its topic would not be an input."""
    app = new_app()
    orders = app.topic("orders", value_type=Order)

    @app.agent(orders)
    async def hidden(stream: Any) -> None:
        async for _ in _grouped(stream):
            pass

    driver = TestDriver(app)
    driver.send(orders, None, Order("a", 1))
    with pytest.raises(HandlerError, match="hidden calls group_by in a way that was not seen"):
        driver.run()


def _grouped(stream: Any) -> Any:
    return stream.group_by(Order.account)


def test_a_repartition_topic_gets_the_partitions_of_its_source() -> None:
    """Faust's default of 8 would not fit to the tables of the group."""
    app = new_app(topic_partitions=8)
    orders = app.topic("orders", value_type=Order)

    @app.agent(orders, name="add")
    async def add(stream: Any) -> None:
        async for _ in stream.group_by(Order.account):
            pass

    new = {topic.name: topic for topic in declared_app(app).new_topics(())}
    assert new["add-orders-Order.account-repartition"].like == "orders"
    assert new["orders"].partitions == 8
