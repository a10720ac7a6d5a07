"""What async handlers cost, and what they gain.

1. The running sum as a plain handler and as an async one that awaits nothing, in alternating pairs: CPU time of the
   whole process for each record. The median ratio is at most MOST_RATIO.
2. CALLS calls of CALL_S in one worker with CONCURRENCY: seconds from the first start to the last end. At least
   CALLS * CALL_S / CONCURRENCY, at most MOST_S. The calls of each key run one after the other, in order.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path

from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from benchmarks.throughput import PARTITIONS, Balance, Payment, load, make_app, run_worker
from pipeline import App, AsyncContext, Event, KafkaSettings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from pipeline.testing import LocalKafka

EVENTS = 200_000
KEYS = 10_000
PAIRS = 10
MOST_RATIO = 2.0
CALLS = 1_000
CALL_S = 0.1
CALL_KEYS = 250
CONCURRENCY = 64
MOST_S = 2.0


def run(events: int, pairs: int) -> int:
    """Measure and print; 1 if a bound does not hold."""
    console = Console(highlight=False)
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-bench-") as workspace,
        LocalKafka(Path(workspace) / "kafka") as kafka,
        closing(KafkaCluster(KafkaSettings(kafka.bootstrap_servers))) as cluster,
    ):
        bench = _Bench(kafka.bootstrap_servers, cluster, Path(workspace), console)
        ratio = bench.compare(events, pairs)
        seconds = bench.wait()
    console.print(
        f"async: a handler that awaits nothing costs {ratio:.2f} of a plain one (median of {pairs} pairs; at most "
        f"{MOST_RATIO:g}); {CALLS:,} calls of {CALL_S:g} s with concurrency {CONCURRENCY} take {seconds:.2f} s "
        f"(at most {MOST_S:g})"
    )
    return 0 if ratio <= MOST_RATIO and seconds <= MOST_S else 1


class _Bench:
    """A Kafka, and the workers on it."""

    def __init__(self, servers: str, cluster: KafkaCluster, directory: Path, console: Console) -> None:
        self._servers, self._cluster, self._directory, self._console = servers, cluster, directory, console

    def compare(self, events: int, pairs: int) -> float:
        """The median ratio of CPU time, async to plain."""
        self._console.print(f"loading {events:,} events, {KEYS:,} keys, {PARTITIONS} partitions")
        self._cluster.create([TopicSpec("payments", PARTITIONS)])
        load(self._servers, "payments", range(events), KEYS)
        table = Table("pair", "plain CPU µs", "async CPU µs", "ratio", "plain records/s", "async", box=None)
        ratios = []
        for pair in range(1, pairs + 1):
            measured = {}
            for kind in ("plain", "async") if pair % 2 else ("async", "plain"):
                name = f"{kind}-{pair}"
                self._cluster.create([TopicSpec(f"out-{name}", PARTITIONS)])
                make = make_app if kind == "plain" else _make_async_app
                app = make(name, "payments", f"out-{name}")
                measured[kind] = run_worker(self._servers, events, app, PARTITIONS, self._directory)
            (plain, plain_us), (other, other_us) = measured["plain"], measured["async"]
            ratios.append(other_us / plain_us)
            table.add_row(
                str(pair),
                f"{plain_us:.2f}",
                f"{other_us:.2f}",
                f"{ratios[-1]:.2f}",
                f"{plain:,.0f}",
                f"{other:,.0f}",
            )
        self._console.print(table)
        return statistics.median(ratios)

    def wait(self) -> float:
        """The seconds that the calls take. Raises SystemExit if the order of a key is wrong."""
        self._cluster.create([TopicSpec(name, PARTITIONS) for name in ("calls", "answers")])
        producer = Producer({"bootstrap.servers": self._servers, "partitioner": "murmur2_random"})
        for number in range(CALLS):
            producer.produce("calls", b"%d" % number, b"k%d" % (number % CALL_KEYS))
        producer.flush()
        app = App("waits")
        calls = app.topic("calls", key=str, value=int)
        answers = app.topic("answers", key=str, value=int)
        times: list[float] = []
        order: dict[str, list[tuple[str, int]]] = defaultdict(list)

        @app.async_handler(calls, concurrency=CONCURRENCY)
        async def wait(event: Event[str, int], ctx: AsyncContext) -> None:
            times.append(time.monotonic())
            order[event.key].append(("start", event.value))
            await asyncio.sleep(CALL_S)
            order[event.key].append(("end", event.value))
            times.append(time.monotonic())
            ctx.send(answers, event.key, event.value)

        run_worker(self._servers, CALLS, app, PARTITIONS, self._directory)
        for key, found in order.items():
            first = int(key[1:])
            expected = [
                (what, number) for number in range(first, CALLS, CALL_KEYS) for what in ("start", "end")
            ]
            if found != expected:
                raise SystemExit(f"benchmark broken: the calls of {key} were {found}")
        return max(times) - min(times)


def _make_async_app(name: str, source: str, target: str) -> App:
    """The running sum of `make_app`, with an async handler that awaits nothing."""
    app = App(name)
    payments = app.topic(source, key=str, value=Payment)
    balances = app.topic(target, key=str, value=Balance)
    sums = app.table("sums", key=str, value=Balance)
    nothing = Balance(0, 0)

    @app.async_handler(payments)
    async def add(event: Event[str, Payment], ctx: AsyncContext) -> None:
        row = ctx.row(sums, event)
        before = row.get(nothing)
        after = Balance(before.total + event.value.amount, before.count + 1)
        row.value = after
        ctx.send(balances, event.key, after)

    return app
