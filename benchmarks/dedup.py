"""What dropping duplicates costs: records a second with and without it, and what many ids take on disk and in memory.

    1 The running sum of `benchmarks.throughput` as two apps that read the same topic, one of them deduplicated, process
      a few events each, so that there are tasks with states;
    2 the ids are put into the states of the deduplicated one, by the runtime's own table and store, but without Kafka:
      what is on disk then is what as many events would have left there, and the journals know nothing of it;
    3 in turns, new events are loaded, and both apps process them; none is a duplicate, which is the dearest case, since
      a duplicate runs no handler;
    4 the states are opened again, and ids are looked up that are there and that are not;
    5 the clock passes the time-to-live, and commits of one new id each forget old ones.

Nothing is bounded; the numbers are printed.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.throughput import PARTITIONS, load, make_app, run_worker
from pipeline import App, Dedup, KafkaSettings, WorkerSettings
from pipeline.api.context import RuntimeContext
from pipeline.api.declarations import declared_topic
from pipeline.api.table import TaskOverlay
from pipeline.core.dedup import digest, id_prefix
from pipeline.core.journal_format import Entry, EntryKind, encode_entry
from pipeline.core.names import EVENT_ID_HEADER, TaskId
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from pipeline.rocksdb.rocks import RocksStores
from pipeline.rocksdb.store import RocksStore
from pipeline.runtime.commit.journal_writer import CHUNK_BYTES
from pipeline.runtime.task.dedup import DedupTable
from pipeline.testing import LocalKafka, ManualClock

__all__ = ["EVENTS", "IDS", "Bench", "run"]

IDS = 10_000_000
EVENTS = 400_000
KEYS = 10_000
TTL_S = 24 * 3600
IDS_IN_A_COMMIT = 5_000
LOOKED_UP = 50_000
LOOKED_UP_AT_ONCE = 1_000
FORGETTING_COMMITS = 100
SOURCE = "payments"
_BUSY = ("rocksdb.num-running-compactions", "rocksdb.compaction-pending", "rocksdb.num-running-flushes")


@dataclass(frozen=True, slots=True)
class Seen:
    """As much of `ports.Record` as a dedup table looks at."""

    number: int
    timestamp_ms: int

    def headers(self) -> list[tuple[str, bytes]]:
        return [(EVENT_ID_HEADER, b"seen-%d" % self.number)]

    def timestamp(self) -> tuple[int, int]:
        return (1, self.timestamp_ms)


def run(ids: int, events: int, rounds: int) -> int:
    """Measure and print; 0."""
    console = Console(highlight=False)
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-bench-") as workspace,
        LocalKafka(Path(workspace) / "kafka") as kafka,
        closing(KafkaCluster(KafkaSettings(kafka.bootstrap_servers))) as cluster,
    ):
        cluster.create([TopicSpec(name, PARTITIONS) for name in (SOURCE, "sums-plain", "sums-dedup")])
        bench = Bench(kafka.bootstrap_servers, Path(workspace), ids)
        console.print(f"dedup: {ids:,} ids in {PARTITIONS} tasks")
        bench.turn(events // 10)  # 1
        filled = bench.fill()  # 2
        console.print(_throughput(bench, events, rounds))  # 3
        console.print(filled, soft_wrap=True)
        for line in bench.states():  # 4, 5
            console.print(line, soft_wrap=True)
    return 0


def _throughput(bench: Bench, events: int, rounds: int) -> Table:
    table = Table("turn", "records/s", "CPU µs", "with dedup", "CPU µs", "ratio", box=None)
    turns = [bench.turn(events) for _ in range(rounds)]
    for number, (plain, plain_us, rate, us) in enumerate(turns, 1):
        cells = (f"{plain:,.0f}", f"{plain_us:.2f}", f"{rate:,.0f}", f"{us:.2f}", f"{rate / plain:.2f}")
        table.add_row(str(number), *cells)
    middle = [median(column) for column in zip(*turns, strict=True)]
    share = median(rate / plain for plain, _, rate, _ in turns)
    table.add_row(
        "median",
        f"{middle[0]:,.0f}",
        f"{middle[1]:.2f}",
        f"{middle[2]:,.0f}",
        f"{middle[3]:.2f}",
        f"{share:.2f}",
    )
    return table


class Bench:
    """Two apps with states of their own, and the deduplicated one's states."""

    def __init__(self, servers: str, directory: Path, ids: int) -> None:
        self._servers, self._directory, self._ids = servers, directory, ids
        self._loaded = 0
        self._now_ms = time.time_ns() // 1_000_000
        self._topic = App("shape").topic(SOURCE, value=bytes, dedup=Dedup(ttl_s=TTL_S))
        self._tasks = [TaskId("bench-dedup", "main", partition) for partition in range(PARTITIONS)]

    def turn(self, events: int) -> tuple[float, float, float, float]:
        """(records/s, CPU µs a record) without and with dedup, of so many new events."""
        load(self._servers, SOURCE, range(self._loaded, self._loaded + events), KEYS, ids=True)
        self._loaded += events
        plain = make_app("bench-plain", SOURCE, "sums-plain")
        deduplicated = make_app("bench-dedup", SOURCE, "sums-dedup", Dedup(ttl_s=TTL_S))
        found = [
            run_worker(self._servers, events, app, PARTITIONS, self._directory)
            for app in (plain, deduplicated)
        ]
        return (*found[0], *found[1])

    def fill(self) -> str:
        """Remember the ids, spread over the hour before now; what it took."""
        stores = self._stores()
        each = self._ids // PARTITIONS
        began_s, cpu_s, journal = time.monotonic(), time.process_time(), 0
        for task in self._tasks:
            with closing(stores.open(task)) as store:
                table, position = self._table(store, self._now_ms), store.position() or b""
                for start in range(0, each, IDS_IN_A_COMMIT):
                    ago_ms = 3_600_000 * (each - start) // each
                    numbers = range(start, min(start + IDS_IN_A_COMMIT, each))
                    _process(table, [Seen(number, self._now_ms - ago_ms) for number in numbers])
                    writes = dict(table.take_writes())
                    store.apply(writes, position)
                    if not start:
                        entry = Entry(EntryKind.COMMIT, 2, "bench", b"", {}, writes)
                        journal = sum(map(len, encode_entry(entry, bytes(15) + b"x", CHUNK_BYTES)[0])) // len(
                            numbers
                        )
                _settle(store)
        cpu_us = (time.process_time() - cpu_s) / self._ids * 1e6
        return (
            f"dedup, filled in {time.monotonic() - began_s:.0f} s without Kafka, {cpu_us:.1f} µs of CPU an id with "
            f"compactions: {journal} bytes of journal an id"
        )

    def states(self) -> Iterator[str]:
        """Reopen, look up and forget; a line about each."""
        began_s = time.monotonic()
        stores = self._stores()
        opened = [stores.open(task) for task in self._tasks]
        for store in opened:
            _process(self._table(store, self._now_ms), [Seen(self._ids, self._now_ms)])
        reopened_s = time.monotonic() - began_s
        disk = sum(file.stat().st_size for task in self._tasks for file in stores.path(task).iterdir())
        filters = sum(_filter_bytes(store) for store in opened)
        yield (
            f"dedup, on disk: {disk / 1e6:,.0f} MB, {disk / self._ids:.1f} bytes an id, "
            f"{filters / self._ids:.2f} of filters; "
            f"all {PARTITIONS} states open and asked once after {reopened_s * 1000:,.0f} ms"
        )
        each = self._ids // PARTITIONS
        there = [_lookup(store, range(0, each, max(1, each // LOOKED_UP))) for store in opened]
        absent = [_lookup(store, range(each, each + LOOKED_UP)) for store in opened]
        yield (
            f"dedup, look-ups, {LOOKED_UP_AT_ONCE:,} at once: {median(absent):.2f} µs for a new id, "
            f"{median(there):.2f} µs for one that is there (CPU); the block cache, with the filters, holds "
            f"{int(opened[0].figure('rocksdb.block-cache-usage')) / 1e6:,.0f} MB of "
            f"{WorkerSettings().block_cache_bytes / 1e6:,.0f}, the whole process {_resident_bytes() / 1e6:,.0f} MB"
        )
        yield self._forget(opened[0])
        for store in opened:
            store.close()

    def _forget(self, store: RocksStore) -> str:
        later_ms = self._now_ms + 10 * 1000 * TTL_S
        table, position = self._table(store, later_ms), store.position() or b""
        forgotten, read_s, written_s = 0, 0.0, 0.0
        for number in range(FORGETTING_COMMITS):
            _process(table, [Seen(self._ids + number, later_ms)])
            began_s = time.process_time()
            writes = table.take_writes()
            read_s += time.process_time() - began_s
            began_s = time.process_time()
            store.apply(writes, position)
            written_s += time.process_time() - began_s
            prefix = id_prefix(SOURCE)
            forgotten += sum(value is None and key.startswith(prefix) for key, value in writes.items())
        most = f"{forgotten / FORGETTING_COMMITS:,.0f} a commit"
        if not forgotten:
            return "dedup, forgotten: nothing"
        return (
            f"dedup, forgotten: {forgotten:,} ids, {most}: {read_s / forgotten * 1e6:.2f} µs to find one and "
            f"{written_s / forgotten * 1e6:.2f} µs to delete it (CPU)"
        )

    def _table(self, store: RocksStore, wall_ms: int) -> DedupTable:
        context = RuntimeContext({}, {}, lambda resource: resource.factory())
        return DedupTable(declared_topic(self._topic), store, TaskOverlay(), context, ManualClock(wall_ms))

    def _stores(self) -> RocksStores:
        return RocksStores(self._directory / "bench-dedup", WorkerSettings().block_cache_bytes)


def _process(table: DedupTable, records: Sequence[Seen]) -> None:
    for _ in table.unique(records, _fail):  # type: ignore[arg-type]  # it looks at nothing else
        pass


def _fail(_record: object, error: BaseException) -> None:
    raise error


def _lookup(store: RocksStore, numbers: range) -> float:
    """CPU µs an id."""
    keys = [id_prefix(SOURCE) + digest(b"seen-%d" % number) for number in numbers]
    parts = [keys[start : start + LOOKED_UP_AT_ONCE] for start in range(0, len(keys), LOOKED_UP_AT_ONCE)]
    began_s = time.process_time()
    for part in parts:
        store.get_many(part)
    return (time.process_time() - began_s) / len(keys) * 1e6


def _settle(store: RocksStore) -> None:
    """Wait for compactions: what they hold twice meanwhile is no part of the table."""
    while any(store.figure(name) != "0" for name in _BUSY):
        time.sleep(0.05)


def _filter_bytes(store: RocksStore) -> int:
    found = re.search(r"filter block size=(\d+)", store.figure("rocksdb.aggregated-table-properties"))
    return int(found.group(1)) if found else 0


def _resident_bytes() -> int:
    """Of this process; 0 where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * 4096
