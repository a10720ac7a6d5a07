"""The raw client, with the settings that made it fastest here: what Kafka and librdkafka cost without a framework."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from benchmarks.peers.programs.plan import Mark, Plan, read_plan
from benchmarks.peers.records import key_of, value_of

__all__ = ["main"]

AT_ONCE = 4_000
COMMIT_S = 0.1


def _consumer(plan: Plan) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": plan.servers,
            "group.id": plan.name,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 3,
        }
    )


def _producer(plan: Plan, more: Mapping[str, str | int] | None = None) -> Producer:
    return Producer(
        {
            "bootstrap.servers": plan.servers,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 5,
            "queue.buffering.max.messages": 200_000,
            **(more or {}),
        }
    )


def _assigned(plan: Plan) -> Consumer:
    consumer = _consumer(plan)
    consumer.assign([TopicPartition(plan.source, partition, 0) for partition in range(plan.partitions)])
    return consumer


def _send(producer: Producer, topic: str, value: bytes | None, key: bytes | None) -> None:
    while True:
        try:
            producer.produce(topic, value, key)
        except BufferError:
            producer.poll(0.05)
        else:
            return


def _forward(producer: Producer, topic: str, messages: Sequence[Message]) -> None:
    for message in messages:
        _send(producer, topic, message.value(), message.key())
    producer.poll(0)


def _consume(plan: Plan) -> None:
    consumer, mark, done = _assigned(plan), Mark(plan), 0
    while done < plan.records:
        messages = consumer.consume(AT_ONCE, 0.005)
        for message in messages:
            message.value()
        done += len(messages)
        mark.count(len(messages))
    mark.end()
    consumer.close()


def _produce(plan: Plan) -> None:
    producer, mark = _producer(plan), Mark(plan)
    for start in range(0, plan.records, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, plan.records))
        for number in numbers:
            _send(producer, plan.target, value_of(number, plan.keys), key_of(number, plan.keys))
        producer.poll(0)
        mark.count(len(numbers))
    producer.flush()


def _copy(plan: Plan) -> None:
    consumer, producer, mark, done = _assigned(plan), _producer(plan), Mark(plan), 0
    while done < plan.records:
        messages = consumer.consume(AT_ONCE, 0.005)
        _forward(producer, plan.target, messages)
        done += len(messages)
        mark.count(len(messages))
    producer.flush()
    consumer.close()


def _transactions(plan: Plan) -> None:
    """Consume, produce and commit the offsets, in one transaction at a time, until the process is killed."""
    consumer, mark = _consumer(plan), Mark(plan)
    producer = _producer(plan, {"transactional.id": plan.name, "linger.ms": 0})
    producer.init_transactions()
    consumer.subscribe([plan.source])
    interval_s = plan.commit_ms / 1000 if plan.commit_ms else COMMIT_S
    due_s, is_open = 0.0, False
    while True:
        messages = consumer.consume(AT_ONCE, 0.005)
        if messages:
            if not is_open:
                producer.begin_transaction()
                is_open, due_s = True, time.monotonic() + interval_s
            _forward(producer, plan.target, messages)
            mark.count(len(messages))
        if is_open and time.monotonic() >= due_s:
            offsets = [place for place in consumer.position(consumer.assignment()) if place.offset >= 0]
            producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
            producer.commit_transaction()
            is_open = False


JOBS: dict[str, Callable[[Plan], None]] = {
    "consume": _consume,
    "produce": _produce,
    "copy": _copy,
    "transactions": _transactions,
}


def main() -> None:
    """Do the job of the plan."""
    plan = read_plan()
    JOBS[plan.job](plan)


if __name__ == "__main__":
    main()
