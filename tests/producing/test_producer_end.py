"""Flush, close and the end of a producer: every event is accounted for."""

from __future__ import annotations

import asyncio
import gc

import pytest

from pipeline.errors import ConfigError, DeliveryError, ProducerClosedError
from pipeline.testing import TestProducer
from tests.support.producing.shop import LONG_S, Order, fill, held, on_a_thread, orders


def test_flush_names_what_is_not_delivered_in_time_and_keeps_trying() -> None:
    """The caller decides whether to wait longer."""
    producer = held()
    fill(producer, 7)
    with pytest.raises(
        DeliveryError, match=r"7 events were not delivered after 0.01 s: event id-0 .*, \.\.\."
    ) as caught:
        producer.flush(0.01)
    assert caught.value.count == 7
    assert caught.value.events[0] == ("orders", b"k", b"id-0")
    producer.clients.release()
    producer.flush(LONG_S)
    producer.close()


def test_flush_raises_unchecked_failures_once() -> None:
    """Callers that never check a Delivery must still learn of the failure."""
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
    """It must not wait for a queue that is no longer emptied."""
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
        with pytest.raises(ProducerClosedError, match="failed permanently: out of sequence"):
            delivery.result(LONG_S)
    for call in (lambda: producer.send(orders, "k", Order(1)), producer.flush):
        with pytest.raises(ProducerClosedError, match="failed permanently: out of sequence"):
            call()
    producer.close()


def test_flush_passes_on_what_fixes_events_that_failed_for_a_setting() -> None:
    """Sending them again, as after a lost answer, would fail each time."""
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
