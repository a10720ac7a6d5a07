"""Events per second of `pipeline.Producer` beside the raw client in the same process.

Raw: `produce` of ready bytes, idempotent, without ids and without delivery reports of its own: what the client costs
by itself. Producer: type check, encoding, an id, a bound, and the outcome of each event. They take turns, and the
ratio is taken per turn, so that a drifting machine cancels out.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
from confluent_kafka import Producer as RawProducer
from rich.console import Console
from rich.table import Table

from pipeline import App, Delivery, KafkaSettings, Producer, Settings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from pipeline.testing import LocalKafka

TOPIC = "payments"
PARTITIONS = 4
KEYS = 10_000
EVENTS = 300_000
AT_ONCE = 1_000


class Payment(msgspec.Struct, frozen=True):
    """An event."""

    amount: int
    currency: str


payments = App("producer-bench").topic(TOPIC, key=str, value=Payment)


def _raw(servers: str, events: int) -> None:
    producer = RawProducer(
        {
            "bootstrap.servers": servers,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 5,
        }
    )
    for number in range(events):
        value = b'{"amount":%d,"currency":"EUR"}' % (number % 1000)
        while True:
            try:
                producer.produce(TOPIC, value, b"account-%d" % (number % KEYS))
                break
            except BufferError:
                producer.poll(0.05)
    producer.flush()


def _unwatched(servers: str, events: int) -> None:
    """Nobody looks at a Delivery; `close` would say what has failed."""
    with Producer(Settings(KafkaSettings(servers))) as producer:
        for number in range(events):
            producer.send(payments, f"account-{number % KEYS}", Payment(number % 1000, "EUR"))


def _callbacks(servers: str, events: int) -> None:
    told: list[Delivery] = []
    with Producer(Settings(KafkaSettings(servers))) as producer:
        for number in range(events):
            payment = Payment(number % 1000, "EUR")
            producer.send(payments, f"account-{number % KEYS}", payment, on_delivery=told.append)
    if len(told) != events:
        raise SystemExit(f"benchmark broken: {len(told)} of {events} events were reported")


def _results(servers: str, events: int) -> None:
    """`result()` of every event, a thousand at a time."""
    with Producer(Settings(KafkaSettings(servers))) as producer:
        for start in range(0, events, AT_ONCE):
            sent = [
                producer.send(payments, f"account-{number % KEYS}", Payment(number % 1000, "EUR"))
                for number in range(start, min(start + AT_ONCE, events))
            ]
            for delivery in sent:
                delivery.result()


def _futures(servers: str, events: int) -> None:
    """A true Future for each event, as `concurrent.futures.wait` needs them."""
    with Producer(Settings(KafkaSettings(servers))) as producer:
        for start in range(0, events, AT_ONCE):
            futures = [
                producer.send(payments, f"account-{number % KEYS}", Payment(number % 1000, "EUR")).future()
                for number in range(start, min(start + AT_ONCE, events))
            ]
            for future in futures:
                future.result()


def _coroutines(servers: str, events: int) -> None:
    """A thousand `asend` at a time."""

    async def run() -> None:
        async with Producer(Settings(KafkaSettings(servers))) as producer:
            for start in range(0, events, AT_ONCE):
                await asyncio.gather(
                    *(
                        producer.asend(payments, f"account-{number % KEYS}", Payment(number % 1000, "EUR"))
                        for number in range(start, min(start + AT_ONCE, events))
                    )
                )

    asyncio.run(run())


WAYS: dict[str, Callable[[str, int], None]] = {
    "raw client": _raw,
    "send, nobody looks": _unwatched,
    "send with on_delivery": _callbacks,
    "send, result() of 1,000": _results,
    "send, future() of 1,000": _futures,
    "asend, 1,000 at a time": _coroutines,
}


def run(events: int, rounds: int) -> int:
    """Measure and print; 0."""
    console = Console(highlight=False)
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    cpu_us: dict[str, list[float]] = {way: [] for way in WAYS}
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-bench-") as directory,
        LocalKafka(Path(directory) / "kafka") as kafka,
    ):
        servers = kafka.bootstrap_servers
        with closing(KafkaCluster(KafkaSettings(servers))) as cluster:
            cluster.create([TopicSpec(TOPIC, PARTITIONS)])
        _raw(servers, 10_000)
        for _ in range(rounds):
            for way, call in WAYS.items():
                gc.collect()
                began, cpu = time.monotonic(), time.process_time()
                call(servers, events)
                rates[way].append(events / (time.monotonic() - began))
                cpu_us[way].append((time.process_time() - cpu) / events * 1e6)
    table = Table("how", "events/s", "best", "of raw", "CPU µs an event", box=None)
    for way in WAYS:
        ratios = [mine / raw for mine, raw in zip(rates[way], rates["raw client"], strict=True)]
        table.add_row(
            way,
            f"{statistics.median(rates[way]):,.0f}",
            f"{max(rates[way]):,.0f}",
            f"{statistics.median(ratios):.2f}",
            f"{statistics.median(cpu_us[way]):.1f}",
        )
    console.print(table)
    console.print(
        f"producer: {statistics.median(rates['send, nobody looks']):,.0f} events/s (median of {rounds})"
    )
    return 0
