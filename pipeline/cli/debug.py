"""`pipeline debug`: run the handlers of one committed record again, on the state before its commit."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.api.app import DeclaredApp
from pipeline.api.declarations import DeclaredTable
from pipeline.api.declared_group import DeclaredGroup
from pipeline.cli.lookup import find_group, journaled_tasks
from pipeline.cli.options import (
    JsonOption,
    KafkaOption,
    StoreOption,
    confirm,
    print_json,
    print_message,
)
from pipeline.cli.past import CACHE_BYTES, open_past, origin_of, reach_of
from pipeline.cli.rendering import Cell, Column, json_field, print_table, text_field
from pipeline.cli.table_rows import json_text
from pipeline.core.names import TaskId, TopicPartition, record_place
from pipeline.core.records import iso_time, readable
from pipeline.core.suggestions import counted
from pipeline.errors import InputError
from pipeline.ops.history.debugging import (
    Calls,
    DebugRun,
    Prepared,
    RowComparison,
    RunOutput,
    debug_record,
    prepare,
)
from pipeline.ops.history.tracing import Access, AccessKind
from pipeline.rocksdb.rocks import RocksStores
from pipeline.runtime.task.handler_errors import handler_name

__all__ = ["debug", "print_run", "run_document"]

_OUTCOMES = {
    "handled": "handled",
    "duplicate": "dropped as a duplicate: no handler was called",
    "skip": "failed and was skipped",
    "dead_letter": "failed and became a dead letter",
    "stop": "failed, which stops the task",
}


def debug(
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app, as in flights.app:app.")],
    record: Annotated[
        str, typer.Argument(metavar="TOPIC/PARTITION/OFFSET", help="The input record, as in flights/0/17.")
    ],
    group: Annotated[
        str | None, typer.Option(help="The handler group. Default: the only group that reads the topic.")
    ] = None,
    pdb: Annotated[
        bool, typer.Option("--pdb", help="Stop in Python's debugger at the first line of each handler.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask before handlers run. Their HTTP calls happen again.")
    ] = False,
    store: StoreOption = None,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Run the handlers of one committed record again, and compare with what was committed.

    Restores the state before the commit with that record into a temporary directory, and runs the handlers up to and
    over the record. Shows its reads, writes, outputs and error. Nothing is produced or committed, and the app is not
    disturbed. Effects outside Kafka, such as HTTP calls, happen again.
    """
    place, offset = _place(record)
    with open_past(target, kafka, store) as past:
        chosen = _group(past.app, place.topic, group)
        cluster = past.environment.cluster
        topic = cluster.describe([place.topic]).get(place.topic)
        tasks = journaled_tasks(cluster, chosen.id, None)
        task = _task(tasks, place, topic.partitions if topic is not None else len(tasks))
        prepared = prepare(past.app, chosen, task, place.topic, offset, past.environment, place.partition)
        _announce(prepared)
        confirm("Run these handlers? Their effects outside Kafka, such as HTTP calls, happen again.", yes=yes)
        with tempfile.TemporaryDirectory(prefix="pipeline-past-") as directory:
            stores = RocksStores(Path(directory), CACHE_BYTES)
            run = debug_record(prepared, past.environment, stores, _debugger() if pdb else None)
    if json:
        print_json(run_document(run))
    else:
        print_run(run)


def _place(text: str) -> tuple[TopicPartition, int]:
    place = record_place(text)
    if place is None:
        raise InputError(
            f"{text!r} is not TOPIC/PARTITION/OFFSET", hint="as in flights/0/17, or flights[0]@17"
        )
    return place


def _task(tasks: Sequence[TaskId], place: TopicPartition, partitions: int) -> TaskId:
    """The task that reads the partition. `partitions`: those of the topic. Raises InputError if none does."""
    if place.partition < partitions:
        return tasks[place.partition % len(tasks)]
    last = partitions - 1
    raise InputError(
        f"topic {place.topic} has no partition {place.partition} that group {tasks[0].app}/{tasks[0].group} reads",
        hint=f"its partitions are 0 to {last}" if last else "its only partition is 0",
    )


def _group(app: DeclaredApp, topic: str, name: str | None) -> DeclaredGroup:
    """The group of handlers with this name, or the only one that reads the topic."""
    groups = [group for group in app.groups if group.bindings]
    if name is not None:
        return find_group(app, groups, name, "group of handlers")
    found = [
        group
        for group in groups
        if topic == group.id.replays_topic or topic in {read.name for read in group.inputs}
    ]
    if not found:
        inputs = sorted({read.name for group in groups for read in group.inputs})
        raise InputError(
            f"no handler of app {app.name} reads topic {topic}", hint=f"its inputs: {', '.join(inputs)}"
        )
    if len(found) > 1:
        names = ", ".join(group.name for group in found)
        raise InputError(
            f"several groups of app {app.name} read topic {topic}: {names}", hint="choose one with --group"
        )
    return found[0]


