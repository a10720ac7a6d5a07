"""What the HTTP port costs: CPU seconds per record with metrics and probes, relative to a worker without.

The running sum of `benchmarks.throughput`, by pairs of runs over the same events, in alternating order. In the run with
the port, another process scrapes the metrics every 5 s, as Prometheus does, and asks both probes every second. The CPU
time is that of the whole worker process, with the threads of the server and of the Kafka clients; it does not depend
much on what else the machine does. The ratio is taken per pair.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import structlog
from rich.console import Console
from rich.table import Table

from benchmarks import BenchmarkError
from benchmarks.throughput import PARTITIONS, load, make_app, run_worker
from pipeline import HttpSettings, KafkaSettings, WorkerSettings
from pipeline.http.port import StatusClients, WorkerPort
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ports import SystemClock, TopicSpec
from pipeline.testing import LocalKafka

__all__ = ["BOUND", "EVENTS", "PAIRS", "run"]

BOUND = 1.02
EVENTS = 2_000_000
PAIRS = 10
SOURCE = "payments"
_SCRAPES = """
import http.client, sys, time
connection, turns = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10), 0
while True:
    for path in ("/livez", "/readyz", *(["/metrics"] if turns % 5 == 0 else [])):
        try:
            connection.request("GET", path)
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            connection.close()  # the server ends old connections
        else:
            print(path, flush=True)
    turns += 1
    time.sleep(1)
"""


def run(events: int, pairs: int, keys: int) -> int:
    """Measure and print; 1 if the median ratio is above BOUND."""
    console = Console(highlight=False)
    table = Table("pair", "off, CPU µs", "on, CPU µs", "ratio", "scrapes", box=None)
    ratios = []
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-bench-") as workspace,
        LocalKafka(Path(workspace) / "kafka") as kafka,
        closing(KafkaCluster(KafkaSettings(kafka.bootstrap_servers))) as cluster,
    ):
        bench = _Bench(kafka.bootstrap_servers, cluster, Path(workspace), events)
        console.print(f"observe: loading {events:,} events, {keys:,} keys, {PARTITIONS} partitions")
        cluster.create([TopicSpec(SOURCE, PARTITIONS)])
        load(kafka.bootstrap_servers, SOURCE, range(events), keys)
        bench.off()  # the first run of a broker is slower
        for pair in range(1, pairs + 1):
            if pair % 2:
                off_us = bench.off()
                on_us, scrapes = bench.on()
            else:
                on_us, scrapes = bench.on()
                off_us = bench.off()
            ratios.append(on_us / off_us)
            table.add_row(str(pair), f"{off_us:.3f}", f"{on_us:.3f}", f"{ratios[-1]:.3f}", str(scrapes))
    console.print(table)
    ratio = statistics.median(ratios)
    verdict = "within" if ratio <= BOUND else "ABOVE"
    console.print(
        f"observe: CPU per record with the HTTP port is {ratio:.3f} of that without (median of {pairs} pairs, "
        f"{min(ratios):.3f} to {max(ratios):.3f}), {verdict} {BOUND}"
    )
    return int(ratio > BOUND)


class _Bench:
    """Runs of the same app under new names, over the same input."""

    def __init__(self, servers: str, cluster: KafkaCluster, directory: Path, events: int) -> None:
        self._servers, self._cluster, self._directory, self._events = servers, cluster, directory, events
        self._runs = 0

    def off(self) -> float:
        """CPU µs a record."""
        return self._run(None)

    def on(self) -> tuple[float, int]:
        """CPU µs a record, and the number of scrapes."""
        settings = KafkaSettings(self._servers)
        clients = StatusClients(lambda: self._cluster, lambda: KafkaJournalReader(settings))
        name = f"bench-{self._runs + 1}"
        port = WorkerPort(
            name, HttpSettings(), WorkerSettings(), clients, SystemClock(), structlog.get_logger("pipeline")
        )
        if not port.start():
            raise BenchmarkError("there is no free port")
        try:
            with _scraped(port.port) as asked:
                cpu_us = self._run(port)
        finally:
            port.stop()
        scrapes = asked.count("/metrics")
        if scrapes < 2:
            raise BenchmarkError(f"the run was scraped {scrapes} times: more --events are needed")
        return cpu_us, scrapes

    def _run(self, port: WorkerPort | None) -> float:
        self._runs += 1
        target = f"target-{self._runs}"
        self._cluster.create([TopicSpec(target, PARTITIONS)])
        app = make_app(f"bench-{self._runs}", SOURCE, target)
        _, cpu_us = run_worker(self._servers, self._events, app, PARTITIONS, self._directory, port)
        self._cluster.delete([target])
        return cpu_us


@contextmanager
def _scraped(port: int) -> Iterator[list[str]]:
    """Scrape from another process, whose CPU time does not count. The list has the answered paths at the end."""
    process = subprocess.Popen([sys.executable, "-c", _SCRAPES, str(port)], stdout=subprocess.PIPE, text=True)
    asked: list[str] = []
    try:
        yield asked
    finally:
        process.kill()
        asked += process.communicate()[0].split()
