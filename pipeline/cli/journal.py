"""`pipeline journal`: show the entries of journals; delete the journal of a group."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any

import typer

from pipeline.cli.lookup import AppArgument, GroupOption, TaskOption, app_named, group_of, journaled_tasks
from pipeline.cli.options import (
    CommandWait,
    JsonOption,
    KafkaOption,
    confirm,
    print_json,
    print_message,
    quiet_kafka_settings,
)
from pipeline.cli.rendering import Cell, Column, print_table
from pipeline.core.entry_body import entry_partitions, reset_partitions
from pipeline.core.inputs import TaskInputs
from pipeline.core.journal_format import EntryKind, JournalEntry
from pipeline.core.names import GroupId, TaskId, check_name, checkpoint_prefix
from pipeline.errors import InputError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ops.apps import forget_group, traces_of
from pipeline.ops.history.record_commits import inputs_in
from pipeline.ports import JournalReader, task_fields
from pipeline.runtime.commit.journal_reader import last_entries

__all__ = ["journal_app"]

journal_app = typer.Typer(
    help="Show the entries of journals; delete the journal of a group.", no_args_is_help=True
)


@journal_app.callback()
def _group() -> None:
    """Show the entries of journals; delete the journal of a group."""


@journal_app.command()
def show(
    app: AppArgument,
    group: GroupOption = None,
    task: TaskOption = None,
    last: Annotated[
        int, typer.Option(help="The newest N entries of each task; 0 for all.", metavar="N", min=0)
    ] = 10,
    chain: Annotated[
        bool,
        typer.Option(
            "--chain", help="Also show the chain value of each entry: a hash of all entries before it."
        ),
    ] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Show journal entries: sequence number, kind, owner, number of table writes, and input positions."""
    group_id = GroupId(app_named(app), group_of(group, task) or "main")
    settings = quiet_kafka_settings(kafka)
    cluster = KafkaCluster(settings, CommandWait(settings))
    tasks = journaled_tasks(cluster, group_id, task)
    reader = KafkaJournalReader(settings)
    rows: list[dict[str, Any]] = []
    try:
        for found in tasks:
            rows += _entries(reader, found, inputs_in(found, cluster), last)
    finally:
        reader.close()
        cluster.close()
    if json:
        for row in rows:
            print_json(row)
        return
    columns = _COLUMNS if chain else [column for column in _COLUMNS if column.title != "chain"]
    print_table(columns, (_cells(row, group_id)[: len(columns)] for row in rows))


@journal_app.command()
def forget(
    app: AppArgument,
    group: Annotated[str, typer.Option(help="The handler group.")] = "main",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    kafka: KafkaOption = None,
) -> None:
    """Delete a group's journal and the group's other data in Kafka. The group then starts over as a new group.

    Use this only for a journal that is lost or cannot be repaired. The group then processes all input that Kafka still
    has, and produces its outputs again. First stop the workers of the app.
    """
    group_id = GroupId(app_named(app), check_name("group", group))
    settings = quiet_kafka_settings(kafka)
    with closing(KafkaCluster(settings, CommandWait(settings))) as cluster:
        traces = traces_of(group_id, cluster)
        if not traces:
            raise InputError(f"this Kafka cluster has no data of group {group_id.app}/{group_id.group}")
        for trace in traces:
            print_message(f"to delete: {trace}")
        confirm(f"Delete this data of group {group_id.app}/{group_id.group}?", yes=yes)
        forget_group(group_id, cluster, print_message)
        cluster_id = cluster.cluster_id()
    print_message(
        f"next: on each machine, move the directory STATE-DIR/{group_id.app}/{group_id.group} elsewhere. If there is a "
        f"checkpoint store, move its prefix {checkpoint_prefix(cluster_id, group_id)} elsewhere. Then start the workers"
    )


# The positions are the last column that is always shown, because their length has no bound.
_COLUMNS = (
    Column("task"),
    Column("seq", number=True),
    Column("offset", number=True),
    Column("kind"),
    Column("owner", shortens=True),
    Column("writes", number=True),
    Column("positions"),
    Column("chain"),
)


def _cells(row: dict[str, Any], group: GroupId) -> list[Cell]:
    # The name of the replays topic is long, and it rarely has records.
    shown = ", ".join(
        f"{name.replace(group.replays_topic, 'replays')} {position:,}"
        for name, position in row["positions"].items()
        if position or not name.startswith(group.replays_topic)
    )
    task, kind = f"{row['group']}/{row['task']}", row["kind"]
    if row["reset_partitions"] is not None:
        kind = f"reset of partition {', '.join(map(str, row['reset_partitions']))}"
    return [
        *(task, row["seq"], row["offset"], kind, row["owner"], row["writes"], shown or None),
        row["chain"],
    ]


def _entries(reader: JournalReader, task: TaskId, inputs: TaskInputs, last: int) -> list[dict[str, Any]]:
    bounds = reader.bounds(task.journal)
    count = last or max(1, bounds.stable_end)
    entries = last_entries(task.journal, reader, bounds, count, deltas=True)
    return [_row(task, inputs, entry) for entry in entries]


def _row(task: TaskId, inputs: TaskInputs, entry: JournalEntry) -> dict[str, Any]:
    body = entry.entry
    reset = reset_partitions(body) if body.kind is EntryKind.RESET else None
    return {
        **task_fields(task, entry_partitions(body, inputs)),
        "seq": body.seq,
        "offset": entry.offset,
        "kind": body.kind.name.lower(),
        "owner": body.owner,
        "positions": inputs.shown(body.positions),
        "reset_partitions": list(reset) if reset is not None else None,
        "writes": len(body.delta),
        "timestamp_ms": body.wall_ms,
        "nonce": body.nonce.hex(),
        "chain": entry.chain.hex(),
    }