def _announce(prepared: Prepared) -> None:
    """Say which handlers will run on how many records."""
    records = [*prepared.records.before, prepared.records.record]
    topics = {record.topic() for record in records}
    names = {
        handler_name(binding) for binding in prepared.plan.group.bindings if binding.topic.name in topics
    }
    entry = prepared.commit.entry.entry
    print_message(
        f"commit {entry.seq:,} of task {prepared.task}: {counted(len(records), 'record')} up to and including "
        f"this one, for {', '.join(sorted(names)) or 'the handlers of replayed records'}"
    )
    if not prepared.records.exact:
        print_message(
            "the order of records of different topics in one commit is not recorded: they run by timestamp"
        )
    if prepared.commit.earlier:
        print_message(f"the record has {counted(prepared.commit.earlier, 'earlier commit')}, before a reset")


def _debugger() -> Calls:
    """Calls a function in Python's debugger. Quitting the debugger ends the command."""
    from pdb import Pdb  # noqa: PLC0415 - only this option needs the debugger

    class Debugger(Pdb):
        """Notes that the user has quit, which `runcall` does not report."""

        left = False

        def set_quit(self) -> None:
            self.left = True
            super().set_quit()

    def call(function: Callable[..., None], event: Any, context: Any) -> None:
        debugger = Debugger(stdout=sys.stderr)  # standard output has only the result
        debugger.use_rawinput = sys.stdin.isatty()
        debugger.runcall(function, event, context)
        if debugger.left:
            raise KeyboardInterrupt

    return call


def print_run(run: DebugRun) -> None:
    """Print the result as text."""
    records, commit = run.prepared.records, run.prepared.commit
    record, entry = records.record, commit.entry.entry
    timestamp_ms = record.timestamp()[1]
    when = f" of {iso_time(timestamp_ms)}" if timestamp_ms >= 0 else ""
    place = f"{record.topic()}[{record.partition()}] offset {record.offset():,}"
    inputs = ", ".join(f"{shown} {at.start:,}-{at.stop - 1:,}" for shown, at in _inputs(run.prepared).items())
    others = f"{counted(len(records.before), 'record')} before this one, {len(records.after):,} after it"
    attempts = f", {counted(run.attempts, 'attempt')}" if run.attempts > 1 else ""
    facts = [
        ("record", f"{place}{when}, key {readable(record.key())}"),
        ("commit", f"entry {entry.seq:,} of {iso_time(entry.wall_ms)}, by worker {entry.owner}"),
        ("inputs", f"{inputs}: {others}"),
        ("state", f"{origin_of(run.past)}; {reach_of(run.past.oldest)}"),
        ("outcome", _OUTCOMES[run.outcome] + attempts),
    ]
    for name, text in facts:
        typer.echo(f"{name:<9}{text}")
    if run.accesses:
        typer.echo()
        print_table(_ACCESS_COLUMNS, (_access_cells(run, n, access) for n, access in enumerate(run.accesses)))
    if run.outputs:
        typer.echo()
        print_table(_OUTPUT_COLUMNS, map(_output_cells, run.outputs))
    _print_error(run)


def _print_error(run: DebugRun) -> None:
    if run.error:
        typer.echo(f"\n{'error':<11}{run.error}")
    if run.letter is not None:
        found = run.letter
        same = "the same error" if found.letter.error == run.error else found.letter.error
        typer.echo(f"{'committed':<11}dead letter {found.partition}:{found.offset}: {same}")
    elif run.outcome == "dead_letter":
        typer.echo(f"{'committed':<11}no dead letter of this record was found")
    if run.traceback:
        typer.echo(f"\n{run.traceback}")


_ACCESS_COLUMNS = (
    Column("handler"),
    Column("access"),
    Column("table"),
    Column("key"),
    Column("value", shortens=True),
    Column("committed", shortens=True),
)
_OUTPUT_COLUMNS = (
    Column("output"),
    Column("key"),
    Column("value", shortens=True),
    Column("committed", shortens=True),
)


