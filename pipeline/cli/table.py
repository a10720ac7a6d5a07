"""`pipeline table show`: the rows of a table, read from the state directory of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from pipeline.api.app import DeclaredApp
from pipeline.api.declarations import DeclaredTable
from pipeline.api.keys import parse_key
from pipeline.api.table import table_prefix
from pipeline.cli.lookup import find_app
from pipeline.cli.options import counted, print_json, say
from pipeline.cli.tables import Cell, Column, print_table
from pipeline.config import WorkerSettings, load_settings
from pipeline.core.names import GroupId, TaskId
from pipeline.core.position import decode_position
from pipeline.errors import ConfigError, InputError
from pipeline.rocksdb.rocks import RocksStores

__all__ = ["table_app"]

table_app = typer.Typer(help="Show the rows of tables.", no_args_is_help=True)


@table_app.callback()
def _group() -> None:
    """Show the rows of tables."""


@table_app.command()
def show(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A table, or GROUP.TABLE.")],
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Only this key. Write a tuple as JSON.")
    ] = None,
    app: Annotated[
        str,
        typer.Option(
            "--app",
            metavar="MODULE:APP",
            envvar="PIPELINE_APP",
            help="The app of the table. Default: $PIPELINE_APP.",
        ),
    ] = "",
    state_dir: Annotated[Path | None, typer.Option(help="The worker's state directory.")] = None,
    most: Annotated[
        int | None,
        typer.Option(
            "--max", metavar="N", help="At most N rows; 0 for all. Default: 50; with --json, all.", min=0
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per row.")] = False,
) -> None:
    """Show the rows of a table from the state directory of this machine, also while the worker runs.

    Rows of a task that has moved to another worker are outdated. `pipeline status` shows the worker of each task.
    """
    if not app:
        raise ConfigError(
            "the app of the table is not given", hint="add --app MODULE:APP, or set PIPELINE_APP"
        )
    found = find_app(app)
    definition = _find_table(found, table)
    settings = load_settings({"state_dir": state_dir})
    _check_state_dir(settings.worker.state_dir)
    places = _places(settings.worker, TaskId(found.name, definition.group, 0).group_id)
    if not places:
        raise InputError(
            f"the state directory {settings.worker.state_dir} has no state of group {definition.group}",
            hint="give the worker's --state-dir. A table exists after the first run of a worker",
        )
    limit = most if most is not None else (0 if json else 50)
    shown: list[list[Cell]] = []
    count = 0
    for task, row_key, value in _rows(found, definition, places, key):
        count += 1
        if limit and count > limit:
            break
        if json:
            print_json({"task": task, "key": row_key, "value": value})
        else:
            shown.append([task, str(row_key), msgspec.json.encode(value).decode()])
    if key is not None and count == 0:
        raise InputError(
            f"table {definition.name} has no key {key!r} in the state of this machine",
            hint=f"show some keys: pipeline table show {table} --app {app} --max 5. Keys of other workers' tasks are "
            "on their machines",
        )
    if json:
        return
    print_table((Column("task", number=True), Column("key"), Column("value")), shown)
    if limit and count > limit:
        say(f"only the first {counted(limit, 'row')} are shown. Show all: --max 0")
    if count == 0:
        say("no rows")


def _check_state_dir(directory: Path) -> None:
    if not directory.is_dir():
        what = "is not a directory" if directory.exists() else "does not exist"
        raise InputError(
            f"the state directory {directory} {what}",
            hint="run this on the worker's machine, or give the worker's --state-dir",
        )


def _places(settings: WorkerSettings, group: GroupId) -> dict[int, RocksStores]:
    """Where to read the state of each task. Of several processes' states, the one with the newest entry."""
    found: dict[int, tuple[int, RocksStores]] = {}
    for directory in [settings.state_dir, *sorted(settings.state_dir.glob("process.*"))]:
        stores = RocksStores(directory, settings.block_cache_bytes)
        for path in (directory / group.app / group.group).glob("*"):
            if path.name.isdigit():
                task = TaskId(group.app, group.group, int(path.name))
                seq = _applied_seq(stores, task)
                if seq > found.get(task.partition, (-1, stores))[0]:
                    found[task.partition] = seq, stores
    return {number: stores for number, (_, stores) in sorted(found.items())}


def _applied_seq(stores: RocksStores, task: TaskId) -> int:
    if not stores.exists(task):
        return -1
    store = stores.open_read_only(task)
    try:
        data = store.position()
        return decode_position(data, str(task)).seq if data is not None else 0
    finally:
        store.close()


def _rows(
    app: DeclaredApp, definition: DeclaredTable[Any, Any], places: Mapping[int, RocksStores], key: str | None
) -> Iterator[tuple[int, Any, Any]]:
    prefix = table_prefix(definition.name)
    for task, stores in places.items():
        store = stores.open_read_only(TaskId(app.name, definition.group, task))
        try:
            data = store.position()
            if data is not None:
                _check_schema(definition, decode_position(data, f"task {task}").identity.tables)
            if key is None:
                for full_key, value in store.scan(prefix):
                    yield (
                        task,
                        definition.key.decode(full_key[len(prefix) :]),
                        definition.value.decode(value),
                    )
            else:
                wanted = definition.key.encode(parse_key(definition.key, key))
                value_data = store.get(prefix + (wanted or b""))
                if value_data is not None:
                    yield task, definition.key.decode(wanted), definition.value.decode(value_data)
        finally:
            store.close()


def _check_schema(definition: DeclaredTable[Any, Any], stored: dict[str, str]) -> None:
    fingerprint = stored.get(definition.name)
    if fingerprint is not None and fingerprint != definition.fingerprint:
        raise ConfigError(
            f"table {definition.name} was written with another schema:\n  was {fingerprint}"
            f"\n  now {definition.fingerprint}",
            hint="show it with the version of the app that wrote it",
        )


def _find_table(app: DeclaredApp, name: str) -> DeclaredTable[Any, Any]:
    group_name, _, table_name = name.rpartition(".")
    found = [
        definition
        for group in app.groups
        for definition in group.tables.values()
        if definition.name == table_name and group_name in {"", definition.group}
    ]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{d.group}.{d.name}" for group in app.groups for d in group.tables.values())
    what = "several groups have a table" if found else f"app {app.name} has no table"
    raise InputError(f"{what} {name}", hint=f"its tables: {known or 'none'}")
