"""Builds and runs a worker on Kafka and RocksDB from an app and its settings."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING

import structlog

from pipeline.api.app import DeclaredApp
from pipeline.config import (
    DEFAULT_TOPICS_DIR,
    WORKER_STARTUP_WAIT_S,
    KafkaSettings,
    Settings,
    WorkerSettings,
)
from pipeline.core.departures import DepartureRecord
from pipeline.databases import RealDatabases
from pipeline.errors import ConfigError, FatalTaskError, PipelineError, UnreachableError
from pipeline.kafka.clients import ProducerLimits
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.members import KafkaMembers
from pipeline.kafka.producer import KafkaProducers
from pipeline.kafka.reachable import StartupWait
from pipeline.kafka.source import KafkaSources
from pipeline.object_store.checkpoint_store import open_checkpoint_store
from pipeline.peers.address import http_address
from pipeline.peers.sockets import PeerSockets
from pipeline.ports import Logger, Steps, SystemClock, error_fields
from pipeline.processes.companion import Companion
from pipeline.processes.native_memory import tuned_allocator
from pipeline.processes.observers import UNOBSERVED, Observers, observed
from pipeline.processes.signals import Watch, heard_signals
from pipeline.processes.system import (
    SystemRandom,
    ThreadExecutor,
    demand_of,
    process_began_s,
    require_descriptors,
)
from pipeline.rocksdb.crash_files import CrashFiles
from pipeline.rocksdb.rocks import RocksStores
from pipeline.runtime.dead_letter_topics import dead_letter_topics
from pipeline.runtime.environment import Checkpoints, Environment, NoSteps
from pipeline.runtime.metrics.figures import WorkerCounters
from pipeline.runtime.worker import Worker

if TYPE_CHECKING:
    from pipeline.http.documents import DrillReports
    from pipeline.http.worker_metrics import WorkerMetrics

__all__ = [
    "DepartureNotes",
    "Report",
    "build_environment",
    "build_worker",
    "run_app",
    "run_worker",
    "with_worker_id",
]

Report = Callable[[WorkerCounters, DepartureRecord], None]

PROGRESS_INTERVAL_S = 1.0
REPEAT_S = 10.0  # between two log events while the start waits
TRANSFERS = 4  # files that are copied at the same time


def producer_limits(settings: Settings, message_bytes: dict[str, int]) -> ProducerLimits:
    """The limits of the producers of this process. `message_bytes` has max.message.bytes by topic."""
    return ProducerLimits(
        transaction_timeout_ms=settings.worker.transaction_timeout_ms,
        retry_backoff_ms=settings.worker.retry_backoff_ms,
        message_bytes=message_bytes,
    )


class DepartureNotes:
    """Writes the departures of a supervisor's processes, on a thread, with a client that the first one opens."""

    def __init__(self, settings: KafkaSettings, log: Logger) -> None:
        self._settings = settings
        self._log = log
        self._members: KafkaMembers | None = None
        self._executor: ThreadExecutor | None = None

    def write(self, record: DepartureRecord) -> None:
        """Write the record soon. If this fails, the others learn of the end from their connections, or from Kafka."""
        if self._members is None or self._executor is None:
            self._members, self._executor = KafkaMembers(self._settings), ThreadExecutor(1)
        members = self._members

        def announce() -> None:
            try:
                members.announce(record.topic, [(record.key, record.value)])
            except PipelineError as error:
                self._log.info("notes_not_written", **error_fields(error))

        self._executor.submit(announce)


class WorkerWait:
    """The `StartupWait` of a worker. It logs every 10 s that it waits, and ends when the worker is asked to stop."""

    def __init__(self, settings: KafkaSettings, stop: threading.Event, log: Logger) -> None:
        chosen = settings.startup_wait_s
        self.seconds = chosen if chosen is not None else WORKER_STARTUP_WAIT_S
        self._stop = stop
        self._log = log
        self._next_s = 0.0

    def on_unreachable(self, error: UnreachableError, waited_s: float) -> None:
        if waited_s < self._next_s:
            return
        self._next_s = waited_s + REPEAT_S
        self._log.warning(
            "kafka_unreachable",
            **error_fields(
                error,
                hint="check that the brokers run. The worker retries for up to "
                f"{self.seconds:g} s (kafka.startup_wait_s)",
            ),
            unreachable_s=round(waited_s, 1),
        )

    def on_reachable(self, waited_s: float) -> None:
        self._log.warning("kafka_reachable", unreachable_s=round(waited_s, 1))

    def should_stop(self) -> bool:
        return self._stop.is_set()


