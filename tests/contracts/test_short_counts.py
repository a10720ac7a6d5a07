"""A client that takes or delivers fewer records than it was given must not pass for success.

No broker can be made to do this on demand, so the client is a stand-in with the calls that the adapter makes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline.core.names import TopicPartition
from pipeline.errors import AbortableError
from pipeline.kafka.producer import KafkaTransactionalProducer
from pipeline.ports import Output

JOURNAL = TopicPartition("journal", 0)


class _Delivered:
    """The message that a delivery callback is given."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        self._place = (topic, partition, offset)

    def topic(self) -> str:
        return self._place[0]

    def partition(self) -> int:
        return self._place[1]

    def offset(self) -> int:
        return self._place[2]


class Client:
    """A client whose queue is full now and then, and which leaves some records behind when it is flushed."""

    def __init__(self, *, full_every: int = 0, left_in_queue: int = 0, chunks_lost: int = 0) -> None:
        self.values: list[bytes | None] = []
        self._full_every = full_every
        self._left = left_in_queue
        self._chunks_lost = chunks_lost
        self._calls = 0
        self._callbacks: list[tuple[Callable[..., None], str, int]] = []
        self._in_transaction = False

    def begin_transaction(self) -> None:
        if self._in_transaction:
            raise KafkaException(KafkaError(KafkaError._STATE))
        self._in_transaction = True

    def produce(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int = -1,
        on_delivery: Callable[..., None] | None = None,
        *_: object,
    ) -> None:
        self._calls += 1
        if self._full_every and self._calls % self._full_every == 0:
            raise BufferError("Local: Queue full")
        self.values.append(value)
        if on_delivery is not None:
            self._callbacks.append((on_delivery, topic, partition))

    def produce_batch(self, _topic: str, messages: list[dict[str, object]]) -> int:
        for message in messages:
            code = KafkaError.MSG_SIZE_TOO_LARGE if self._in_transaction else KafkaError._STATE
            message["_error"] = KafkaError(code)
        return 0

    def poll(self, _timeout_s: float) -> int:
        return 0

    def flush(self) -> int:
        callbacks, self._callbacks = self._callbacks, []
        for offset, (callback, topic, partition) in enumerate(callbacks[self._chunks_lost :]):
            callback(None, cast("Message", _Delivered(topic, partition, offset)))
        return self._left

    def __len__(self) -> int:
        return self._left


def _producer(client: Client) -> KafkaTransactionalProducer:
    producer = KafkaTransactionalProducer(cast("Producer", client), "task", 1_000)
    producer.begin()
    return producer


def test_a_record_that_finds_the_queue_full_is_sent_again() -> None:
    """The client refuses it with an exception that is easily taken for something else, and remembers nothing."""
    client = Client(full_every=3)
    producer = _producer(client)
    values = [str(number).encode() for number in range(20)]
    producer.send(
        [Output("out", b"k", value, 1, [("n", b"1")] if n % 2 else ()) for n, value in enumerate(values)]
    )
    producer.append(JOURNAL, [b"a", b"b", b"c", b"d"])
    producer.flush()
    assert client.values == [*values, b"a", b"b", b"c", b"d"]


@pytest.mark.parametrize(
    "short", [{"left_in_queue": 1}, {"chunks_lost": 1}], ids=["left in the queue", "never reported"]
)
def test_a_flush_that_leaves_records_behind_aborts(short: dict[str, Any]) -> None:
    """A commit without one of its records is neither all nor nothing."""
    producer = _producer(Client(**short))
    producer.send([Output("out", b"k", b"v", 1)])
    producer.append(JOURNAL, [b"a", b"b"])
    with pytest.raises(AbortableError, match="after flush"):
        producer.flush()
