"""`pipeline checkpoints`: list and verify checkpoints, and delete objects that no checkpoint needs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from pipeline.cli.lookup import AppArgument, GroupOption, TaskOption, app_named, group_of, journaled_tasks
from pipeline.cli.options import (
    CommandWait,
    JsonOption,
    KafkaOption,
    StoreOption,
    print_json,
    print_message,
    quiet_kafka_settings,
)
from pipeline.cli.rendering import Cell, Column, print_table
from pipeline.config import load_settings
from pipeline.core.entry_body import entry_partitions
from pipeline.core.names import GroupId, TaskChoice
from pipeline.core.suggestions import counted
from pipeline.errors import ConfigError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.object_store.checkpoint_store import open_checkpoint_store
from pipeline.ops.checkpoints import Holding, Inventory, inventory_of, prune, store_time_ms, verify
from pipeline.ops.history.record_commits import inputs_in
from pipeline.ports import CheckpointStore, task_fields
from pipeline.runtime.commit.journal_reader import last_entry

__all__ = ["checkpoints_app"]

checkpoints_app = typer.Typer(
    help="List and verify checkpoints; delete objects that no checkpoint needs.", no_args_is_help=True
)


@checkpoints_app.command("list")
def list_(
    app: AppArgument,
    group: GroupOption = None,
    task: TaskOption = None,
    store: StoreOption = None,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Show the checkpoints that the journals name, and whether their objects exist. Does not read the objects."""
    place, _ = _store(store)
    _show(list(_inventories(app, group, task, place, kafka)), json=json)


