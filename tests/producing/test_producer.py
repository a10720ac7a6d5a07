"""`Producer` on the in-memory client: nothing that was taken is lost in silence."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import re
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from pipeline import App, Context, Delivery, Event
from pipeline.config import ProducerSettings
from pipeline.errors import ConfigError, DeliveryError, ProducerClosedError, QueueFullError
from pipeline.testing import TestDriver, TestProducer

LONG_S = 60.0


class Order(msgspec.Struct, frozen=True):
    amount: int


app = App("shop")
orders = app.topic("orders", key=str, value=Order)
notes = app.topic("notes", value=str | None)


def held(**settings: Any) -> TestProducer:
    """A producer whose Kafka is away."""
    producer = TestProducer(orders, notes, settings=ProducerSettings(**settings))
    producer.clients.hold()
    return producer


def fill(producer: TestProducer, count: int) -> list[Delivery]:
    return [producer.send(orders, "k", Order(n), id=f"id-{n}") for n in range(count)]


def on_a_thread(call: Callable[[], Any]) -> threading.Thread:
    def run() -> None:
        with suppress(ConfigError, DeliveryError, ProducerClosedError, QueueFullError):
            call()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


# What is sent


def test_an_event_carries_the_callers_id_headers_and_time() -> None:
    """The id is what makes a second sending of it recognisable."""
    with TestProducer(orders) as producer:
        sent = producer.send(orders, "k", Order(5), id="order-5", headers=[("trace", b"1")], timestamp_ms=17)
        [event] = producer.sent(orders)
        assert (event.key, event.value, event.id, event.timestamp_ms) == ("k", Order(5), b"order-5", 17)
        assert ("trace", b"1") in event.headers
        assert sent.result(LONG_S) == ("orders", 0, 0, b"order-5", 17)


def test_an_event_without_an_id_gets_a_uuid_of_its_own() -> None:
    """Every event can be told from every other, also those that nobody named."""
    with TestProducer(notes) as producer:
        for _ in range(1000):
            producer.send(notes, None, "x")
        ids = [uuid.UUID((event.id or b"").decode()) for event in producer.sent(notes)]
    assert len(set(ids)) == 1000
    assert {made.version for made in ids} == {7}
    assert {made.variant for made in ids} == {uuid.RFC_4122}


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (("k", "no order"), {}, "topic orders: expected Order, got str"),
        ((7, Order(1)), {}, "topic orders: expected a key of type str, got int"),
        (("k", Order(1)), {"id": ""}, "an event's id has 1 to 1024 bytes"),
        (("k", Order(1)), {"id": 7}, "an event's id is str or bytes, not int"),
        (("k", Order(1)), {"headers": [("a", "b")]}, "a header is (str, bytes)"),
        (("k", Order(1)), {"headers": [("event-id", b"1")]}, "say id="),
        (("k", Order(1)), {"headers": [("\ud800", b"1")]}, "has no UTF-8 form"),
        (("k", Order(1)), {"headers": [("a\0b", b"1")]}, "holds a NUL"),
        (("k", Order(1)), {"timestamp_ms": -1}, "timestamp_ms is -1"),
        (("k", Order(1)), {"timestamp_ms": 2**63}, "of 64 bits"),
        (("k" * 200, Order(1)), {}, "over max_event_bytes (200)"),
    ],
)
def test_what_cannot_be_sent_is_refused_at_once_and_leaves_nothing(
    arguments: Any, options: Any, said: str
) -> None:
    """The mistake is found at its line, and not in a report that nobody reads."""
    with TestProducer(orders, settings=ProducerSettings(max_event_bytes=200)) as producer:
        with pytest.raises((TypeError, ValueError), match=re.escape(said)):
            producer.send(orders, *arguments, **options)
        assert producer.sent(orders) == []


def test_what_is_no_topic_is_refused() -> None:
    """A name would have no types."""
    with TestProducer(orders) as producer, pytest.raises(ConfigError, match="send takes what"):
        producer.send("orders", "k", Order(1))  # type: ignore[arg-type]


def test_events_of_a_producer_are_the_input_of_a_driven_app() -> None:
    """A service and the app behind it are tested together, in memory."""
    shop = App("shop")
    ordered = shop.topic("orders", key=str, value=Order)
    seen: list[bytes | None] = []

    @shop.handler(ordered)
    def note(event: Event[str, Order], ctx: Context) -> None:
        seen.append(event.id)

    driver = TestDriver(shop, partitions=3)
    with TestProducer(driver) as producer:
        producer.send(ordered, "a", Order(1), id="1")
        driver.run()
    assert seen == [b"1"]


# Deliveries


def test_a_delivery_is_done_when_the_event_is_there() -> None:
    """Until then its owner must not answer that it is safe."""
    producer = held()
    sent = producer.send(orders, "k", Order(1))
    assert not sent.done()
    with pytest.raises(TimeoutError):
        sent.result(0.01)
    waiting = sent.future()
    assert not waiting.cancel()
    producer.clients.release()
    assert sent.result(LONG_S).offset == 0
    assert waiting.result(LONG_S) == sent.result()
    assert sent.future() is waiting
    assert sent.exception() is None
    producer.close()


def test_futures_of_deliveries_work_with_the_standard_library() -> None:
    """`concurrent.futures.wait` and asyncio know true Futures only."""
    with TestProducer(orders) as producer:
        futures = [delivery.future() for delivery in fill(producer, 50)]
        done, left = concurrent.futures.wait(futures, LONG_S)
        assert (len(done), left) == (50, set())

        async def wait() -> int:
            return (await asyncio.wrap_future(producer.send(orders, "k", Order(1)).future())).offset

        assert asyncio.run(wait()) == 50


def test_a_failed_delivery_says_which_event_and_why() -> None:
    """Its owner can send it again, under the same id."""
    producer = TestProducer(orders)
    producer.clients.broker.fail_next("deliver", DeliveryError("no answer"))
    sent = producer.send(orders, "k", Order(1), id="order-1")
    with pytest.raises(DeliveryError, match="event order-1 of key b'k' for topic orders: no answer"):
        sent.result(LONG_S)
    assert isinstance(sent.future().exception(), DeliveryError)
    producer.close()  # it was looked at


def test_an_event_for_a_topic_that_is_not_there_fails_with_what_to_do() -> None:
    """A declaration says nothing about the cluster."""
    producer = TestProducer(notes)
    with pytest.raises(ConfigError, match="topic orders does not exist"):
        producer.send(orders, "k", Order(1)).result(LONG_S)
    producer.close()


def test_callbacks_are_told_of_success_and_failure_and_may_send() -> None:
    """The usual way to send an event again is from where its failure is told."""
    told: list[tuple[bytes, bool]] = []
    again = threading.Event()
    with TestProducer(orders) as producer:

        def tell(delivery: Delivery) -> None:
            told.append((delivery.id, delivery.exception() is None))
            if delivery.exception() is not None:
                producer.send(orders, "k", Order(1), id=delivery.id, on_delivery=tell)
            else:
                again.set()

        producer.clients.broker.fail_next("deliver", DeliveryError("no answer"))
        producer.send(orders, "k", Order(1), id="1", on_delivery=tell)
        assert again.wait(LONG_S)
        producer.flush()
    assert told == [(b"1", False), (b"1", True)]


def test_a_callback_that_raises_does_not_end_the_deliveries_of_others() -> None:
    """All callers share one thread for their reports."""

    def broken(delivery: Delivery) -> None:
        raise ValueError("no")

    with TestProducer(orders) as producer:
        producer.send(orders, "k", Order(1), on_delivery=broken)
        assert producer.send(orders, "k", Order(2)).result(LONG_S).offset == 1


# The bound


@pytest.mark.parametrize("bound", [{"max_records": 3}, {"max_bytes": 110}])
def test_a_full_producer_makes_senders_wait_and_then_refuses(bound: dict[str, int]) -> None:
    """A Kafka that is away must not fill the memory of the service."""
    producer = held(max_block_s=0.01, **bound)
    fill(producer, 3)
    with pytest.raises(
        QueueFullError, match=r"event late for topic orders was not sent: 3 events of \d+ bytes"
    ):
        producer.send(orders, "k", Order(1), id="late")
    producer.clients.release()
    producer.flush(LONG_S)
    producer.send(orders, "k", Order(9))
    producer.close()
    assert [event.value.amount for event in producer.sent(orders)] == [0, 1, 2, 9]


def test_a_waiting_sender_goes_on_when_there_is_room() -> None:
    """Back-pressure is a pause, not a loss."""
    producer = held(max_records=3)
    fill(producer, 3)
    sender = on_a_thread(lambda: producer.send(orders, "k", Order(3)))
    producer.clients.release()
    sender.join(LONG_S)
    producer.close()
    assert [event.value.amount for event in producer.sent(orders)] == [0, 1, 2, 3]


def test_an_event_larger_than_the_whole_bound_is_sent_alone() -> None:
    """It would wait for ever otherwise."""
    with TestProducer(orders, settings=ProducerSettings(max_bytes=1)) as producer:
        fill(producer, 3)
    assert len(producer.sent(orders)) == 3


def test_many_threads_lose_nothing_and_keep_each_ones_order() -> None:
    """One producer serves all request threads of a service."""
    with TestProducer(orders, settings=ProducerSettings(max_records=10)) as producer:

        def send(thread: int) -> None:
            for n in range(200):
                producer.send(orders, str(thread), Order(n))

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(send, range(8)))
    for thread in range(8):
        seen = [event.value.amount for event in producer.sent(orders) if event.key == str(thread)]
        assert seen == list(range(200))


# Coroutines


def test_coroutines_wait_for_room_in_the_order_of_their_calls_while_the_loop_goes_on() -> None:
    """A web service must answer others while Kafka is slow, and keep a key's events in order."""
    producer = held(max_records=5)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while ticks < 100:
            ticks += 1
            await asyncio.sleep(0)
        producer.clients.release()

    async def run() -> list[int]:
        ticking = asyncio.create_task(tick())
        sent = await asyncio.gather(*(producer.asend(orders, "k", Order(n)) for n in range(500)))
        await ticking
        await producer.aclose()
        return [delivered.offset for delivered in sent]

    assert asyncio.run(run()) == list(range(500))
    assert [event.value.amount for event in producer.sent(orders)] == list(range(500))


