"""What the HTTP port costs: CPU seconds per record with metrics and probes, relative to a worker without.

The running sum of `benchmarks.throughput`, by pairs of workers in processes of their own, which process the same
events at the same time. So whatever else the machine does, it does to both. The order in which they start alternates.
One of them has the port, and another process asks for its metrics and both probes every 5 s. The CPU time is that of
the whole worker process, with the threads of the server and of the Kafka clients. The ratio is taken per pair.

The port costs CPU time per second, not per record. So a machine that other programs slow down shows a higher ratio.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import BenchmarkError
from benchmarks.throughput import PARTITIONS, load
from pipeline import KafkaSettings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from pipeline.testing import LocalKafka

__all__ = ["BOUND", "EVENTS", "PAIRS", "run"]

BOUND = 1.02
EVENTS = 2_000_000
PAIRS = 10
SOURCE = "payments"
_SCRAPES = """
import http.client, sys, time
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
while True:
    for path in ("/livez", "/readyz", "/metrics"):
        try:
            connection.request("GET", path)
            with connection.getresponse() as answer:
                answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()  # the server ends old connections
        else:
            print(path, flush=True)
    time.sleep(5)
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
        console.print(f"observe: loading {events:,} events, {keys:,} keys, {PARTITIONS} partitions")
        cluster.create([TopicSpec(SOURCE, PARTITIONS)])
        load(kafka.bootstrap_servers, SOURCE, range(events), keys)
        for pair in range(1, pairs + 1):
            off_us, on_us, scrapes = _pair(kafka.bootstrap_servers, cluster, Path(workspace), events, pair)
            ratios.append(on_us / off_us)
            table.add_row(str(pair), f"{off_us:.3f}", f"{on_us:.3f}", f"{ratios[-1]:.3f}", str(scrapes))
    console.print(table)
    ratio = statistics.median(ratios)
    verdict = "within" if ratio <= BOUND else "ABOVE"
    console.print(
        f"observe: CPU per record with the HTTP port is {ratio:.3f} of that without (median of {pairs} pairs, "
        f"{min(ratios):.3f} to {max(ratios):.3f}), {verdict} {BOUND}",
        soft_wrap=True,
    )
    return int(ratio > BOUND)


def _pair(
    servers: str, cluster: KafkaCluster, directory: Path, events: int, pair: int
) -> tuple[float, float, int]:
    """CPU µs a record without the port and with it, and the number of scrapes."""
    ports = ("off", "on") if pair % 2 else ("on", "off")
    targets = {port: f"target-{pair}-{port}" for port in ports}
    cluster.create([TopicSpec(target, PARTITIONS) for target in targets.values()])
    with ExitStack() as stack:
        workers = {}
        for port in ports:
            name = f"bench-{pair}-{port}"
            command = [servers, name, SOURCE, targets[port], str(directory), str(events), port]
            workers[port] = stack.enter_context(_started("-m", "benchmarks.observe_worker", *command))
        address = _line(workers["on"])
        _line(workers["off"])
        scraper = stack.enter_context(_started("-c", _SCRAPES, address))
        cpu_us = {port: float(_line(worker)) for port, worker in workers.items()}
        scraper.kill()
        scrapes = scraper.communicate()[0].split().count("/metrics")
    cluster.delete(list(targets.values()))
    if scrapes < 2:
        raise BenchmarkError(f"the worker was scraped {scrapes} times: more --events are needed")
    return cpu_us["off"], cpu_us["on"], scrapes


def _started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)


def _line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline().strip() if process.stdout is not None else ""
    if not line:
        raise BenchmarkError("a worker has ended without a result; its error is above")
    return line