@checkpoints_app.command("verify")
def verify_(
    app: AppArgument,
    group: GroupOption = None,
    task: TaskOption = None,
    store: StoreOption = None,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Read every object of every checkpoint and compare it with its hash. Exit code 1 if one is damaged."""
    place, _ = _store(store)
    read = 0

    def count(size: int) -> None:
        nonlocal read
        read += size

    began_s = time.monotonic()
    checked = [verify(found, place, count) for found in _inventories(app, group, task, place, kafka)]
    _show(checked, json=json)
    print_message(f"read {counted(read, 'byte')} in {time.monotonic() - began_s:.1f} s")
    if any(holding.problem for found in checked for holding in found.holdings):
        raise typer.Exit(1)


@checkpoints_app.command("prune")
def prune_(
    app: AppArgument,
    group: GroupOption = None,
    task: TaskOption = None,
    store: StoreOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted.")] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Delete objects that no kept checkpoint names and that are older than worker.checkpoint_grace_s.

    Workers do the same after each checkpoint. Use it for tasks that no worker runs, and after crashes. Ages are
    measured with the clock of the store: the command writes an object, reads its time, and deletes it.
    """
    place, grace_s = _store(store)
    deleted = 0
    for found in _inventories(app, group, task, place, kafka, grace_s):
        sizes = sum(found.strays[name].size for name in found.prunable if name in found.strays)
        if not dry_run:
            prune(found, place)
        deleted += len(found.prunable)
        if json:
            names = [found.prefix + name for name in found.prunable]
            print_json(
                {
                    **task_fields(found.task, found.partitions),
                    "deleted": names,
                    "deleted_bytes": sizes,
                    "dry_run": dry_run,
                }
            )
        for name in () if json else found.prunable:
            typer.echo(found.prefix + name)
        unreadable = [holding for holding in found.holdings if holding.manifest is None]
        if unreadable:
            print_message(
                f"{found.task}: nothing is deleted, because a manifest cannot be read: {unreadable[0].problem}"
            )
        elif not found.holdings and found.strays:
            print_message(
                f"{found.task}: its journal names no checkpoint. {counted(len(found.strays), 'object')} in "
                f"{found.prefix} may belong to a journal that was lost. If they do not, delete them yourself"
            )
    print_message(f"{'would delete' if dry_run else 'deleted'} {counted(deleted, 'object')}")


def _store(url: str | None) -> tuple[CheckpointStore, float]:
    """Return the store, and the age in seconds below which objects are not deleted. Raises ConfigError."""
    settings = load_settings({"checkpoint_store": url}).worker
    found = open_checkpoint_store(settings.checkpoint_store)
    if found is None:
        raise ConfigError(
            "no checkpoint store is configured",
            hint="add --store URL, or set checkpoint_store under [worker] in pipeline.toml",
        )
    return found, settings.checkpoint_grace_s


def _inventories(
    app: str,
    group: str | None,
    chosen: TaskChoice | None,
    store: CheckpointStore,
    kafka: str | None,
    grace_s: float | None = None,
) -> Iterator[Inventory]:
    """Read the checkpoints of the tasks. With `grace_s`, also find the objects that can be deleted."""
    group_id = GroupId(app_named(app), group_of(group, chosen) or "main")
    settings = quiet_kafka_settings(kafka)
    with (
        closing(KafkaCluster(settings, CommandWait(settings))) as cluster,
        closing(KafkaJournalReader(settings)) as reader,
    ):
        tasks = journaled_tasks(cluster, group_id, chosen)
        cluster_id, now_ms = cluster.cluster_id(), 0
        if grace_s is not None:
            now_ms = store_time_ms(cluster_id, group_id, store, os.urandom(8))
        for task in tasks:
            found = inventory_of(
                task, cluster_id, reader, store, now_ms, grace_s or 0.0, to_delete=grace_s is not None
            )
            last = last_entry(task.journal, reader)
            inputs = inputs_in(task, cluster)
            yield replace(found, partitions=entry_partitions(last.entry, inputs) if last is not None else ())


def _show(inventories: Sequence[Inventory], *, json: bool) -> None:
    if json:
        for found in inventories:
            print_json(_document(found))
        return
    print_table(_COLUMNS, (cells for found in inventories for cells in _rows(found)))
    for found in inventories:
        for holding in found.holdings:
            if holding.problem:
                typer.echo(f"{_task_name(found)}, entry {holding.ref.seq:,}: {holding.problem}")
    strays = [held for found in inventories for held in found.strays.values()]
    if strays:
        print_message(
            f"{counted(len(strays), 'object')} ({sum(held.size for held in strays):,} bytes) "
            f"{'belongs' if len(strays) == 1 else 'belong'} to no checkpoint"
        )
    for found in inventories:
        if not found.restorable:
            print_message(
                f"{found.task} cannot be restored on an empty disk: runbooks/nothing-to-restore-from.md"
            )


_COLUMNS = (
    Column("task"),
    Column("entry", number=True),
    Column("offset", number=True),
    Column("created"),
    Column("bytes", number=True),
    Column("files", number=True),
    Column("state"),
)


def _rows(found: Inventory) -> Iterator[list[Cell]]:
    """A row for each checkpoint. Problems name objects and are long, so they are printed below the table."""
    if not found.holdings:
        yield [_task_name(found), None, None, None, None, None, "no checkpoint"]
    for holding in found.holdings:
        ref = holding.ref
        yield [
            *(_task_name(found), ref.seq, ref.offset),
            datetime.fromtimestamp(ref.wall_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ"),
            ref.size,
            len(holding.manifest.files) if holding.manifest else None,
            "damaged" if holding.problem else "ok",
        ]


def _task_name(found: Inventory) -> str:
    return f"{found.task.group}/{found.task.number}"


def _document(found: Inventory) -> dict[str, Any]:
    return {
        **task_fields(found.task, found.partitions),
        "prefix": found.prefix,
        "journal_start": found.journal_start,
        "journal_end": found.journal_end,
        "restorable": found.restorable,
        "checkpoints": [_holding(holding) for holding in found.holdings],
        "unreferenced_objects": len(found.strays),
        "unreferenced_bytes": sum(held.size for held in found.strays.values()),
    }


def _holding(holding: Holding) -> dict[str, Any]:
    ref = holding.ref
    return {
        "seq": ref.seq,
        "offset": ref.offset,
        "chain": ref.chain.hex(),
        "created_ms": ref.wall_ms,
        "bytes": ref.size,
        "files": len(holding.manifest.files) if holding.manifest else None,
        "manifest": ref.manifest,
        "problem": holding.problem,
    }