def test_a_coroutine_is_refused_when_there_is_no_room_in_time() -> None:
    """As a thread is, and without stopping the loop."""
    producer = held(max_records=1, max_block_s=0.01)

    async def run() -> None:
        first = asyncio.create_task(producer.asend(orders, "k", Order(1)))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError, match="was not sent"):
            await producer.asend(orders, "k", Order(2))
        producer.clients.release()
        await first

    asyncio.run(run())
    producer.close()
    assert len(producer.sent(orders)) == 1


def test_a_coroutine_is_told_of_a_failed_delivery() -> None:
    """It answers its own client with an error, or tries again."""
    producer = TestProducer(orders)

    async def run() -> None:
        producer.clients.broker.fail_next("deliver", DeliveryError("no answer"))
        with pytest.raises(DeliveryError, match="event 7 "):
            await producer.asend(orders, "k", Order(1), id="7")

    asyncio.run(run())
    producer.close()


def test_a_cancelled_coroutine_does_not_take_its_event_back() -> None:
    """It is on its way; the report goes nowhere, and disturbs nobody."""
    producer = held()

    async def run() -> None:
        task = asyncio.create_task(producer.asend(orders, "k", Order(1)))
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        producer.clients.release()
        await producer.aflush()

    asyncio.run(run())
    producer.close()
    assert len(producer.sent(orders)) == 1


