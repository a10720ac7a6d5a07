"""A producer that is full: threads and coroutines wait for room, or are refused."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from contextlib import suppress

import pytest

from pipeline.config import ProducerSettings
from pipeline.errors import DeliveryError, QueueFullError
from pipeline.producing import outbox
from pipeline.testing import TestProducer
from tests.support.producing.shop import LONG_S, Order, fill, held, on_a_thread, orders
from tests.support.waiting import wait_until


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


def test_a_waiting_sender_continues_when_there_is_room() -> None:
    """Back-pressure is a pause, not a loss."""
    producer = held(max_records=3)
    fill(producer, 3)
    sender = on_a_thread(lambda: producer.send(orders, "k", Order(3)))
    producer.clients.release()
    sender.join(LONG_S)
    producer.close()
    assert [event.value.amount for event in producer.sent(orders)] == [0, 1, 2, 3]


def test_an_event_larger_than_the_whole_bound_is_sent_alone() -> None:
    """Otherwise it would wait forever."""
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


def test_coroutines_wait_for_room_in_the_order_of_their_calls_while_the_loop_continues() -> None:
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
    """The event is already sent; its delivery report is ignored."""
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
    """After a cancelled request, only this error reports that the event is lost."""
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
    with pytest.raises(DeliveryError, match="1 event was not delivered: event 7 "):
        producer.flush(LONG_S)
    producer.close()


@pytest.mark.parametrize("way", ["result", "flush", "close", "room", "coroutine"])
def test_a_call_that_waits_ends_the_gathering_of_reports(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After many reports at once, the producer's thread waits for more of them. No caller may wait for that."""
    monkeypatch.setattr(outbox, "_GATHER_S", 2 * LONG_S)
    producer = held(max_records=100)
    sent = fill(producer, 100)
    producer.clients.release()
    wait_until(lambda: all(delivery.done() for delivery in sent), lambda: "the first events wait")
    # From here on, reports gather.
    began_s = time.monotonic()
    if way == "room":
        fill(producer, 101)
    elif way == "coroutine":
        asyncio.run(producer.asend(orders, "k", Order(1)))
    else:
        [last] = fill(producer, 1)
        {"result": last.result, "flush": producer.flush, "close": producer.close}[way](LONG_S)
    assert time.monotonic() - began_s < LONG_S
    producer.close()
