"""What a producer sends, and what it tells of deliveries."""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
import threading
import uuid
from typing import Any

import pytest

from pipeline import App, Context, Delivery, Event
from pipeline.config import ProducerSettings
from pipeline.errors import ConfigError, DeliveryError
from pipeline.testing import TestDriver, TestProducer
from tests.support.producing.shop import LONG_S, Order, fill, held, notes, orders


def test_an_event_carries_the_callers_id_headers_and_time() -> None:
    """The id is what makes a second sending of it recognisable."""
    with TestProducer(orders) as producer:
        sent = producer.send(orders, "k", Order(5), id="order-5", headers=[("trace", b"1")], timestamp_ms=17)
        [event] = producer.sent(orders)
        assert (event.key, event.value, event.id, event.timestamp_ms) == ("k", Order(5), b"order-5", 17)
        assert ("trace", b"1") in event.headers
        assert sent.result(LONG_S) == ("orders", 0, 0, b"order-5", 17)


def test_an_event_without_an_id_gets_a_uuid_of_its_own() -> None:
    """Every event has a unique id, also if the caller gave none."""
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
        (("k", Order(1)), {"headers": [("\ud800", b"1")]}, "cannot be encoded as UTF-8"),
        (("k", Order(1)), {"headers": [("a\0b", b"1")]}, "contains a NUL"),
        (("k", Order(1)), {"timestamp_ms": -1}, "timestamp_ms is -1"),
        (("k", Order(1)), {"timestamp_ms": 2**63}, "of 64 bits"),
        (("k" * 200, Order(1)), {}, "over max_event_bytes (200)"),
    ],
)
def test_what_cannot_be_sent_is_refused_at_once_and_leaves_nothing(
    arguments: Any, options: Any, said: str
) -> None:
    """The mistake is reported where it is made, and not later in a delivery report."""
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


def test_a_closed_log_does_not_end_the_deliveries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program may have closed its standard error, and a callback that raises is only logged."""
    tried = threading.Event()

    class ClosedLog:
        def error(self, event: str, **_fields: object) -> None:
            tried.set()
            raise ValueError("I/O operation on closed file")

    def broken(delivery: Delivery) -> None:
        raise ValueError("no")

    with TestProducer(orders) as producer:
        monkeypatch.setattr(producer._outbox, "_log", ClosedLog())
        producer.send(orders, "k", Order(1), on_delivery=broken)
        assert tried.wait(LONG_S)
        assert producer.send(orders, "k", Order(2)).result(LONG_S).offset == 1
