"""`pipeline table`: the rows of a table, from the state directory of this machine or as they were; changes of a row.

Without --at, it also shows which states were read, and what Kafka knows that they do not contain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.api.declarations import DeclaredTable
from pipeline.api.histories import HistoryKey
from pipeline.api.windows import WindowKey
from pipeline.cli.lookup import TaskOption, find_app, group_of, no_task
from pipeline.cli.options import KafkaOption, StoreOption, print_json, print_message
from pipeline.cli.past import AppOption, open_past, require_app
from pipeline.cli.rendering import Cell, Column, print_table
from pipeline.cli.table_rows import TableRow, find_table, json_text, past_rows, print_history, rows_of
from pipeline.config import KafkaSettings, WorkerSettings, load_settings
from pipeline.core.names import GroupId, TaskChoice, TaskId
from pipeline.core.position import decode_position
from pipeline.core.records import iso_time
from pipeline.core.suggestions import counted, noun
from pipeline.errors import DeniedError, InputError, PipelineError, UnreachableError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ports import Cluster, JournalReader, SystemClock
from pipeline.rocksdb.rocks import RocksStores, state_directories
from pipeline.runtime.status import read_status

__all__ = ["asked_of_kafka", "missing_rows", "read_line", "require_task", "table_app"]

table_app = typer.Typer(help="Show the rows of tables, now and in the past.", no_args_is_help=True)
TableArgument = Annotated[
    str, typer.Argument(metavar="TABLE", help="A table, a window or a history, or GROUP.TABLE.")
]


def read_line(group: GroupId, applied: Mapping[int, int], directory: Path) -> str:
    """The states that were read. `applied`: the last journal entry in each state, by task."""
    tasks = ", ".join(f"{number} (entry {seq:,})" for number, seq in applied.items())
    return f"read from {directory}: {noun(len(applied), 'task')} {tasks} of {group.app}/{group.group}"


def asked_of_kafka(
    group: GroupId, applied: Mapping[int, int], only: int | None, settings: KafkaSettings
) -> list[str]:
    """`missing_rows` of a cluster. If it does not answer, one line says so: the rows can be shown without it."""
    try:
        with (
            closing(KafkaCluster(settings)) as cluster,
            closing(KafkaJournalReader(settings)) as reader,
        ):
            return missing_rows(group, applied, only, cluster, reader, SystemClock().wall_ms())
    except PipelineError as error:
        return [f"unknown whether these rows are current and complete: {error.message}"]


def missing_rows(
    group: GroupId,
    applied: Mapping[int, int],
    only: int | None,
    cluster: Cluster,
    reader: JournalReader,
    now_ms: int,
) -> list[str]:
    """The tasks whose state is elsewhere or out of date, with their workers, and how to read all current rows.

    Raises InputError if Kafka does not know the app, UnreachableError, FatalTaskError (a damaged journal).
    """
    elsewhere, lines = [], []
    for status in read_status(group.app, cluster, reader, now_ms).tasks:
        number = status.task.number
        if status.task.group_id != group or only not in {None, number}:
            continue
        worker = f"worker {status.worker}" if status.worker else "no worker"
        if number not in applied:
            elsewhere.append(f"task {number} ({worker})")
        elif applied[number] < status.seq:
            lines.append(
                f"task {number} is out of date here: its state is at entry {applied[number]:,}, its journal at "
                f"{status.seq:,} ({worker})"
            )
    if elsewhere:
        lines.insert(0, f"not read, because there is no state of them here: {', '.join(elsewhere)}")
    if lines:
        lines.append(f"to show the current rows of all tasks, from Kafka: --at {iso_time(now_ms)}")
    return lines


def require_task(group: GroupId, chosen: TaskChoice, cluster: Cluster) -> None:
    """Raise InputError if the group has a journal, and has no such task according to it. Raises UnreachableError."""
    journal = cluster.describe([group.journal_topic]).get(group.journal_topic)
    if journal is not None and chosen.number >= journal.partitions:
        raise no_task(group, chosen, journal.partitions)


@table_app.callback()
def _group() -> None:
    """Show the rows of tables, now and in the past."""


@table_app.command()
def show(
    table: TableArgument,
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[KEY]",
            help="Only this key. Write a tuple as JSON. Of a window or a history: KEY, KEY@START or "
            "KEY@TIME.",
        ),
    ] = None,
    app: AppOption = "",
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="SEQ|TIME",
            help="The rows as they were after journal entry SEQ of --task, or at a time with its offset from UTC.",
        ),
    ] = None,
    task: TaskOption = None,
    state_dir: Annotated[Path | None, typer.Option(help="The worker's state directory.")] = None,
    store: StoreOption = None,
    kafka: KafkaOption = None,
    most: Annotated[
        int | None,
        typer.Option(
            "--max", metavar="N", help="At most N rows; 0 for all. Default: 50; with --json, all.", min=0
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per row.")] = False,
) -> None:
    """Show the rows of a table from the state directory of this machine, also while the worker runs.

    Standard error names the tasks that were read, those whose state is elsewhere or out of date, and their workers.
    With --at, the rows are restored from the checkpoint store and the journal, on any machine, into a temporary
    directory. The app is not disturbed.
    """
    target = require_app(app)
    limit = most if most is not None else (0 if json else 50)
    if at is not None:
        with open_past(target, kafka, store) as place:
            definition = find_table(place.app, table)
            missing = InputError(f"table {definition.name} had no key {key!r} at {at}")
            rows = past_rows(place, definition, at, task, key)
            _print(rows, limit, None if key is None else missing, json=json)
        return
    found = find_app(target)
    definition = find_table(found, table)
    settings = load_settings({"state_dir": state_dir, "bootstrap_servers": kafka})
    group = TaskId(found.name, definition.group, 0).group_id
    group_of(definition.group, task)  # refuses a task of another group
    number = task.number if task is not None else None
    places = _places(settings.worker, group, number)
    if not places:
        if task is not None:
            with suppress(UnreachableError, DeniedError), closing(KafkaCluster(settings.kafka)) as cluster:
                require_task(group, task, cluster)
        what = f"group {definition.group}" if number is None else f"task {definition.group}/{number}"
        raise InputError(
            f"the state directory {settings.worker.state_dir} has no state of {what}",
            hint="give the worker's --state-dir, or restore the rows from Kafka: --at TIME, as in "
            "--at 2026-01-31T00:00:00Z. A table exists after the first run of a worker",
        )
    missing = InputError(
        f"table {definition.name} has no key {key!r} in the state of this machine",
        hint=f"show some keys: pipeline table show {table} --app {app} --max 5. Keys of other workers' tasks are "
        "on their machines",
    )
    applied = {number: _applied_seq(stores, TaskId(*group, number)) for number, stores in places.items()}
    try:
        _print(_rows(group, definition, places, key), limit, None if key is None else missing, json=json)
    finally:
        for line in (
            read_line(group, applied, settings.worker.state_dir),
            *asked_of_kafka(group, applied, number, settings.kafka),
        ):
            print_message(line)


@table_app.command()
def history(
    table: TableArgument,
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY",
            help="The key. Write a tuple as JSON. Of a window: KEY@START. Of a history: KEY@TIME, for the row with "
            "the values around that time.",
        ),
    ],
    app: AppOption = "",
    task: TaskOption = None,
    most: Annotated[
        int | None,
        typer.Option(
            "--max",
            metavar="N",
            help="At most N changes of each task, the newest; 0 for all. Default: 50; with --json, all.",
            min=0,
        ),
    ] = None,
    kafka: KafkaOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per change.")] = False,
) -> None:
    """Show every commit that changed a row: time, worker, old and new value, and input offsets.

    Reads the journals of all tasks, or of --task. They go back to the first entry of the app, or to its oldest kept
    checkpoint. The app is not disturbed.
    """
    with open_past(require_app(app), kafka, None) as place:
        limit = most if most is not None else (0 if json else 50)
        print_history(place, find_table(place.app, table), table, key, task, limit, json=json)


def _print(rows: Iterator[TableRow], limit: int, missing: InputError | None, *, json: bool) -> None:
    """Print the rows. Raises `missing`, if it is given, where there are none."""
    shown: list[list[Cell]] = []
    count, several = 0, False
    for row in rows:
        count += 1
        if limit and count > limit:
            break
        if json:
            print_json({**row.where, **_key_fields(row.key), "value": row.value})
        else:
            shown.append([row.where["task"], row.where["partition"], str(row.key), json_text(row.value)])
            several |= row.several
    if count == 0 and missing is not None:
        raise missing
    if json:
        return
    columns = [Column("task", number=True), Column("partition", number=True), Column("key"), Column("value")]
    if not several:  # its number is that of the task
        columns.pop(1)
        shown = [[cells[0], *cells[2:]] for cells in shown]
    print_table(columns, shown)
    if limit and count > limit:
        print_message(f"only the first {counted(limit, 'row')} are shown. Show all: --max 0")
    if count == 0:
        print_message("no rows")


def _key_fields(key: object) -> dict[str, object]:
    if isinstance(key, WindowKey | HistoryKey):
        return key._asdict()
    return {"key": key}


def _places(settings: WorkerSettings, group: GroupId, task: int | None = None) -> dict[int, RocksStores]:
    """Where to read the state of each task, or of `task`. Of several processes' states, the one with the newest entry.

    Raises InputError if there is no state directory, ConfigError if it cannot be read.
    """
    found: dict[int, tuple[int, RocksStores]] = {}
    for directory in state_directories(settings.state_dir):
        stores = RocksStores(directory, settings.block_cache_bytes)
        for number in stores.partitions(group):
            if task is not None and number != task:
                continue
            seq = _applied_seq(stores, TaskId(group.app, group.group, number))
            if seq > found.get(number, (-1, stores))[0]:
                found[number] = seq, stores
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
    group: GroupId, definition: DeclaredTable[Any, Any], places: Mapping[int, RocksStores], key: str | None
) -> Iterator[TableRow]:
    for number, stores in places.items():
        task = TaskId(*group, number)
        with closing(stores.open_read_only(task)) as store:
            yield from rows_of(definition, store, task, key)
