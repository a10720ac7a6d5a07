"""The worker that `benchmarks.soak` watches, and the load beside it, each in a process of its own.

    python -m benchmarks.soak_worker work SERVERS DIRECTORY SECONDS
    python -m benchmarks.soak_worker load SERVERS RATE KEYS

The worker prints a JSON object every SECONDS: where its memory is, according to each allocator. Two stages: `count`
drops duplicates by ids that live for 120 s, and keeps a running sum for each key; `check` keeps the last sum.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
import time
from pathlib import Path

import msgspec
import structlog
from confluent_kafka import Producer

from benchmarks import NOT_DECLARED
from pipeline import App, Context, Dedup, Event, HttpSettings, KafkaSettings, Settings, WorkerSettings
from pipeline.app import declared_app
from pipeline.core.names import EVENT_ID_HEADER
from pipeline.http.documents import PageApp
from pipeline.http.port import WorkerPort
from pipeline.http.worker_metrics import WorkerMetrics
from pipeline.ports import SystemClock
from pipeline.processes.observers import Observers, status_clients
from pipeline.processes.wiring import build_worker, run_worker
from pipeline.runtime.worker import Worker

__all__ = ["EVENTS", "NAME", "SUMS", "TTL_S", "make_app"]

NAME = "soak"
EVENTS = "soak-events"
SUMS = "soak-sums"
TTL_S = 120
CHECKPOINT_S = 20.0
BATCH_S = 0.05
BLOCK_CACHE_BYTES = 64 * 1024 * 1024  # full before the first ten minutes are over


class Payment(msgspec.Struct, frozen=True):
    """An input event."""

    amount: int
    currency: str


class Sum(msgspec.Struct, frozen=True):
    """The running sum of a key."""

    total: int
    count: int


def make_app() -> App:
    """The app under load."""
    app = App(NAME)
    events = app.topic(EVENTS, key=str, value=Payment, dedup=Dedup(ttl_s=TTL_S))
    sums = app.topic(SUMS, key=str, value=Sum)
    count, check = app.group("count"), app.group("check")
    totals = count.table("totals", key=str, value=Sum)
    last = check.table("last", key=str, value=Sum)
    nothing = Sum(0, 0)

    @count.handler(events)
    def add(event: Event[str, Payment], ctx: Context) -> None:
        table = ctx.table(totals)
        before = table.get(event.key, nothing)
        table[event.key] = after = Sum(before.total + event.value.amount, before.count + 1)
        ctx.send(sums, event.key, after)

    @check.handler(sums)
    def keep(event: Event[str, Sum], ctx: Context) -> None:
        ctx.table(last)[event.key] = event.value

    return app


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc: the sums over all of its arenas."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def _glibc() -> dict[str, int]:
    """Bytes that are in use, and bytes that glibc holds free; empty with another C library."""
    try:
        mallinfo2 = ctypes.CDLL("libc.so.6").mallinfo2
    except (OSError, AttributeError):
        return {}
    mallinfo2.restype = _MallInfo
    found = mallinfo2()
    return {"native_bytes": found.uordblks + found.hblkhd, "native_free_bytes": found.fordblks}


def measured(worker: Worker) -> dict[str, int]:
    """Where the memory of this process is. Reads only counters: about 10 ms with 48 tasks."""
    progress = worker.progress()
    tasks = [task for run in worker.runs for task in list(run.tasks.values())]
    stores = [store for task in tasks if (store := getattr(task, "store", None)) is not None]
    usages = [usage for store in stores if (usage := store.usage()) is not None]
    return {
        "records": progress.records,
        "commits": progress.commits,
        "live": progress.live,
        "failed": progress.failed,
        "python_blocks": sys.getallocatedblocks(),
        **_glibc(),
        "memtable_bytes": sum(usage.memtable_bytes for usage in usages),
        "table_reader_bytes": sum(usage.table_reader_bytes for usage in usages),
        "block_cache_bytes": max((usage.block_cache_bytes for usage in usages), default=0),
        "threads": threading.active_count(),
    }


def _until_input_ends() -> threading.Event:
    """Set when the process that started this one ends, or asks it to stop."""
    ended = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    return ended


def work(servers: str, directory: str, seconds: str) -> None:
    """Run the worker until its standard input ends."""
    place = Path(directory)
    settings = Settings(
        KafkaSettings(servers),
        WorkerSettings(
            state_dir=place / "state",
            worker_id="soak",
            checkpoint_store=f"file://{place / 'checkpoints'}",
            checkpoint_interval_s=CHECKPOINT_S,
            checkpoint_grace_s=60.0,
            block_cache_bytes=BLOCK_CACHE_BYTES,
            topics_dir=NOT_DECLARED,
        ),
    )
    stop = _until_input_ends()
    app = declared_app(make_app())
    log = structlog.get_logger("pipeline")
    metrics = WorkerMetrics(NAME, status_clients(settings.kafka), SystemClock())
    port = WorkerPort(PageApp(NAME, None), HttpSettings(), WorkerSettings(), metrics, log)
    if not port.start():
        raise SystemExit("there is no free port")
    observers = Observers(metrics, port)
    worker = build_worker(app, settings, stop=stop, observers=observers)
    due_s = 0.0

    def report(_progress: object, _departure: object) -> None:
        nonlocal due_s
        if time.monotonic() >= due_s:
            due_s = time.monotonic() + float(seconds)
            print(json.dumps(measured(worker)), flush=True)

    run_worker(worker, stop, settings.worker, report, observers)


def load(servers: str, rate: str, keys: str) -> None:
    """Produce events at a rate until standard input ends. Late batches are made up for."""
    stop = _until_input_ends()
    producer = Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random", "linger.ms": 20})
    began_s, done = time.monotonic(), 0
    while not stop.is_set():
        due = int((time.monotonic() - began_s) * int(rate))
        try:
            while done < due:
                producer.produce(
                    EVENTS,
                    b'{"amount":%d,"currency":"EUR"}' % (done % 1000),
                    b"account-%d" % (done * 7919 % int(keys)),
                    headers=[(EVENT_ID_HEADER, b"event-%d" % done)],
                )
                done += 1
        except BufferError:
            pass  # the broker is slow; the rest follows
        producer.poll(0)
        time.sleep(BATCH_S)
    producer.purge()
    producer.flush(1.0)


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(30),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    {"work": work, "load": load}[sys.argv[1]](*sys.argv[2:])