@pytest.mark.parametrize("loop_is_gone", [False, True])
def test_flush_tells_of_an_event_whose_coroutine_no_longer_waits(loop_is_gone: bool) -> None:
    """A request that was cancelled has nobody else who could learn that its event is lost."""
    producer = held()
    producer.clients.broker.fail_next("deliver", DeliveryError("no answer"))

    async def run() -> None:
        task = asyncio.create_task(producer.asend(orders, "k", Order(1), id="7"))
        await asyncio.sleep(0)
        task.cancel()
        if not loop_is_gone:
            producer.clients.release()
            while not producer._outbox._failed:  # noqa: ASYNC110 - nothing tells a test of it
                await asyncio.sleep(0)

    asyncio.run(run())
    producer.clients.release()
    with pytest.raises(DeliveryError, match="1 events were not delivered: event 7 "):
        producer.flush(LONG_S)
    producer.close()


# The end


def test_flush_names_what_is_not_delivered_in_time_and_goes_on_trying() -> None:
    """The caller decides whether to wait longer."""
    producer = held()
    fill(producer, 7)
    with pytest.raises(
        DeliveryError, match=r"7 events are not delivered after 0.01 s: event id-0 .*, \.\.\."
    ) as caught:
        producer.flush(0.01)
    assert caught.value.count == 7
    assert caught.value.events[0] == ("orders", b"k", b"id-0")
    producer.clients.release()
    producer.flush(LONG_S)
    producer.close()


