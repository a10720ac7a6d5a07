"""TestProducer: a `pipeline.Producer` that writes into memory, for tests of programs that produce.

producer = TestProducer(driver)          # the events are the inputs of the app under test
serve(request, producer)
driver.run()

with TestProducer(orders) as producer:   # or only into topics of its own
    serve(request, producer)
    assert producer.sent(orders)[0].value.amount == 5
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog

from pipeline.api.declarations import Topic, declared_topic
from pipeline.api.event import Event
from pipeline.config import ProducerSettings
from pipeline.errors import ConfigError, DeliveryError, PipelineError, ProducerClosedError
from pipeline.ports import Output, Report, TopicSpec
from pipeline.producing.kafka_producers import Producer
from pipeline.producing.producer import EventProducer
from pipeline.testing.driver import TestDriver
from pipeline.testing.memory_broker import MemoryBroker
from pipeline.testing.memory_log import MemoryRecord, MissingTopicError, RefusedRecordError

__all__ = ["MemoryEventClient", "MemoryEventClients", "TestProducer"]

K = TypeVar("K")
V = TypeVar("V")


class MemoryEventClients:
    """Opens clients on one broker. `hold` keeps what is enqueued, as an unreachable Kafka does, until `release`."""

    def __init__(self, broker: MemoryBroker, wall_ms: Callable[[], int] | None = None) -> None:
        self.broker = broker
        self.opened: list[MemoryEventClient] = []
        self._wall_ms = wall_ms or (lambda: time.time_ns() // 1_000_000)
        self._held = False

    def open(self) -> MemoryEventClient:
        client = MemoryEventClient(self.broker, self._wall_ms, self._held)
        self.opened.append(client)
        return client

    def hold(self) -> None:
        """From now on nothing is written and nothing is reported."""
        self._held = True
        for client in self.opened:
            client.hold(held=True)

    def release(self) -> None:
        """What was held is written now."""
        self._held = False
        for client in self.opened:
            client.hold(held=False)

    def fail(self, why: str) -> None:
        """The clients fail for good."""
        for client in self.opened:
            client.fail(why)


class MemoryEventClient:
    """`ports.EventClient`. What is enqueued is written at once, unless it is held; `serve` reports it.

    A fault of the call "deliver" is what becomes of the next record: an error to report.
    """

    def __init__(self, broker: MemoryBroker, wall_ms: Callable[[], int], held: bool) -> None:
        self.closed = False
        self._broker = broker
        self._wall_ms = wall_ms
        self._held = held
        self._fatal: PipelineError | None = None
        self._changed = threading.Condition()
        self._queue: list[tuple[Output, Report]] = []
        self._decided: list[tuple[Report, PipelineError | None, MemoryRecord | None]] = []

    @property
    def fatal(self) -> PipelineError | None:
        return self._fatal

    def enqueue(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes]],
        report: Report,
    ) -> bool:
        with self._changed:
            if self._fatal is not None:
                raise self._fatal
            output = Output(topic, key, value, timestamp_ms or self._wall_ms(), list(headers))
            self._queue.append((output, report))
            self._write()
        return True

    def serve(self, timeout_s: float) -> None:
        with self._changed:
            if not self._decided:
                self._changed.wait(timeout_s)
            decided, self._decided = self._decided, []
        for report, error, record in decided:
            report(error, record)

    def failure(self, error: Any, what: str) -> PipelineError:
        kind: type[PipelineError] = type(error)
        return kind(f"{what}: {error.message}", hint=error.hint)

    def purge(self) -> None:
        with self._changed:
            error = DeliveryError("abandoned before it was confirmed")
            self._decided.extend((report, error, None) for _, report in self._queue)
            self._queue.clear()
            self._changed.notify_all()

    def close(self) -> None:
        self.closed = True

    def hold(self, *, held: bool) -> None:
        with self._changed:
            self._held = held
            self._write()

    def fail(self, why: str) -> None:
        with self._changed:
            self._fatal = ProducerClosedError(f"the client has failed permanently: {why}")
            self._changed.notify_all()

    def _write(self) -> None:
        if self._held:
            return
        for output, report in self._queue:
            error: PipelineError | None = None
            record: MemoryRecord | None = None
            try:
                with self._broker.faults.at("deliver", output.topic):
                    (record,) = self._broker.produce(output)
            except (MissingTopicError, RefusedRecordError) as exception:
                error = ConfigError(str(exception))
            except PipelineError as exception:
                error = exception
            self._decided.append((report, error, record))
        self._queue.clear()
        self._changed.notify_all()


class TestProducer(Producer):
    """A `Producer` that writes into memory, for tests of programs that produce.

    An event is written when `send` returns. `clients` can hold events back (`hold`, `release`) and fail (`fail`).
    `clients.broker.fail_next("deliver", DeliveryError(...))` gives one delivery an error.

    Args:
        targets: A `TestDriver`, whose topics are written; or topics, which are created with one partition each.
        settings: Default: `ProducerSettings()`.

    Attributes:
        clients: The in-memory clients.

    Example:
        ```python
        with TestProducer(orders) as producer:
            serve(request, producer)
            assert producer.sent(orders)[0].value.amount == 5
        ```
    """

    __test__ = False

    def __init__(
        self, *targets: TestDriver | Topic[Any, Any], settings: ProducerSettings | None = None
    ) -> None:
        drivers = [target for target in targets if isinstance(target, TestDriver)]
        broker = drivers[0].broker if drivers else MemoryBroker()
        for target in targets:
            if isinstance(target, Topic):
                broker.create(TopicSpec(target.name, 1))
        self.clients = MemoryEventClients(broker, drivers[0].clock.wall_ms if drivers else None)
        EventProducer.__init__(
            self, self.clients, settings or ProducerSettings(), structlog.get_logger("pipeline")
        )

    def sent(self, topic: Topic[K, V]) -> list[Event[K, V]]:
        """The events that were written to a topic so far.

        Args:
            topic: A topic that the producer writes.

        Returns:
            Events, partition by partition, in order.

        Example:
            ```python
            assert producer.sent(orders)[0].id == b"order-5"
            ```
        """
        declared = declared_topic(topic)
        return [
            Event(declared.key.decode(record.key()), declared.value.read(record), record)
            for record in self.clients.broker.records(topic.name)
        ]
