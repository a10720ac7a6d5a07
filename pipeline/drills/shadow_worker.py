"""The process of a shadow app: `run_shadow` prepares the tasks, and then runs an ordinary worker until it is stopped.

    1 give the app its shadow name, and each group as many tasks as the live one; leave out its sinks; name the record
      in each output
    2 write the genesis of each group of the shadow app
    3 append a reset to each task: the start of its replay
    4 append the live rows at that start, which the driller has restored, unless the replay begins without rows
    5 run a worker on the bounded inputs, with the outputs redirected (`shadow_ports.py`)

The driller ends the process when its journals show that all tasks have reached their ends. A crash at any step leaves
topics of the shadow app only, which `pipeline drill undo` deletes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

from pipeline.api.app import DeclaredApp
from pipeline.api.bindings import Binding
from pipeline.api.declared_group import DeclaredGroup
from pipeline.config import HttpSettings, Settings, WorkerSettings
from pipeline.core.entry_body import format_of
from pipeline.core.inputs import row_prefix
from pipeline.core.journal_format import EntryKind
from pipeline.core.position import decode_position
from pipeline.drills.row_differences import rows_of
from pipeline.drills.shadow_ports import BoundedSources, ShadowProducers
from pipeline.drills.shadow_spec import SOURCE_HEADER, STARTS, STATES, ShadowSpec, ShadowTask
from pipeline.ports import TopicInfo
from pipeline.processes.signals import heard_signals
from pipeline.processes.wiring import build_environment, run_worker
from pipeline.rocksdb.rocks import RocksStores
from pipeline.runtime.commit.admin_entry import append_entry
from pipeline.runtime.commit.journal_writer import Commit
from pipeline.runtime.environment import Environment
from pipeline.runtime.plan import GroupPlan, plan_groups
from pipeline.runtime.restore.genesis import ensure_genesis
from pipeline.runtime.worker import Worker

__all__ = ["run_shadow"]

WORKER = "shadow"
_COMMIT_RECORDS = 200  # small commits: the rows of both apps can be compared at each of them
_ROWS_BYTES = 4 << 20  # of one entry with rows of the live state
_CACHE_BYTES = 8 << 20
_AT_ONCE = 8


def run_shadow(app: DeclaredApp, spec: ShadowSpec, settings: Settings) -> None:
    """Run the shadow app until SIGTERM. Must be called on the main thread.

    Raises:
        PipelineError: As `build_environment` and `run_worker`.
    """
    app.name = spec.shadow  # 1
    groups = [_shadowed(group, spec) for group in app.groups if not group.sinks]
    settings = replace(settings, worker=_worker_settings(settings.worker, spec), http=HttpSettings())
    real = build_environment(app, settings)
    environment = replace(
        real,
        sources=BoundedSources(real.sources, spec),
        producers=ShadowProducers(real.producers, spec),
    )
    stop = threading.Event()
    with heard_signals(stop):
        plans, _ = plan_groups(app, groups, environment)
        environment.producers.learn(
            {
                name: int(info.config["max.message.bytes"])
                for name, info in _outputs(spec, environment).items()
            }
        )
        by_group = {plan.id.group: plan for plan in plans}
        for plan in plans:  # 2
            ensure_genesis(
                plan.id,
                plan.task_count,
                plan.identity,
                settings.worker.replication_factor,
                environment=environment,
                retry_backoff_ms=settings.worker.retry_backoff_ms,
            )
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            begun = [
                pool.submit(_begin, spec, task, by_group[task.group], environment, settings.worker)
                for task in spec.tasks
            ]
            for each in begun:
                each.result()
        if not stop.is_set():
            run_worker(Worker(app, environment, settings.worker, groups), stop, settings.worker)  # 5


def _shadowed(group: DeclaredGroup, spec: ShadowSpec) -> DeclaredGroup:
    """The group with as many tasks as the live one: both have the same tasks with the same partitions.

    The journal of the shadow is a new one, so it is of the newest format, whatever that of the live group is.
    """
    found = group.with_functions(partial(_named, group))
    found.tasks = next((task.tasks for task in spec.tasks if task.group == group.name), group.tasks)
    return found


def _named(group: DeclaredGroup, binding: Binding) -> Binding:
    """The handler, with a header in its outputs that names the group and the partition of the record.

    The outputs of two partitions have no order, also within a task.
    """
    function = binding.function

    @wraps(function)
    def named(given: Any, context: Any) -> None:
        before = len(context.outputs)
        function(given, context)
        outputs = context.outputs
        if len(outputs) > before:
            partition = (given[0] if binding.batch else given).partition
            header = SOURCE_HEADER, f"{group.name}/{partition}".encode()
            outputs[before:] = [(*o[:4], [*(o[4] or ()), header]) for o in outputs[before:]]

    return Binding(
        binding.topic, named, binding.on_error, binding.batch, binding.retries, binding.retry_delay_s
    )


def _worker_settings(settings: WorkerSettings, spec: ShadowSpec) -> WorkerSettings:
    return replace(
        settings,
        state_dir=Path(spec.place) / STATES,
        worker_id=WORKER,
        checkpoint_store="",
        topics_dir="",
        peer_watch="off",
        start="earliest",
        max_poll_records=_COMMIT_RECORDS,
        max_records_per_commit=_COMMIT_RECORDS,
    )


def _outputs(spec: ShadowSpec, environment: Environment) -> Mapping[str, TopicInfo]:
    return environment.cluster.describe(list(spec.outputs))


def _begin(
    spec: ShadowSpec, task: ShadowTask, plan: GroupPlan, environment: Environment, settings: WorkerSettings
) -> None:
    """Steps 3 and 4."""
    own = task.task(spec.shadow)
    reset = Commit(EntryKind.RESET, task.start, identity=plan.identity)
    append_entry(own, WORKER, lambda _last: reset, environment, settings)  # 3
    if not task.seq:
        return
    live = RocksStores(Path(spec.place) / STARTS, _CACHE_BYTES)
    with closing(live.open_read_only(task.task(spec.live))) as state:  # 4
        identity = decode_position(state.position() or b"", str(task.task(spec.live))).identity
        live_rows = rows_of(state.scan(b""), format_of(identity), task.number)
        tasks = plan.identity.tasks
        own_rows = (
            (row_prefix(place.partition) + place.key if tasks else place.key, value)
            for place, value in live_rows
        )
        for rows in _parts(own_rows):
            commit = Commit(EntryKind.COMMIT, task.start, rows)
            append_entry(own, WORKER, lambda _last, commit=commit: commit, environment, settings)  # type: ignore[misc]


def _parts(rows: Iterable[tuple[bytes, bytes]]) -> Iterator[Mapping[bytes, bytes | None]]:
    """The rows in parts of at most `_ROWS_BYTES`, and a row more."""
    part: dict[bytes, bytes | None] = {}
    size = 0
    for key, value in rows:
        part[key] = value
        size += len(key) + len(value)
        if size >= _ROWS_BYTES:
            yield part
            part, size = {}, 0
    if part:
        yield part
