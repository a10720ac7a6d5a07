"""Sends outside of agents, by our idempotent producer: `OutsideSender`. At least once: no commit contains them.

A timer, a task, a page or a command has no record that is processed, so nothing could be committed with its sends. An
error of the delivery is raised where the send is awaited, and logged otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from faust.types import TP
from faust.types.tuples import RecordMetadata

from pipeline.api.codecs import resolve_value
from pipeline.api.declarations import DeclaredTopic
from pipeline.api.keys import resolve_key
from pipeline.errors import PipelineError
from pipeline.ports import Logger, error_fields
from pipeline.producing.delivery import Delivered, Delivery
from pipeline.producing.producer import EventProducer

__all__ = ["OutsideSender"]

_IN_FLIGHT = 10_000  # sends of one loop that are not delivered; then `send` waits


class OutsideSender:
    """Sends encoded keys and values. Any thread and any event loop may use it.

    Args:
        topics: Those of the app, by name. Other topics may be sent to as well.
        producer: Sends them. `close` closes it.
        log: For failed sends.
    """

    def __init__(
        self, topics: Mapping[str, DeclaredTopic[Any, Any]], producer: EventProducer, log: Logger
    ) -> None:
        self._topics = dict(topics)
        self._producer = producer
        self._log = log
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def send(
        self, name: str, key: bytes | None, value: bytes | None, timestamp: float | None, headers: Any
    ) -> asyncio.Future[RecordMetadata]:
        """Take a message, when there is room. Awaiting what it returns waits for the delivery."""
        loop = asyncio.get_running_loop()
        slots = self._slots.get(loop)
        if slots is None:
            slots = self._slots[loop] = asyncio.Semaphore(_IN_FLIGHT)
        await slots.acquire()
        outcome: asyncio.Future[RecordMetadata] = loop.create_future()
        outcome.add_done_callback(lambda _: slots.release())
        try:
            self.send_soon(name, key, value, timestamp, headers, outcome)
        except BaseException:
            outcome.cancel()
            raise
        return outcome

    def send_soon(
        self,
        name: str,
        key: bytes | None,
        value: bytes | None,
        timestamp: float | None,
        headers: Any,
        outcome: asyncio.Future[RecordMetadata],
    ) -> None:
        """Take a message, and set `outcome` when it is delivered.

        It waits only while the bytes of all messages that are not delivered are at `producer.max_bytes`. A message that
        was taken is sent, also if the loop ends.
        """
        loop = outcome.get_loop()

        def tell(delivery: Delivery) -> None:
            error = delivery.exception()
            if error is not None:
                self._log.error("faust_send_failed", topic=name, **error_fields(error))
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_resolve, outcome, delivery)

        self._producer.send(
            self._topic(name),
            key,
            value,
            headers=headers,
            timestamp_ms=None if timestamp is None else int(timestamp * 1000),
            on_delivery=tell,
        )

    def close(self, timeout_s: float) -> None:
        """Wait for what was sent, and close the producer. Failures are logged."""
        try:
            self._producer.close(timeout_s)
        except PipelineError as error:
            self._log.error("faust_send_failed", topic="", **error_fields(error))

    def _topic(self, name: str) -> DeclaredTopic[Any, Any]:
        topic = self._topics.get(name)
        if topic is None:
            where = f"topic {name}"
            topic = self._topics[name] = DeclaredTopic(
                name,
                resolve_key(bytes | None, where, tombstones=True),
                resolve_value(bytes | None, "raw", where, tombstones=True),
            )
        return topic


def _resolve(outcome: asyncio.Future[RecordMetadata], delivery: Delivery) -> None:
    if outcome.done():
        return
    error = delivery.exception()
    if error is not None:
        outcome.set_exception(error)
        outcome.exception()  # it is logged, so asyncio must not complain if it is not awaited
    else:
        outcome.set_result(_metadata(delivery.result()))


def _metadata(delivered: Delivered) -> RecordMetadata:
    topic, partition = delivered.topic, delivered.partition
    seconds = delivered.timestamp_ms / 1000
    return RecordMetadata(topic, partition, TP(topic, partition), delivered.offset, seconds, 0)
