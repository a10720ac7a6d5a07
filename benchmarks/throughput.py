"""Records per second of a running sum, exactly-once, beside the raw client in the same process.

Input: JSON events. Raw: consume each record and produce it again, idempotent, no transaction,
no state: what the client costs by itself. Pipeline: decode, add to a table, publish the sum, with journal and
transactions. The two take turns, and the ratio is taken per turn, so that a drifting machine cancels out.

`run_partitions` compares 64 tasks on one worker with 4, in turns: the same events, sixteen times as many commits.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition
from rich.console import Console
from rich.table import Table

from benchmarks import NOT_DECLARED
from pipeline import App, Context, Dedup, Event, KafkaSettings, Settings, WorkerSettings
from pipeline.app import declared_app
from pipeline.core.names import EVENT_ID_HEADER
from pipeline.http.port import WorkerPort
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from pipeline.processes.observers import UNOBSERVED, Observers
from pipeline.processes.wiring import PROGRESS_INTERVAL_S, build_worker
from pipeline.testing import LocalKafka

PARTITIONS = 4
MANY = 64
KEPT = 0.8
DEADLINE_S = 300.0


class Payment(msgspec.Struct, frozen=True):
    """An input event."""

    amount: int
    currency: str


class Balance(msgspec.Struct, frozen=True):
    """An output: the running sum of a key."""

    total: int
    count: int


def make_app(name: str, source: str, target: str, dedup: Dedup[str, Payment] | None = None) -> App:
    """The running sum as an app."""
    app = App(name)
    payments = app.topic(source, key=str, value=Payment, dedup=dedup)
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
    with _Bench(events, keys, [PARTITIONS], console) as bench:
        for turn in range(1, rounds + 1):
            raw = bench.raw(PARTITIONS)
            rate, cpu_us = bench.pipeline(PARTITIONS)
            rates.append(rate)
            ratios.append(rate / raw)
            table.add_row(str(turn), f"{raw:,.0f}", f"{rate:,.0f}", f"{rate / raw:.2f}", f"{cpu_us:.2f}")
    console.print(table)
    console.print(
        f"throughput: {statistics.median(rates):,.0f} records/s exactly-once, "
        f"{statistics.median(ratios):.2f} of raw consume + produce (median of {rounds})"
    )
    return 0


def run_partitions(events: int, rounds: int, keys: int) -> int:
    """Measure and print; 1 when many partitions keep less than `KEPT` of the throughput."""
    console = Console(highlight=False)
    table = Table(
        "turn", f"{PARTITIONS} partitions", "CPU µs", f"{MANY} partitions", "CPU µs", "kept", box=None
    )
    kept = []
    with _Bench(events, keys, [PARTITIONS, MANY], console) as bench:
        for turn in range(1, rounds + 1):
            few, few_us = bench.pipeline(PARTITIONS)
            many, many_us = bench.pipeline(MANY)
            kept.append(many / few)
            table.add_row(
                str(turn), f"{few:,.0f}", f"{few_us:.2f}", f"{many:,.0f}", f"{many_us:.2f}", f"{kept[-1]:.2f}"
            )
    console.print(table)
    share = statistics.median(kept)
    console.print(
        f"partitions: {MANY} on one worker keep {share:.2f} of the records/s of {PARTITIONS} (median of {rounds}; "
        f"at least {KEPT})"
    )
    return 0 if share >= KEPT else 1


class _Bench:
    """A Kafka with the events loaded, once for each number of partitions."""

    def __init__(self, events: int, keys: int, partitions: list[int], console: Console) -> None:
        self._events, self._keys, self._partitions, self._console = events, keys, partitions, console
        self._runs = 0

    def __enter__(self) -> _Bench:
        self._stack = ExitStack()
        workspace = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pipeline-bench-"))
        self._directory = Path(workspace)
        self._servers = self._stack.enter_context(LocalKafka(self._directory / "kafka")).bootstrap_servers
        self._cluster = self._stack.enter_context(closing(KafkaCluster(KafkaSettings(self._servers))))
        for count in self._partitions:
            self._console.print(f"loading {self._events:,} events, {self._keys:,} keys, {count} partitions")
            self._cluster.create([TopicSpec(f"payments-{count}", count)])
            load(self._servers, f"payments-{count}", range(self._events), self._keys)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def raw(self, partitions: int) -> float:
        """Records a second."""
        target = self._target(partitions)
        return _raw(self._servers, self._events, f"payments-{partitions}", target, partitions)

    def pipeline(self, partitions: int) -> tuple[float, float]:
        """(records a second, CPU µs a record)."""
        target = self._target(partitions)
        app = make_app(f"bench-{self._runs}", f"payments-{partitions}", target)
        return run_worker(self._servers, self._events, app, partitions, self._directory)

    def _target(self, partitions: int) -> str:
        self._runs += 1
        name = f"target-{self._runs}"
        self._cluster.create([TopicSpec(name, partitions)])
        return name


def load(servers: str, topic: str, events: range, keys: int, *, ids: bool = False) -> None:
    """Produce an event for each number. `ids`: the number is its id."""
    producer = Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random", "linger.ms": 20})
    for number in events:
        headers: list[tuple[str, str | bytes | None]] | None = None
        if ids:
            headers = [(EVENT_ID_HEADER, b"event-%d" % number)]
        value = b'{"amount":%d,"currency":"EUR"}' % (number % 1000)
        while True:
            try:
                producer.produce(topic, value, b"account-%d" % (number * 7919 % keys), headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


def _raw(servers: str, events: int, source: str, target: str, partitions: int) -> float:
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
    consumer.assign([TopicPartition(source, p, 0) for p in range(partitions)])
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


def run_worker(
    servers: str,
    events: int,
    app: App,
    partitions: int,
    directory: Path,
    port: WorkerPort | None = None,
    *,
    outputs: int | None = 1,
) -> tuple[float, float]:
    """(records a second, CPU µs a record) for so many events that are in the input and not processed yet.

    `outputs`: of each record; None: any number.

    The clock runs once all tasks are live, and nothing is read before: a start is not what is measured."""
    state_dir = directory / app.name
    settings = Settings(
        KafkaSettings(servers),
        WorkerSettings(state_dir=state_dir, worker_id="bench", topics_dir=NOT_DECLARED),
    )
    observers = Observers(port.metrics, port) if port is not None else UNOBSERVED
    worker = build_worker(declared_app(app), settings, observers=observers)
    worker.start()
    gc.collect()
    gc.freeze()
    thresholds = gc.get_threshold()
    gc.set_threshold(100_000, 50, 100)
    deadline = time.monotonic() + DEADLINE_S
    read, worker._poll = worker._poll, lambda _run, _timeout_s: False  # type: ignore[method-assign,assignment]  # noqa: SLF001
    while worker.progress().live < partitions and time.monotonic() < deadline:
        worker.step()
        time.sleep(0.005)
    worker._poll = read  # type: ignore[method-assign]  # noqa: SLF001
    if port is not None:
        port.running(lambda: worker.mark, worker.row_queries)
    began, cpu = time.monotonic(), time.process_time()
    next_publish_s = began
    while time.monotonic() < deadline:
        worker.step()
        if port is not None and time.monotonic() >= next_publish_s:
            next_publish_s += PROGRESS_INTERVAL_S
            port.metrics.publish(worker.figures())
        progress = worker.progress()
        if progress.records >= events and worker.idle:
            break
    elapsed, cpu = time.monotonic() - began, time.process_time() - cpu
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    worker.stop()
    worker.close()
    if progress.records != events or outputs not in {None, progress.outputs // events}:
        raise SystemExit(f"benchmark broken: {progress}")
    return events / elapsed, cpu / events * 1e6
