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
    """Writes into a driver's topics, or into those given, of one partition each.

    An event is written when `send` returns. `clients` holds events back (`hold`, `release`), fails
    (`fail`), and its `broker` gives single deliveries an error: `broker.fail_next("deliver", DeliveryError(...))`.
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
        """What is written to a topic so far, partition by partition, in order; `event.id` is its id."""
        declared = declared_topic(topic)
        return [
            Event(declared.key.decode(record.key()), declared.value.read(record), record)
            for record in self.clients.broker.records(topic.name)
        ]