def build_environment(
    app: DeclaredApp,
    settings: Settings,
    *,
    steps: Steps | None = None,
    log: Logger | None = None,
    wait: StartupWait | None = None,
    ended_by: Signals | None = None,
    observers: Observers = UNOBSERVED,
) -> Environment:
    """Build the adapters for the cluster of an app.

    Args:
        app: The app.
        settings: The settings of the process.
        steps: Called at each named step, for tests.
        log: The log. Default: structlog.
        wait: How to wait for an unreachable Kafka.
        ended_by: The signal that ended the previous process, if it is known.
        observers: Count events and make spans.

    Raises:
        UnreachableError: Kafka is still unreachable after the wait.
        ConfigError: A setting is wrong.
    """
    checkpoints = open_checkpoint_store(settings.worker.checkpoint_store)
    cluster = KafkaCluster(settings.kafka, wait)
    topics = {**cluster.describe(list(app.topics)), **dead_letter_topics(app.groups, cluster)}
    limits = {
        name: int(info.config["max.message.bytes"])
        for name, info in topics.items()
        if "max.message.bytes" in info.config
    }
    logger: Logger = log if log is not None else structlog.get_logger("pipeline")
    return Environment(
        cluster=cluster,
        sources=KafkaSources(settings.kafka),
        producers=KafkaProducers(settings.kafka, producer_limits(settings, limits)),
        members=KafkaMembers(settings.kafka),
        journals=lambda: KafkaJournalReader(settings.kafka),
        stores=RocksStores(settings.worker.state_dir, settings.worker.block_cache_bytes),
        clock=SystemClock(),
        random=SystemRandom(),
        executor=ThreadExecutor(),
        log=logger,
        steps=steps if steps is not None else NoSteps(),
        databases=RealDatabases(),
        checkpoints=Checkpoints(checkpoints, ThreadExecutor(TRANSFERS)) if checkpoints is not None else None,
        sink_executor=lambda: ThreadExecutor(settings.worker.sink_connections),
        crash_log=CrashFiles(settings.worker.state_dir, ended_by),
        meter=observers.meter,
        tracer=observers.tracer,
        process_began_s=process_began_s(),
        peers=PeerSockets(settings.kafka, settings.worker, logger),
        http_address=http_address(settings, observers.port.port) if observers.port is not None else None,
    )


def build_worker(
    app: DeclaredApp,
    settings: Settings,
    *,
    steps: Steps | None = None,
    stop: threading.Event | None = None,
    ended_by: Signals | None = None,
    observers: Observers = UNOBSERVED,
) -> Worker:
    """Build a worker. The worker is not started. `stop` ends the wait for an unreachable Kafka.

    Raises:
        ConfigError: The app does not have a group of the settings, a topic differs from its declaration in a way that
            matters, or the limit on open files is too low for the tasks of the app.
        UnreachableError: Kafka is still unreachable after the wait.
    """
    app = app.only(settings.worker.groups)
    worker_settings = with_worker_id(settings.worker)
    wait = WorkerWait(settings.kafka, stop or threading.Event(), structlog.get_logger("pipeline"))
    environment = build_environment(
        app, settings, steps=steps, wait=wait, ended_by=ended_by, observers=observers
    )
    _check_declarations(app, settings.worker.topics_dir, environment)
    demand = demand_of(
        app, environment.cluster, settings.worker.state_dir, http=observers.metrics is not None
    )
    require_descriptors(app.name, demand)
    return Worker(app, environment, worker_settings)


def _check_declarations(app: DeclaredApp, directory: str, environment: Environment) -> None:
    """Compare the app's topics with their declarations, if there are any. An empty directory disables this."""
    if not directory:
        return
    if Path(directory).is_dir():
        from pipeline.ops.topics.checking import check_topics  # noqa: PLC0415 - the YAML library is slow to import

        with_ids = [name for name, topic in app.topics.items() if topic.dedup and topic.dedup.id is None]
        check_topics(
            app.topics,
            Path(directory),
            environment.cluster,
            environment.log,
            with_ids=with_ids,
            created={topic.name for topic in app.new_topics(())},
        )
    elif directory != DEFAULT_TOPICS_DIR:
        raise ConfigError(
            f"the directory {directory} (worker.topics_dir) does not exist",
            hint="correct the setting, or set it to '' if the topics are not declared here",
        )


def with_worker_id(settings: WorkerSettings) -> WorkerSettings:
    """The settings with a worker id: the host's name unless one is given."""
    return settings if settings.worker_id else replace(settings, worker_id=socket.gethostname())


