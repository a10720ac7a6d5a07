"""The cases: which job, on which systems, and what is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks.peers import live, throughput
from benchmarks.peers.bench import Bench, Job

__all__ = ["CASES", "Case", "Measure"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One column of a table. `more_is_better`: for the ratio, which is above 1 where this project is ahead."""

    key: str
    title: str
    digits: int = 0
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """`turn`: one turn of one system, which returns its values by measure. The first measure is the case's own."""

    title: str
    what: str
    job: Job
    systems: tuple[str, ...]
    measures: tuple[Measure, ...]
    turn: Callable[[Bench, Job, str, str], Mapping[str, float]]


RATE = (
    Measure("records_per_s", "records/s", more_is_better=True),
    Measure("cpu_us", "CPU µs per record", 1),
    Measure("peak_mb", "peak MB"),
)
LATENCY = (
    Measure("p50_ms", "p50, ms"),
    Measure("p99_ms", "p99, ms"),
    Measure("cpu_us", "CPU µs per record", 1),
)
RECOVERY = (Measure("all_s", "s until all partitions", 2), Measure("first_s", "s until the first", 2))
PARTITIONS = (
    Measure("live_s", "s until live", 1),
    Measure("threads", "threads"),
    Measure("descriptors", "descriptors"),
    Measure("rss_mb", "MB"),
    Measure("idle_percent", "idle, % of a core", 1),
    Measure("p50_ms", "p50, ms, 100 active"),
    Measure("p99_ms", "p99, ms, 100 active"),
    Measure("p50_all_ms", "p50, ms, all active"),
)
MEMORY = (Measure("mb_per_minute", "MB per minute", 1), Measure("rss_mb", "MB at the end"))
MOST_SENT = 1_000_000  # records of live traffic in one turn, at most
PEERS = ("ours", "ours-2", "streams-1", "streams-no-cache", "streams-2", "quix", "faust")
RAW = ("raw", "raw-consume", "raw-produce", "raw-transactions")


def _throughput(title: str, what: str, job: Job, systems: tuple[str, ...]) -> Case:
    return Case(title, what, job, systems, RATE, throughput.measure)


def _recovery(fault: str, title: str, what: str, systems: tuple[str, ...]) -> Case:
    job = Job("sum", MOST_SENT, 200_000, prompt=True)
    return Case(title, what, job, systems, RECOVERY, partial(live.recovery, fault=fault))


def _partitions(count: int) -> Case:
    return Case(
        f"{count:,} partitions on one worker",
        "A soft limit of 1,024 open files. Then 100 partitions get 10 records/s each, and then all of them, each 10 at "
        "once.",
        Job("sum", MOST_SENT, count, partitions=count, prompt=True, soft_files=1_024),
        ("ours", "streams-1", "quix"),
        PARTITIONS,
        live.partitions,
    )


CASES: Mapping[str, Case] = {
    "throughput-5k": _throughput(
        "Running sum, 5 thousand keys",
        "2 million records. The raw client forwards each record and keeps no sum.",
        Job("sum", 2_000_000, 5_000),
        (*PEERS, *RAW),
    ),
    "throughput-500k": _throughput(
        "Running sum, 500 thousand keys",
        "2 million records, four for each key.",
        Job("sum", 2_000_000, 500_000),
        (*PEERS, "raw"),
    ),
    "throughput-5m": _throughput(
        "Running sum, 5 million keys",
        "6 million records. The first five in six create a row.",
        Job("sum", 6_000_000, 5_000_000),
        (*PEERS, "raw"),
    ),
    "dedup": _throughput(
        "Running sum after duplicates are dropped",
        "1 million records with an id each, of which none is a duplicate; 5 thousand keys.",
        Job("dedup", 1_000_000, 5_000),
        ("ours", "ours-no-dedup", "streams-1", "quix", "faust"),
    ),
    "two-stages": _throughput(
        "Two stages",
        "1 million records. The sum of 5 thousand accounts, then that of 1 thousand branches, through a topic.",
        Job("two-stages", 1_000_000, 5_000),
        PEERS,
    ),
    "faust-app": _throughput(
        "A Faust application",
        "1 million records, 5 thousand keys. One module with the running sum, which Faust runs, and a worker of this "
        "project.",
        Job("sum", 1_000_000, 5_000),
        ("ours-faust-app", "faust-app", "faust-app-once"),
    ),
    "batch": _throughput(
        "Aggregation in batches",
        "4 million records, 5 thousand keys. A system may put out one sum for several records of a key.",
        Job("batch", 4_000_000, 5_000),
        ("ours", "streams-1", "raw-consume"),
    ),
    "large-values": _throughput(
        "Values of 10 kB",
        "60 thousand records with a text of 10 kB, which is part of each output as well.",
        Job("sum", 60_000, 5_000, note_bytes=10_000),
        (*PEERS, "raw"),
    ),
    "produce": _throughput(
        "Produce",
        "2 million events into a topic.",
        Job("sum", 2_000_000, 5_000),
        ("ours-producer", "raw-produce"),
    ),
    "latency": Case(
        "Latency",
        "10,000 records/s, 5 thousand keys. All commit every 100 ms, or as their defaults say if that is sooner.",
        Job("sum", MOST_SENT, 5_000, prompt=True),
        ("ours", "streams-1", "quix", "faust", "raw-transactions"),
        LATENCY,
        live.latency,
    ),
    "restart": _recovery(
        "restart",
        "Restart after SIGKILL",
        "200 thousand keys, 1,000 records/s; started again at once on the same disk.",
        ("ours", "streams-1", "quix", "faust"),
    ),
    "empty-disk": _recovery(
        "empty-disk",
        "Restart on an empty disk",
        "The same, but the state of the killed worker is deleted.",
        ("ours", "streams-1", "quix"),
    ),
    "take-over": _recovery(
        "take-over",
        "Take-over by another worker",
        "The same, but the killed worker does not return, and another worker runs beside it.",
        ("ours", "streams-1", "quix"),
    ),
    "partitions-300": _partitions(300),
    "partitions-1000": _partitions(1_000),
    "memory": Case(
        "Memory over time",
        "3,000 records/s for 150 s. Each of the first 200 thousand, in 67 s, has a new key. The growth is that of the "
        "last 100 s, of which 17 s have new keys.",
        Job("sum", MOST_SENT, 200_000, prompt=True),
        ("ours", "streams-1", "quix"),
        MEMORY,
        live.memory,
    ),
}
