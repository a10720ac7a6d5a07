"""Records per second of a running sum, exactly-once, beside the raw client in the same process.

Input: JSON events, 4 partitions. Raw: consume each record and produce it again, idempotent, no transaction,
no state: what the client costs by itself. Pipeline: decode, add to a table, publish the sum, with journal and
transactions. The two take turns, and the ratio is taken per turn, so that a drifting machine cancels out.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition
from rich.console import Console
from rich.table import Table

from pipeline import App, Context, Event
from pipeline.broker import LocalKafka
from pipeline.config import KafkaSettings, Settings, WorkerSettings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from pipeline.wiring import build_worker

PARTITIONS = 4
DEADLINE_S = 300.0


class Payment(msgspec.Struct, frozen=True):
    """An input event."""

    amount: int
    currency: str


class Balance(msgspec.Struct, frozen=True):
    """An output: the running sum of a key."""

    total: int
    count: int


def make_app(name: str, source: str, target: str) -> App:
    """The running sum as an app."""
    app = App(name)
    payments = app.topic(source, key=str, value=Payment)
    balances = app.topic(target, key=str, value=Balance)
    sums = app.table("sums", key=str, value=Balance)
    nothing = Balance(0, 0)

    @app.handler(payments)
    def add(event: Event[str, Payment], ctx: Context) -> None:
        table = ctx.table(sums)
        before = table.get(event.key, nothing)
        after = Balance(before.total + event.value.amount, before.count + 1)
        table[event.key] = after
        ctx.send(balances, event.key, after)

    return app


def run(events: int, rounds: int, keys: int) -> int:
    """Measure and print; 0."""
    console = Console(highlight=False)
    table = Table("turn", "raw records/s", "pipeline records/s", "ratio", "CPU µs a record", box=None)
    ratios, rates = [], []
    with tempfile.TemporaryDirectory(prefix="pipeline-bench-") as workspace:
        directory = Path(workspace)
        with LocalKafka(directory / "kafka") as kafka:
            servers = kafka.bootstrap_servers
            cluster = KafkaCluster(KafkaSettings(servers))
            cluster.create([TopicSpec("payments", PARTITIONS)])
            console.print(f"loading {events:,} events, {keys:,} keys, {PARTITIONS} partitions")
            _load(servers, events, keys)
            for turn in range(rounds):
                cluster.create(
                    [TopicSpec(f"raw-{turn}", PARTITIONS), TopicSpec(f"balances-{turn}", PARTITIONS)]
                )
                raw = _raw(servers, events, f"raw-{turn}")
                rate, cpu_us = _pipeline(servers, events, f"bench-{turn}", f"balances-{turn}", directory)
                rates.append(rate)
                ratios.append(rate / raw)
                table.add_row(
                    str(turn + 1), f"{raw:,.0f}", f"{rate:,.0f}", f"{rate / raw:.2f}", f"{cpu_us:.2f}"
                )
            cluster.close()
    console.print(table)
    console.print(
        f"throughput: {statistics.median(rates):,.0f} records/s exactly-once, "
        f"{statistics.median(ratios):.2f} of raw consume + produce (median of {rounds})"
    )
    return 0


def _load(servers: str, events: int, keys: int) -> None:
    producer = Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random", "linger.ms": 20})
    for number in range(events):
        value = b'{"amount":%d,"currency":"EUR"}' % (number % 1000)
        while True:
            try:
                producer.produce("payments", value, b"account-%d" % (number * 7919 % keys))
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


def _raw(servers: str, events: int, target: str) -> float:
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "raw",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 3,
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 5,
            "queue.buffering.max.messages": 200_000,
        }
    )
    consumer.assign([TopicPartition("payments", p, 0) for p in range(PARTITIONS)])
    done = 0
    began = 0.0
    while done < events:
        messages = consumer.consume(4_000, 0.005)
        if not messages:
            continue
        began = began or time.monotonic()
        for message in messages:
            while True:
                try:
                    producer.produce(target, message.value(), message.key())
                    break
                except BufferError:
                    producer.poll(0.05)
        producer.poll(0)
        done += len(messages)
    producer.flush()
    rate = done / (time.monotonic() - began)
    consumer.close()
    return rate


def _pipeline(servers: str, events: int, name: str, target: str, directory: Path) -> tuple[float, float]:
    settings = Settings(KafkaSettings(servers), WorkerSettings(state_dir=directory / name, worker_id="bench"))
    worker = build_worker(make_app(name, "payments", target), replace(settings))
    worker.start()
    gc.collect()
    gc.freeze()
    thresholds = gc.get_threshold()
    gc.set_threshold(100_000, 50, 100)
    began = cpu = 0.0
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        worker.step()
        progress = worker.progress()
        if progress.records and not began:
            began, cpu = time.monotonic(), time.process_time()
        if progress.records >= events and worker.idle:
            break
    elapsed, cpu = time.monotonic() - began, time.process_time() - cpu
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    worker.stop()
    worker.close()
    if progress.records != events or progress.outputs != events:
        raise SystemExit(f"benchmark broken: {progress}")
    return events / elapsed, cpu / events * 1e6