def run_worker(
    worker: Worker,
    stop: threading.Event,
    settings: WorkerSettings,
    report: Report | None = None,
    observers: Observers = UNOBSERVED,
    companion: Companion | None = None,
) -> None:
    """Run until `stop` is set or every task has failed. Then commit the open work and release the tasks.

    `report` is called about once a second, and `observers` get the worker's figures as often. `companion`: starts after
    the worker, and ends before it.

    Raises:
        PipelineError: The first failure of a task, or that of the companion.
    """
    port, metrics, ended = observers.port, observers.metrics, None
    with Watch(worker, stop, settings) as watch:
        worker.start()
        # The objects that exist now live as long as the process, and the collector tracks no object per record.
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 100)
        told = _reports(worker, report, observers)
        next_report_s = time.monotonic()  # at once, so that a supervisor knows the process
        if companion is not None:
            ended = _failure_of(companion.start, worker)
        while not stop.is_set() and not worker.finished and ended is None:
            worker.step()
            if companion is not None:
                ended = _failure_of(companion.turn, worker)
            if told and time.monotonic() >= next_report_s:
                next_report_s = time.monotonic() + PROGRESS_INTERVAL_S
                for tell in told:
                    tell()
    if port is not None:
        port.stopping()
    if companion is not None:
        companion.stop()
    stopper = threading.Thread(
        target=_stop_and_close, args=(worker, metrics), daemon=True, name="pipeline-stop"
    )
    stopper.start()
    stopper.join(watch.left_s)
    if stopper.is_alive():
        raise FatalTaskError(
            f"the worker could not commit its open work within {settings.stop_timeout_s:.0f} s, and has stopped",
            hint="start the worker again. It resumes after the last commit; no data is lost",
        )
    if ended is not None:
        raise ended
    if worker.displaced is not None:
        raise worker.displaced
    if worker.refused is not None:
        raise worker.refused
    if worker.failures:
        raise _summary(list(worker.failures.values()))


def run_app(
    app: DeclaredApp,
    settings: Settings,
    report: Report | None = None,
    ended_by: Signals | None = None,
    target: str = "MODULE:APP",
    reports: DrillReports | None = None,
    companion: Companion | None = None,
) -> None:
    """Build a worker and run it until SIGTERM or SIGINT. A second SIGINT ends the process immediately.

    Must be called on the main thread. If a handler does not return within `stop_timeout_s` of the signal, the process
    ends with exit code 1. `ended_by` is the signal that ended the previous process, if it is known.
    `target` and `reports`: for the page, what commands call the app, and the reports of drills. `companion`: what runs
    outside of the tasks.

    Raises:
        PipelineError: As `build_worker` and `run_worker`.
    """
    stop = threading.Event()
    app = app.only(settings.worker.groups)
    settings = replace(settings, worker=with_worker_id(settings.worker))
    pages = companion.pages if companion is not None else None
    observing = observed(app, settings, target, reports, pages)
    with tuned_allocator(), heard_signals(stop), observing as observers:
        try:
            worker = build_worker(app, settings, stop=stop, ended_by=ended_by, observers=observers)
        except UnreachableError:
            if stop.is_set():
                return  # it was asked to stop while it waited for Kafka; no work was started
            raise
        run_worker(worker, stop, settings.worker, report, observers, companion)


def _reports(worker: Worker, report: Report | None, observers: Observers) -> list[Callable[[], None]]:
    """What is called about once a second. The port learns that the worker runs."""
    port, metrics = observers.port, observers.metrics
    told: list[Callable[[], None]] = []
    if report is not None:
        told.append(lambda: report(worker.progress(), worker.departure_record))
    if port is not None:
        port.running(lambda: worker.mark, worker.row_queries)
    if metrics is not None:
        told.append(lambda: metrics.publish(worker.figures()))
    return told


def _failure_of(call: Callable[[Worker], None], worker: Worker) -> PipelineError | None:
    """The error that a method of the companion raises. The worker then stops in order."""
    try:
        call(worker)
    except PipelineError as error:
        return error
    return None


def _stop_and_close(worker: Worker, metrics: WorkerMetrics | None) -> None:
    worker.stop()
    if metrics is not None:
        metrics.publish(worker.figures())  # with the last commits
    worker.close()


def _summary(failures: list[PipelineError]) -> PipelineError:
    first = failures[0]
    if len(failures) == 1:
        return first
    others = "\n".join(f"also: {failure.message}" for failure in failures[1:])
    return type(first)(f"{first.message}\n{others}", hint=first.hint)
