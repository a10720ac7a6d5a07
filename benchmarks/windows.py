"""What a window costs: CPU seconds for each record of a tumbling sum, beside a running sum in a table.

Neither sends anything for a record. The sum of a window is published when it is over, one output for each key and
window. The records' timestamps are those of the load, which takes about ten seconds for a million events, so a row of
10,000 keys has about 50 events. The two take turns, and the
ratio is taken per turn, so that a drifting machine cancels out.
"""

from __future__ import annotations

import statistics
import tempfile
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.throughput import PARTITIONS, Balance, Payment, load, run_worker
from pipeline import App, ClosedWindow, Context, Event, KafkaSettings, Tumbling
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from pipeline.testing import LocalKafka

__all__ = ["EVENTS", "MOST", "run"]

EVENTS = 1_000_000
MOST = 1.5
WINDOW_S = 5
SOURCE, TARGET = "payments", "window-sums"
_NOTHING = Balance(0, 0)


def run(events: int, rounds: int, keys: int) -> int:
    """Measure and print; 1 when a window costs more than `MOST` of a table."""
    console = Console(highlight=False)
    table = Table("turn", "table records/s", "CPU µs", "window records/s", "CPU µs", "ratio", box=None)
    ratios = []
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-bench-") as workspace,
        LocalKafka(Path(workspace) / "kafka") as kafka,
        closing(KafkaCluster(KafkaSettings(kafka.bootstrap_servers))) as cluster,
    ):
        servers, directory = kafka.bootstrap_servers, Path(workspace)
        console.print(f"loading {events:,} events, {keys:,} keys, {PARTITIONS} partitions")
        cluster.create([TopicSpec(name, PARTITIONS) for name in (SOURCE, TARGET)])
        load(servers, SOURCE, range(events), keys)
        for turn in range(1, rounds + 1):
            found = [
                run_worker(servers, events, app, PARTITIONS, directory, outputs=None)
                for app in (_running_sum(turn), _sum_of_windows(turn))
            ]
            (rate, cpu_us), (window_rate, window_us) = found
            ratios.append(window_us / cpu_us)
            cells = f"{rate:,.0f}", f"{cpu_us:.2f}", f"{window_rate:,.0f}", f"{window_us:.2f}"
            table.add_row(str(turn), *cells, f"{ratios[-1]:.2f}")
    console.print(table)
    middle = statistics.median(ratios)
    console.print(
        f"windows: {middle:.2f} of the CPU seconds of a running sum for each record (median of {rounds}; at most "
        f"{MOST})"
    )
    return 0 if middle <= MOST else 1


def _running_sum(turn: int) -> App:
    app = App(f"bench-table-{turn}")
    payments = app.topic(SOURCE, key=str, value=Payment)
    sums = app.table("sums", key=str, value=Balance)

    @app.handler(payments)
    def add(event: Event[str, Payment], ctx: Context) -> None:
        table = ctx.table(sums)
        before = table.get(event.key, _NOTHING)
        table[event.key] = Balance(before.total + event.value.amount, before.count + 1)

    return app


def _sum_of_windows(turn: int) -> App:
    app = App(f"bench-window-{turn}")
    payments = app.topic(SOURCE, key=str, value=Payment)
    balances = app.topic(TARGET, key=str, value=Balance)
    sums = app.window("sums", key=str, value=Balance, size=Tumbling(WINDOW_S), grace_s=0, default=_NOTHING)

    @app.handler(payments)
    def add(event: Event[str, Payment], ctx: Context) -> None:
        for row in ctx.window(sums).rows(event):
            before = row.value
            row.value = Balance(before.total + event.value.amount, before.count + 1)

    @app.on_close(sums)
    def publish(closed: ClosedWindow[str, Balance], ctx: Context) -> None:
        ctx.send(balances, closed.key, closed.value)

    return app
