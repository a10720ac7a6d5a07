"""TestProducer: a `pipeline.Producer` that writes into memory, for tests of programs that produce.

producer = TestProducer(driver)          # the events are the inputs of the app under test
serve(request, producer)
driver.run()

with TestProducer(orders) as producer:   # or only into topics of its own
    serve(request, producer)
    assert producer.sent(orders)[0].value.amount == 5
"""

from __future__ import annotations

from typing import Any, TypeVar

import structlog

from pipeline.api.declarations import Topic, declared_topic
from pipeline.api.event import Event
from pipeline.config import ProducerSettings
from pipeline.ports import TopicSpec
from pipeline.producing.kafka_producers import Producer
from pipeline.producing.producer import EventProducer
from pipeline.testing.driver import TestDriver
from pipeline.testing.memory_broker import MemoryBroker
from pipeline.testing.memory_events import MemoryEventClients

__all__ = ["TestProducer"]

K = TypeVar("K")
V = TypeVar("V")


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