def test_flush_raises_once_what_failed_and_nobody_looked_at() -> None:
    """Whoever never looks at a Delivery is told all the same."""
    producer = TestProducer(orders)
    for _ in range(2):
        producer.clients.broker.fail_next("deliver", DeliveryError("no answer"))
    fill(producer, 3)
    with pytest.raises(
        DeliveryError, match=r"2 events were not delivered: event id-0 .*event id-1 .*no answer"
    ):
        producer.flush(LONG_S)
    producer.flush(LONG_S)
    producer.close()


def test_close_delivers_what_waits_and_a_second_one_does_nothing() -> None:
    """The end of the with statement is the end of the work."""
    producer = held()
    sent = fill(producer, 10)
    closer = on_a_thread(producer.close)
    producer.clients.release()
    closer.join(LONG_S)
    assert all(delivery.done() for delivery in sent)
    assert len(producer.sent(orders)) == 10
    assert producer.clients.opened[0].closed
    producer.close()


def test_close_gives_up_in_time_and_says_what_was_not_delivered() -> None:
    """A service that must stop while Kafka is away stops, and its log says what to send again."""
    producer = held()
    sent = fill(producer, 7)
    with pytest.raises(
        DeliveryError, match=r"7 events were given up at close, after 0.01 s: event id-0"
    ) as caught:
        producer.close(0.01)
    assert caught.value.count == 7
    assert all(isinstance(delivery.exception(), DeliveryError) for delivery in sent)
    assert producer.sent(orders) == []


def test_a_closed_producer_refuses_everything_but_close() -> None:
    """An event that is sent into nothing would be lost in silence."""
    producer = TestProducer(orders)
    producer.close()
    for call in (lambda: producer.send(orders, "k", Order(1)), producer.flush):
        with pytest.raises(ProducerClosedError, match="the producer is closed"):
            call()
    with pytest.raises(ProducerClosedError):
        asyncio.run(producer.asend(orders, "k", Order(1)))
    producer.close()


def test_a_sender_that_waits_for_room_is_refused_when_the_producer_closes() -> None:
    """It must not hang on a queue that nobody empties."""
    producer = held(max_records=1)
    fill(producer, 1)
    sender = on_a_thread(lambda: producer.send(orders, "k", Order(2)))
    with pytest.raises(DeliveryError):
        producer.close(0.01)
    sender.join(LONG_S)
    assert not sender.is_alive()


def test_a_client_that_fails_for_good_fails_what_waits_and_refuses_the_rest() -> None:
    """Every later call says so, not only the one that happened to meet it."""
    producer = held()
    sent = fill(producer, 2)
    producer.clients.fail("out of sequence")
    for delivery in sent:
        with pytest.raises(ProducerClosedError, match="failed for good: out of sequence"):
            delivery.result(LONG_S)
    for call in (lambda: producer.send(orders, "k", Order(1)), producer.flush):
        with pytest.raises(ProducerClosedError, match="failed for good: out of sequence"):
            call()
    producer.close()


def test_flush_passes_on_what_mends_events_that_failed_for_a_setting() -> None:
    """To send them again, as after a lost answer, would fail for ever."""
    producer = TestProducer(orders)
    refused = ConfigError("the topic does not exist", hint="create it: pipeline topics apply")
    producer.clients.broker.fail_next("deliver", refused)
    fill(producer, 1)
    with pytest.raises(DeliveryError, match="the topic does not exist") as failed:
        producer.flush()
    assert failed.value.hint == "create it: pipeline topics apply"
    producer.close()


def test_a_producer_that_is_dropped_with_events_says_so() -> None:
    """Forgetting `close` must not lose events in silence."""

    def drop() -> None:
        fill(held(), 2)
        gc.collect()

    with pytest.warns(
        RuntimeWarning, match=r"2 events were not delivered when the producer was dropped.*id-0"
    ):
        drop()


def test_a_producer_that_is_dropped_without_events_says_nothing() -> None:
    """A warning that means nothing hides those that do."""
    producer = TestProducer(orders)
    fill(producer, 2)
    producer.flush(LONG_S)
    del producer
    gc.collect()
