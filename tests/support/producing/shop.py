"""The app whose events the tests of producers send."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from pipeline import App, Delivery
from pipeline.config import ProducerSettings
from pipeline.errors import ConfigError, DeliveryError, ProducerClosedError, QueueFullError
from pipeline.testing import TestProducer

LONG_S = 60.0


class Order(msgspec.Struct, frozen=True):
    amount: int


app = App("shop")
orders = app.topic("orders", key=str, value=Order)
notes = app.topic("notes", value=str | None)


def held(**settings: Any) -> TestProducer:
    """A producer whose Kafka is unreachable."""
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