def _access_cells(run: DebugRun, number: int, access: Access) -> list[Cell]:
    attempt = f" (attempt {access.attempt})" if run.attempts > 1 else ""
    return [
        f"{access.handler}{attempt}",
        access.kind.value,
        access.table,
        access.key if isinstance(access.key, str) else json_text(access.key),
        json_text(access.value) if access.exists else None,
        _committed_text(run, number, access),
    ]


def _committed_text(run: DebugRun, number: int, access: Access) -> str:
    if access.kind is AccessKind.READ:
        return ""
    found = run.writes.get(number)
    if found is None:
        undone = run.outcome != "handled" or access.attempt < run.attempts
        return "undone" if undone else "written again below"
    if found.same:
        return "the same"
    if not found.in_commit:
        return "not written"
    later = len(run.prepared.records.after)
    why = f" (perhaps by one of {counted(later, 'later record')})" if later else ""
    if found.committed is None:
        return f"deleted{why}"
    return f"{json_text(_committed_value(run, access, found))}{why}"


def _committed_value(run: DebugRun, access: Access, found: RowComparison) -> Any:
    """The value that the commit wrote; None for a delete."""
    table: DeclaredTable[Any, Any] = run.prepared.plan.group.tables[access.table]
    return table.value.decode(found.committed) if found.committed is not None else None


def _output_cells(made: RunOutput) -> list[Cell]:
    output, found = made.output, made.committed
    if found is None:
        shown = "not found"
    else:
        place = f"{output.topic}[{found.partition}] offset {found.offset:,}"
        shown = f"{place}: the same" if found.equal else f"{place}: {readable(found.value)}"
    return [output.topic, readable(output.key), readable(output.value), shown]


def _inputs(prepared: Prepared) -> dict[str, range]:
    """The input offsets of the commit, by topic, or by partition if the task has several."""
    names, all_names = prepared.plan.names_of(prepared.task.number), prepared.commit.entry.entry.positions
    return {names.label(name, all_names): offsets for name, offsets in prepared.commit.inputs.items()}


def run_document(run: DebugRun) -> dict[str, Any]:
    """The result as a JSON document."""
    records, entry = run.prepared.records, run.prepared.commit.entry
    record, letter = records.record, run.letter
    start = run.past.start
    return {
        "app": run.prepared.task.app,
        "group": run.prepared.task.group,
        "task": run.prepared.task.number,
        "record": {
            "topic": record.topic(),
            "partition": record.partition(),
            "offset": record.offset(),
            "timestamp_ms": record.timestamp()[1],
            **text_field("key", record.key()),
            **json_field("value", record.value()),
        },
        "commit": {
            "seq": entry.entry.seq,
            "offset": entry.offset,
            "timestamp_ms": entry.entry.wall_ms,
            "worker": entry.entry.owner,
            "inputs": {
                shown: {"first": at.start, "last": at.stop - 1} for shown, at in _inputs(run.prepared).items()
            },
            "records_before": len(records.before),
            "records_after": len(records.after),
            "order_known": records.exact,
        },
        "state": {
            "seq": run.past.applied.seq,
            "checkpoint": start.ref.seq if start is not None else None,
            "replayed_entries": run.past.replayed,
            "oldest_seq": run.past.oldest.entry.seq,
        },
        "outcome": run.outcome,
        "attempts": run.attempts,
        "error": run.error or None,
        "traceback": run.traceback or None,
        "accesses": [_access_document(run, number, access) for number, access in enumerate(run.accesses)],
        "outputs": [_output_document(made) for made in run.outputs],
        "dead_letter": None
        if letter is None
        else {
            "id": f"{letter.partition}:{letter.offset}",
            "error": letter.letter.error,
            "same_error": letter.letter.error == run.error,
        },
    }


def _access_document(run: DebugRun, number: int, access: Access) -> dict[str, Any]:
    document = {
        "handler": access.handler,
        "attempt": access.attempt,
        "access": access.kind.value,
        "table": access.table,
        "key": access.key,
        "value": access.value,
        "exists": access.exists,
    }
    found = run.writes.get(number)
    if found is not None:
        document["committed"] = "same" if found.same else "differs" if found.in_commit else "not_written"
        if found.in_commit and not found.same:
            document["committed_value"] = _committed_value(run, access, found)
    return document


def _output_document(made: RunOutput) -> dict[str, Any]:
    output, found = made.output, made.committed
    return {
        "topic": output.topic,
        **text_field("key", output.key),
        **json_field("value", output.value),
        "timestamp_ms": output.timestamp_ms,
        "committed": None
        if found is None
        else {"partition": found.partition, "offset": found.offset, "same": found.equal},
    }
