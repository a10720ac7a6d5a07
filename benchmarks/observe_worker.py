"""One worker of `benchmarks.observe`: processes the input and prints the CPU time per record of its process."""

from __future__ import annotations

import sys
from pathlib import Path

import structlog

from benchmarks.throughput import PARTITIONS, make_app, run_worker
from pipeline import HttpSettings, KafkaSettings, WorkerSettings
from pipeline.http.documents import PageApp
from pipeline.http.port import WorkerPort
from pipeline.http.worker_metrics import WorkerMetrics
from pipeline.ports import SystemClock
from pipeline.processes.observers import status_clients

__all__ = ["main"]


def main(servers: str, name: str, source: str, target: str, directory: str, events: str, port: str) -> None:
    """Run it. `port`: `on` or `off`. The port that is chosen is the first line of the output."""
    opened = _open(servers, name) if port == "on" else None
    print(opened.port if opened is not None else "-", flush=True)
    app = make_app(name, source, target)
    _, cpu_us = run_worker(servers, int(events), app, PARTITIONS, Path(directory), opened)
    print(cpu_us, flush=True)
    if opened is not None:
        opened.stop()


def _open(servers: str, name: str) -> WorkerPort:
    settings = KafkaSettings(servers)
    log = structlog.get_logger("pipeline")
    metrics = WorkerMetrics(name, status_clients(settings), SystemClock())
    port = WorkerPort(PageApp(name, None), HttpSettings(), WorkerSettings(), metrics, log)
    if not port.start():
        raise SystemExit("there is no free port")
    return port


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(30),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    main(*sys.argv[1:])
