"""`pipeline journal`: what a task committed, entry by entry; and the end of a journal that is beyond repair."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any

import typer

from pipeline.cli.journals import AppArgument, app_named, journaled_tasks
from pipeline.cli.options import (
    CommandWait,
    JsonOption,
    KafkaOption,
    confirm,
    kafka_settings,
    print_json,
    say,
)
from pipeline.cli.tables import Cell, Column, print_table
from pipeline.core.journal import JournalEntry
from pipeline.core.names import GroupId, TaskId, check_name, checkpoint_prefix
from pipeline.errors import InputError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ops.forgetting import forget_group, traces_of
from pipeline.runtime.commit.journal_reader import last_entries

__all__ = ["journal_app"]

journal_app = typer.Typer(help="Show the entries of journals; forget a journal.", no_args_is_help=True)


@journal_app.callback()
def _group() -> None:
    """Keep `show` a subcommand of its own."""


@journal_app.command()
def show(
    app: AppArgument,
    group: Annotated[str, typer.Option(help="The handler group.")] = "main",
    partition: Annotated[int | None, typer.Option(help="One task; default: all.", min=0)] = None,
    last: Annotated[
        int, typer.Option(help="About this many of the newest entries of each task; 0 for all.", min=0)
    ] = 10,
    chain: Annotated[
        bool, typer.Option("--chain", help="Show also each entry's chain value, the hash over all before it.")
    ] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Show journal entries: sequence number, kind, owner, input positions, and how much each wrote."""
    group_id = GroupId(app_named(app), check_name("group", group))
    settings = kafka_settings(kafka)
    cluster = KafkaCluster(settings, CommandWait(settings))
    tasks = journaled_tasks(cluster, group_id, partition)
    reader = KafkaJournalReader(settings)
    rows: list[dict[str, Any]] = []
    try:
        for task in tasks:
            rows += _entries(reader, task, last)
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
    """Delete a group's journal for good, with what else Kafka holds of the group: it begins again as a new one.

    For a journal that is lost or damaged beyond repair: all input that Kafka still has is handled again, and its
    outputs are produced again. Workers of the app must be stopped.
    """
    group_id = GroupId(app_named(app), check_name("group", group))
    settings = kafka_settings(kafka)
    with closing(KafkaCluster(settings, CommandWait(settings))) as cluster:
        traces = traces_of(group_id, cluster)
        if not traces:
            raise InputError(f"this Kafka holds nothing of group {group_id.app}/{group_id.group}")
        for trace in traces:
            say(f"to be deleted: {trace}")
        confirm(f"Forget group {group_id.app}/{group_id.group}?", yes=yes)
        forget_group(group_id, cluster, say)
        cluster_id = cluster.cluster_id()
    say(
        f"next: on each machine move STATE-DIR/{group_id.app}/{group_id.group} away; with a checkpoint store, move "
        f"{checkpoint_prefix(cluster_id, group_id)} away; then start the workers"
    )


# The positions are the last that is always shown: only they have no bound.
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
    positions = dict(row["positions"])
    replays = positions.pop(group.replays_topic, 0)
    if replays:
        positions["replays"] = replays
    shown = ", ".join(f"{name} {position:,}" for name, position in positions.items())
    task = row["task"].partition("/")[2]
    return [
        *(task, row["seq"], row["offset"], row["kind"], row["owner"], row["writes"], shown or None),
        row["chain"],
    ]


def _entries(reader: KafkaJournalReader, task: TaskId, last: int) -> list[dict[str, Any]]:
    bounds = reader.bounds(task.journal)
    count = last or max(1, bounds.stable_end)
    return [_row(task, entry) for entry in last_entries(task.journal, reader, bounds, count, deltas=True)]


def _row(task: TaskId, entry: JournalEntry) -> dict[str, Any]:
    body = entry.entry
    return {
        "task": str(task),
        "seq": body.seq,
        "offset": entry.offset,
        "kind": body.kind.name.lower(),
        "owner": body.owner,
        "positions": body.positions,
        "writes": len(body.delta),
        "wall_ms": body.wall_ms,
        "nonce": body.nonce.hex(),
        "chain": entry.chain.hex(),
    }
