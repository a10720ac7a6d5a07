"""A connection to PostgreSQL: `PostgresSession`.

Each session bounds how long others wait for it. A statement waits for a lock at most LOCK_MS. The server ends a session
that is idle in a transaction for IDLE_S, for example because its process was stopped or its machine is unreachable. A
session that waits longer than LOCK_MS for the rows of a task ends the session that holds them, if a worker opened it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row
from psycopg.types.json import JsonbDumper

from pipeline.core.names import GroupId, TaskId
from pipeline.core.row_sets import Gone, TableFacts, as_sets, fits, versions
from pipeline.core.sink_positions import Hold, PositionRow
from pipeline.databases.postgres.catalog import facts_of, shape_of
from pipeline.databases.postgres.errors import not_connected, refuse_bytes, translation
from pipeline.databases.postgres.own_writes import run_own_write
from pipeline.databases.postgres.pooling import refuse_transaction_pooling, transaction_pooling
from pipeline.databases.sql import POSITIONS, POSITIONS_DDL, SqlSession, quoted_column
from pipeline.errors import (
    ConfigError,
    InvariantError,
    PipelineError,
    RejectedRowsError,
    RetriableError,
    SinkUnreachableError,
    UnknownOutcomeError,
)
from pipeline.ports.databases import OwnWrite, RowsWrite, TableShape

__all__ = ["Pinned", "PostgresSession"]

LOCK_MS = 3_000
IDLE_S = 30
COPY_FROM_ROWS = 20
STAGE_FROM_ROWS = 100
# An update of a row visits all versions of it from its own transaction. Above this number, two transactions are faster.
VERSIONS = 400
APPLICATION = "pipeline/"
# Detect a dead server, or a network that drops all packets, within about 20 s.
DEFAULTS: Mapping[str, str] = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "20000",
}
_FIND_POSITIONS = (
    "(SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_catalog.pg_class c "
    f"JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass('{POSITIONS}'))"
)
_OTHER_POSITIONS = (
    "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_catalog.pg_class c "
    f"JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = '{POSITIONS}' "
    "AND c.relkind IN ('r', 'p') AND c.oid <> to_regclass(%s) AND has_schema_privilege(n.oid, 'USAGE') "
    "AND has_table_privilege(c.oid, 'SELECT') ORDER BY 1"
)


@dataclass(slots=True)
class Pinned:
    """The name of the table of positions, with its schema. The first session of the process finds it."""

    name: str = ""


class PostgresSession(SqlSession):
    """A connection. `app` appears in pg_stat_activity."""

    MARK = "%s"
    MODULO = "%%"  # doubled, as in each statement with parameters
    ORDER = 'topic COLLATE "C", partition_no'
    LOCK = " FOR UPDATE"
    SAME_SESSION = " AND pg_backend_pid() = %s"

    def __init__(self, dsn: str, place: str, app: str, pinned: Pinned | None = None) -> None:
        self._place = place
        self._pinned = pinned if pinned is not None else Pinned()
        self._blocked: tuple[TaskId, int] | None = None  # a task, and the number of tasks of its group
        self._staged: set[str] = set()
        self._temporary: bool | None = None
        known = _parsed(dsn, place)
        options: dict[str, Any] = {name: value for name, value in DEFAULTS.items() if name not in known}
        options |= {"autocommit": True, "application_name": (APPLICATION + app)[:63]}
        self._connect_another = partial(psycopg.connect, dsn, **options)
        try:
            self._connection = self._connect_another()
            refuse_bytes(self._connection, place)
            self._connection.adapters.register_dumper(dict, JsonbDumper)
            [(self._pid, found)] = self._run(
                f"SELECT pg_backend_pid(), {_FIND_POSITIONS} FROM (SELECT set_config('lock_timeout', %s, false), "
                "set_config('idle_in_transaction_session_timeout', %s, false)) settings".encode(),
                (f"{LOCK_MS}ms", f"{IDLE_S}s"),
            ).fetchall()
        except psycopg.Error as error:
            raise not_connected(
                str(error), dsn, place, known
            ) from None  # its text may contain a part of the DSN
        self.same_session = (self._pid,)
        self._pinned.name = self._pinned.name or found or ""

    @property
    def positions(self) -> str:
        return self._pinned.name or POSITIONS

    def prepare(self) -> None:
        with self._translated():
            refuse_transaction_pooling(self._connection, self._connect_another, self._place)
        if self._has_positions():
            return
        ddl = f"{POSITIONS_DDL} WITH (fillfactor = 50)"
        try:
            self.execute(ddl)
        except PipelineError as error:
            if self._has_positions():
                return  # another worker has created it concurrently
            raise ConfigError(
                f"{self._place}: the table {POSITIONS} is missing and cannot be created: {error.message}",
                hint=f"create it, and grant SELECT, INSERT and UPDATE on it to this role:\n{ddl};",
            ) from error
        self._has_positions()

    def elsewhere(self, group: GroupId, cluster_id: str) -> list[str]:
        return [
            name
            for (name,) in self.query(_OTHER_POSITIONS, (self.positions,))
            if self._holds(name, group, cluster_id)
        ]

    def shape(self, table: str) -> TableShape | None:
        return shape_of(self.query, table)

    def facts(self, name: str, key: Sequence[str]) -> TableFacts | None:
        return facts_of(self.query, name, key)

    def begin(self) -> None:
        """Begin a transaction. The client sends BEGIN before the first statement.

        Without autocommit, it sends BEGIN again if a write function ends the transaction. So the later statements of
        the function are also in a transaction, which is rolled back.
        """
        with self._translated():
            self._connection.autocommit = False

    def lock(self, task: TaskId, tasks: int) -> list[PositionRow]:
        with self._noting(task, tasks):
            return super().lock(task, tasks)

    def move(self, hold: Hold, after: Mapping[str, int]) -> bool:
        """The fence. It also detects a pooler that has moved this connection to another server session."""
        with self._noting(hold.task, hold.tasks):
            moved = super().move(hold, after)
        if not moved and self.query("SELECT pg_backend_pid()") != [self.same_session]:
            raise transaction_pooling(self._place)
        return moved

    def commit(self) -> None:
        """Commit. Checks the command tag, because the server answers COMMIT of a failed transaction with ROLLBACK."""
        try:
            done = self._run(b"COMMIT").statusmessage
            self._connection.autocommit = True
        except psycopg.Error as error:
            raised = translation(error, self._connection, self._place)
            if isinstance(raised, SinkUnreachableError):
                # Also if the server reports it: the server may end a session between the commit and its answer.
                raise UnknownOutcomeError(raised.message, hint=raised.hint) from error
            raise raised from error
        if done != "COMMIT":
            raise InvariantError(f"{self._place}: COMMIT of a transaction that had failed: {done}")

    def rollback(self) -> None:
        self._staged.clear()  # the rollback drops the tables that the transaction created
        with suppress(psycopg.Error):
            self._connection.rollback()  # also discards statements that were prepared after an error
            self._connection.autocommit = True
            if self._blocked is not None:
                blocked, self._blocked = self._blocked, None
                self._end_holders(*blocked)

    def close(self) -> None:
        with suppress(psycopg.Error):
            self._connection.close()

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._translated():
            return self._run(sql.encode(), parameters).fetchall()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        with self._translated():
            return self._run(sql.encode(), parameters or None).rowcount

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> int:
        with self._translated(), psycopg.Cursor(self._connection) as cursor:
            cursor.executemany(sql.encode(), rows)
            return cursor.rowcount

    def write_rows(self, write: RowsWrite) -> None:
        """Write many rows with COPY if the result is the same, through a temporary table if rows may already exist.

        Refuses a batch with too many changes of the same rows as a whole, so that the caller halves it.
        """
        target, columns = write.target, write.columns
        if target.mode == "upsert":
            sets = as_sets(write.changes, columns, target.key, target.facts)
            if sets is None and versions(write.changes, columns, target.key) > VERSIONS:
                raise RejectedRowsError("the batch changes the same rows too often for one transaction")
            if sets is None and psycopg.Pipeline.is_supported():
                self._write_in_order(write)
                return
            if sets is None:
                super().write_rows(write)
                return
            if sets.deletes:
                self.execute_many(self.delete(write), sets.deletes)
            rows = sets.rows
        else:
            rows = [change for change in write.changes if not isinstance(change, Gone)]
        if rows:
            self._insert(write, rows)

    def _insert(self, write: RowsWrite, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows in their order."""
        target, columns = write.target, write.columns
        append = target.mode == "append"
        facts = target.facts
        if (
            len(rows) < (COPY_FROM_ROWS if append else STAGE_FROM_ROWS)
            or facts is None
            or not (append or (facts.in_sets and self._may_stage()))
            or not fits(rows, columns, facts)
        ):
            self.execute_many(self.insert(write), rows)
        elif append:
            self._copy(target.table, columns, rows)
        else:
            stage = self._stage(write)
            self._copy(stage, columns, rows)
            listed = self.listed(columns)
            into = f"INSERT INTO {self.named(target.table)} ({listed})"
            # The percent signs of names are doubled, as in a statement with parameters. So this statement has one.
            ordered = "" if target.mode == "upsert" and facts.independent else " ORDER BY ctid"
            select = f"SELECT {listed} FROM {stage} WHERE %s{ordered}"
            self.execute(f"{into} {select}{self.on_conflict(write)}", (True,))

    def _write_in_order(self, write: RowsWrite) -> None:
        """Like `SqlSession.write_rows`, but without waiting for each answer."""
        insert, delete = self.insert(write).encode(), self.delete(write).encode()
        first: Exception | None = None
        with self._translated(), psycopg.Cursor(self._connection, row_factory=tuple_row) as cursor:
            try:
                with self._connection.pipeline():
                    try:
                        for change in write.changes:
                            if isinstance(change, Gone):
                                cursor.execute(delete, change.key)
                            else:
                                cursor.execute(insert, change)
                    except Exception as error:  # noqa: BLE001 - kept: the exit of the pipeline raises another
                        first = error
            except psycopg.Error as error:
                raise first or error from None
            if first is not None:
                raise first

    def own_write(self, write: OwnWrite) -> None:
        with self._translated():
            run_own_write(self._connection, write, self._place)

    def compared(self, write: RowsWrite, column: str) -> str:
        facts = write.target.facts
        return f"CAST(%s AS {facts.types[column].replace('%', '%%')})" if facts is not None else "%s"

    def named(self, name: str) -> str:
        return name.replace("%", "%%")

    def named_column(self, column: str) -> str:
        return super().named_column(column).replace("%", "%%")

    def _copy(self, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        # COPY has no parameters, so percent signs in names are not doubled.
        sql = f"COPY {table} ({', '.join(map(quoted_column, columns))}) FROM STDIN"
        with (
            self._translated(),
            psycopg.Cursor(self._connection) as cursor,
            cursor.copy(sql.encode()) as copy,
        ):
            for row in rows:
                copy.write_row(row)

    def _stage(self, write: RowsWrite) -> str:
        """An empty temporary table with these columns and their types, but without constraints."""
        columns = ", ".join(map(quoted_column, write.columns))
        select = f"SELECT {columns} FROM {write.target.table}"
        stage = f"pg_temp.pipeline_{blake2b(select.encode(), digest_size=8).hexdigest()}"
        if stage not in self._staged:
            temporary = f"CREATE TEMP TABLE IF NOT EXISTS {stage.removeprefix('pg_temp.')}"
            self.execute(f"{temporary} ON COMMIT DELETE ROWS AS {select} WITH NO DATA")
            self._staged.add(stage)
        self.execute(f"TRUNCATE {stage}")  # it may contain rows of another sink in this transaction
        return stage

    def _may_stage(self) -> bool:
        if self._temporary is None:
            self._temporary = self.query("SELECT has_database_privilege(current_database(), 'TEMP')") == [
                (True,)
            ]
        return self._temporary

    def _has_positions(self) -> bool:
        """Whether the table exists. Stores its schema, so that later search paths have no effect."""
        if not self._pinned.name:
            self._pinned.name = self.query(f"SELECT {_FIND_POSITIONS}")[0][0] or ""
        return bool(self._pinned.name)

    def _holds(self, name: str, group: GroupId, cluster_id: str) -> bool:
        where = "WHERE app = %s AND group_name = %s AND cluster_id = %s"
        try:
            return bool(self.query(f"SELECT FROM {self.named(name)} {where} LIMIT 1", (*group, cluster_id)))
        except ConfigError:
            return False  # a table with this name but other columns

    def _end_holders(self, task: TaskId, tasks: int) -> None:
        """End the sessions that have locked rows of a task, if a worker opened them.

        Otherwise a process that was stopped inside a transaction would block its successor.
        """
        self._run(
            f"SELECT pg_terminate_backend(l.pid) FROM {self.named(self.positions)} p "
            "JOIN pg_locks l ON l.locktype = 'transactionid' AND l.transactionid = p.xmax AND l.granted "
            "JOIN pg_stat_activity a ON a.pid = l.pid "
            "WHERE p.app = %s AND p.group_name = %s AND p.partition_no %% %s = %s AND l.pid <> pg_backend_pid() "
            "AND a.application_name LIKE %s".encode(),
            (*task.group_id, tasks, task.number, APPLICATION + "%"),
        )

    def _run(self, sql: bytes, parameters: Sequence[Any] | None = None) -> psycopg.Cursor[tuple[Any, ...]]:
        """Run a statement on a new cursor: a write function may have changed the connection's factories."""
        return psycopg.Cursor(self._connection, row_factory=tuple_row).execute(sql, parameters)

    @contextmanager
    def _noting(self, task: TaskId, tasks: int) -> Iterator[None]:
        """Record the task whose rows were locked for too long."""
        try:
            yield
        except RetriableError:
            self._blocked = task, tasks
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise translation(error, self._connection, self._place) from error


def _parsed(dsn: str, place: str) -> Mapping[str, Any]:
    try:
        return conninfo_to_dict(dsn)
    except psycopg.Error:
        raise ConfigError(
            f"the DSN of {place} cannot be read",
            hint="postgresql://USER:PASSWORD@HOST:PORT/DATABASE, special characters of the password in percent "
            "code; or host=HOST dbname=DATABASE ...",
        ) from None  # libpq's message contains the DSN
