"""Runs all checks, in an order in which one explains the next: `diagnose`. `check_databases` is the check of sinks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from pipeline.api.app import DeclaredApp
from pipeline.config import Settings
from pipeline.core.permissions import Role, grants_of
from pipeline.core.suggestions import counted
from pipeline.databases import RealDatabases
from pipeline.doctor.cluster import check_broker, check_clock, check_partitioner, check_topics
from pipeline.doctor.findings import Finding, Level, ok, problem, run_check, unknown, warning
from pipeline.doctor.machine import check_disk, check_settings, check_store
from pipeline.doctor.permissions import check_permissions
from pipeline.doctor.tasks import check_tasks
from pipeline.errors import PipelineError
from pipeline.kafka.clients import ProducerLimits
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.probe import KafkaProbe
from pipeline.kafka.producer import KafkaProducers
from pipeline.kafka.reachable import StartupWait
from pipeline.kafka.source import KafkaSources
from pipeline.object_store.checkpoint_store import open_checkpoint_store
from pipeline.ops.acls import Corrections, guessed_topics, use_of
from pipeline.ports import SystemClock
from pipeline.ports.databases import Databases
from pipeline.processes.system import demand_of, require_descriptors
from pipeline.processes.wiring import build_environment
from pipeline.runtime.sinks.rows import RowMaker

__all__ = ["check_databases", "diagnose"]

_OF_BROKER = ("topics", "tasks", "permissions", "partitioner", "clock", "open files")


def diagnose(
    app: DeclaredApp | None, target: str, settings: Settings, file: Path, wait: StartupWait
) -> Iterator[Finding]:
    """All findings, in order. Without an app, only what does not depend on one. Raises nothing.

    1 this machine: settings and state directory
    2 the broker; without its answer, the checks of 3 cannot be made
    3 topics, tasks, permissions, partitioner, clock, limit on open files
    4 the checkpoint store and the databases of sinks

    `target`: MODULE:APP, for the commands in hints.
    """
    yield from run_check("settings", lambda: check_settings(settings.kafka, file))  # 1
    yield from run_check("disk", lambda: check_disk(settings.worker.state_dir))
    probes: list[KafkaProbe] = []

    def broker() -> Iterator[Finding]:
        probes.append(KafkaProbe(settings.kafka, wait))
        yield from check_broker(probes[0])

    found = run_check("broker", broker)  # 2
    yield from found
    reached = bool(probes) and all(each.level is not Level.PROBLEM for each in found)
    if app is not None and reached:
        yield from _of_app(app, target, settings, probes[0], wait)  # 3
    elif app is not None:
        yield from (unknown(check, "the brokers must answer first") for check in _OF_BROKER)
    yield from run_check(
        "checkpoint store", lambda: _store(app, settings, probes[0] if reached else None)
    )  # 4
    if app is not None and any(group.sinks for group in app.groups):
        yield from run_check("database", lambda: check_databases(app, RealDatabases()))


def _of_app(
    app: DeclaredApp, target: str, settings: Settings, probe: KafkaProbe, wait: StartupWait
) -> Iterator[Finding]:
    use = use_of(app, Corrections(), truncates=bool(settings.worker.checkpoint_store))
    # With the time-out of a worker's transactions, which brokers refuse if it is above their own limit.
    limits = ProducerLimits(transaction_timeout_ms=settings.worker.transaction_timeout_ms)
    producers = KafkaProducers(settings.kafka, limits)
    hint = f"pipeline acls {target} --role {Role.WORKER} prints the commands that grant it"
    yield from run_check("topics", lambda: check_topics(app, probe, probe))
    yield from run_check("tasks", lambda: check_tasks(app, build_environment(app, settings, wait=wait)))
    grants, guessed = grants_of(use, Role.WORKER), guessed_topics(use)
    yield from run_check(
        "permissions", lambda: check_permissions(grants, guessed, hint, probe, probe, producers)
    )
    yield from run_check("partitioner", lambda: _partitioner(app, settings, probe))
    yield from run_check("clock", lambda: check_clock(app, probe, probe, _now_ms()))
    yield from run_check("open files", lambda: _descriptors(app, settings, probe))


def _partitioner(app: DeclaredApp, settings: Settings, probe: KafkaProbe) -> Iterator[Finding]:
    with closing(KafkaJournalReader(settings.kafka)) as journals:
        sources = KafkaSources(settings.kafka)
        yield from check_partitioner(app, probe, sources, journals, SystemClock())


def _descriptors(app: DeclaredApp, settings: Settings, probe: KafkaProbe) -> Iterator[Finding]:
    demand = demand_of(app, probe, settings.worker.state_dir)
    require_descriptors(app.name, demand)
    yield ok(
        "open files",
        f"a worker may need {counted(demand.descriptors, 'open file')}, and the limit is not lower",
    )


def _store(app: DeclaredApp | None, settings: Settings, probe: KafkaProbe | None) -> Iterator[Finding]:
    url = settings.worker.checkpoint_store
    store = open_checkpoint_store(url)
    if store is None:
        yield warning(
            "checkpoint store",
            "none is set: journals grow without a limit, and a worker with an empty disk replays all of them",
            "set worker.checkpoint_store in pipeline.toml (docs/reference/configuration.md)",
        )
        return
    cluster_id = probe.cluster_id() if probe is not None else "doctor"
    yield from check_store(store, url, cluster_id, app.name if app is not None else "doctor", _now_ms())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def check_databases(app: DeclaredApp, databases: Databases) -> Iterator[Finding]:
    """Connect to each database, and compare the table of each sink with its declaration. Changes nothing."""
    for group in app.groups:
        for bound in group.sinks:
            try:
                with closing(databases.open(bound.sink, app.name)) as session:
                    RowMaker(bound.sink, session)
            except PipelineError as error:
                hint = error.hint or "check the address, the user and the table of the sink"
                yield problem("database", f"group {group.name}: {error.message}", hint)
            else:
                yield ok("database", f"group {group.name}: {bound.sink} can be used")
