"""The processes of `benchmarks.latency`: what is measured (`pipeline`, `raw`), and what feeds and reads it.

A process of its own for each, with nothing but the package and the raw client: so `pipeline` also runs with the package
of another checkout. Times are of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import signal
import statistics
import sys
import threading
import time
from pathlib import Path

import msgspec
from confluent_kafka import Consumer, Message, Producer, TopicPartition

__all__ = ["main"]

KEYS = 5_000
MOST = 4_000  # records of a poll
TICK_S = 0.001
QUIET_S = 20.0


class Sent(msgspec.Struct, frozen=True):
    """An event and its output. `at_ns`: when it was sent."""

    at_ns: int
    number: int


def pipeline(servers: str, source: str, target: str, _partitions: str, directory: str, tasks: str) -> None:
    """A worker with the default settings, until SIGTERM: a running sum that passes the time on."""
    from pipeline import App, Context, Event, KafkaSettings, Settings, WorkerSettings  # noqa: PLC0415

    app = App(f"latency-{source}")
    if int(tasks):
        from pipeline.app import declared_app  # noqa: PLC0415

        declared_app(app).main.tasks = int(tasks)
    events = app.topic(source, key=str, value=Sent)
    sums = app.topic(target, key=str, value=Sent)
    totals = app.table("totals", key=str, value=int)

    @app.handler(events)
    def add(event: Event[str, Sent], ctx: Context) -> None:
        table = ctx.table(totals)
        total = table.get(event.key, 0) + event.value.number
        table[event.key] = total
        ctx.send(sums, event.key, Sent(event.value.at_ns, total))

    place = Path(directory) / source
    app.run(
        Settings(KafkaSettings(servers), WorkerSettings(state_dir=place, worker_id="bench", topics_dir=""))
    )


def raw(servers: str, source: str, target: str, partitions: str, _directory: str, _tasks: str) -> None:
    """The loop of the Kafka documentation: consume, produce, and commit with the offsets, in transactions."""
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": source, "isolation.level": "read_committed"}
        | {"enable.auto.commit": False, "auto.offset.reset": "earliest"}
    )
    producer = Producer({"bootstrap.servers": servers, "transactional.id": source, "compression.type": "lz4"})
    consumer.assign([TopicPartition(source, number, 0) for number in range(int(partitions))])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    producer.init_transactions()
    while not stop.is_set():
        messages = _next(consumer)
        if not messages:
            continue
        producer.begin_transaction()
        for message in messages:
            producer.produce(target, message.value(), message.key())
        at = consumer.position([TopicPartition(source, number) for number in range(int(partitions))])
        group = consumer.consumer_group_metadata()
        producer.send_offsets_to_transaction([place for place in at if place.offset >= 0], group)
        producer.commit_transaction()
    consumer.close()


def feed(servers: str, source: str, rate: str, seconds: str) -> None:
    """Send events at a steady rate: those that are due, each millisecond."""
    producer = Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random", "linger.ms": 1})
    began, sent = time.monotonic(), 0
    total = int(float(rate) * float(seconds))
    while sent < total:
        due = min(total, int((time.monotonic() - began) * float(rate)))
        for number in range(sent, due):
            value = b'{"at_ns":%d,"number":%d}' % (time.monotonic_ns(), number)
            producer.produce(source, value, b"key-%d" % (number * 7919 % KEYS))
        sent = due
        producer.poll(0)
        time.sleep(TICK_S)
    producer.flush()


def read(servers: str, target: str, partitions: str, expected: str) -> None:
    """Read committed outputs. Prints `ready` at the first one, and at the end the latencies in ms: p50 p99 p999 max.

    Ends after the expected number, or when nothing arrives for a while. Outputs of the first fifth are not counted.
    """
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": "read", "isolation.level": "read_committed"}
        | {"enable.auto.commit": False, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 100}
    )
    consumer.assign([TopicPartition(target, number, 0) for number in range(int(partitions))])
    decode = msgspec.json.Decoder(Sent).decode
    found: list[float] = []
    last_s = time.monotonic() + 60.0
    while len(found) < int(expected) and time.monotonic() < last_s:
        messages = _next(consumer)
        now_ns = time.monotonic_ns()
        if messages and not found:
            print("ready", flush=True)
        if messages:
            last_s = time.monotonic() + QUIET_S
        found += [(now_ns - decode(value).at_ns) / 1e6 for m in messages if (value := m.value()) is not None]
    consumer.close()
    counted = found[len(found) // 5 :]
    cuts = statistics.quantiles(counted, n=1000)
    print(
        len(found), *(f"{value:.2f}" for value in (cuts[499], cuts[989], cuts[998], max(counted))), flush=True
    )


def _next(consumer: Consumer) -> list[Message]:
    """What is there, or the first record that arrives and those that arrived with it."""
    messages = consumer.consume(MOST, 0) or consumer.consume(1, 0.005)
    if len(messages) == 1:
        messages += consumer.consume(MOST - 1, 0)
    return [message for message in messages if message.error() is None]


def main(role: str, *arguments: str) -> None:
    """Run one of the processes."""
    {"pipeline": pipeline, "raw": raw, "feed": feed, "read": read}[role](*arguments)  # type: ignore[operator]


if __name__ == "__main__":
    main(*sys.argv[1:])
