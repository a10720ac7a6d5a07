"""`pipeline debug`: run the handlers of one committed record again, on the state before its commit."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.api.app import DeclaredApp
from pipeline.api.group import DeclaredGroup
from pipeline.cli.debug_view import print_run, run_document
from pipeline.cli.lookup import find_group, journaled_tasks
from pipeline.cli.options import (
    JsonOption,
    KafkaOption,
    StoreOption,
    confirm,
    counted,
    print_json,
    print_message,
)
from pipeline.cli.past import CACHE_BYTES, open_past
from pipeline.core.names import TaskId, TopicPartition
from pipeline.errors import InputError
from pipeline.ops.history.debugging import Calls, Prepared, debug_record, prepare
from pipeline.rocksdb.rocks import RocksStores
from pipeline.runtime.task.handler_errors import handler_name

__all__ = ["debug"]


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
        task = _task(journaled_tasks(past.environment.cluster, chosen.id, None), place)
        prepared = prepare(past.app, chosen, task, place.topic, offset, past.environment)
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
    topic, _, rest = text.partition("/")
    partition, _, offset = rest.partition("/")
    if not (topic and partition.isdecimal() and offset.isdecimal()):
        raise InputError(f"{text!r} is not TOPIC/PARTITION/OFFSET", hint="as in flights/0/17")
    return TopicPartition(topic, int(partition)), int(offset)


def _task(tasks: Sequence[TaskId], place: TopicPartition) -> TaskId:
    """The task that reads the partition. Raises InputError if none does."""
    if place.partition < len(tasks):
        return tasks[place.partition]
    last = len(tasks) - 1
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
        f"commit {entry.seq:,} of task {prepared.task}: {counted(len(records), 'record')} up to and with this one, "
        f"for {', '.join(sorted(names)) or 'the handlers of replayed records'}"
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
        """Notes that the user has quit, which `runcall` does not tell."""

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
