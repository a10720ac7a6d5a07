"""A user's write function inside the sink's transaction: `run_own_write`.

The function may send any statement, in any spelling, on its cursor or on the cursor's connection. Two objects of the
transaction itself tell whether it is still the one that moved the positions:

    guard   a cursor WITH HOLD whose query fails. The server runs that query at COMMIT, so a COMMIT rolls back; and
            it refuses PREPARE TRANSACTION after such a cursor. Nothing that the function sends commits the positions.
    mark    a savepoint with a random name. After ROLLBACK, or a COMMIT that failed, with or without another BEGIN,
            it does not exist.

The mark is checked whether the function returns or raises: a rejected row must never hide an ended transaction,
because the batch would be halved and continued from positions that its rows did not reach. Only a function that
closes the guard first (CLOSE ALL) can commit. This is detected, too, and the server says that this transaction was
committed.
"""

from __future__ import annotations

from secrets import token_hex
from typing import Any

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from pipeline.errors import FatalTaskError, RejectedRowsError, SinkUnreachableError
from pipeline.ports.databases import OwnWrite

__all__ = ["run_own_write"]

# The server's message for the failing query is this text, quoted. pg_backend_pid() keeps it from being evaluated early.
_GUARD = (
    "SELECT ('the write function must not end the transaction' || left(pg_backend_pid()::text, 0))::integer"
)
# No such savepoint; no transaction; no such cursor.
_ENDED = {"3B001", "25P01", "34000"}


def run_own_write(connection: psycopg.Connection[Any], write: OwnWrite, place: str) -> None:
    """Call the function. Raises FatalTaskError when it ended the transaction, RejectedRowsError, psycopg.Error."""
    mark = f"pipeline_{token_hex(8)}"
    guard = f"DECLARE {mark} NO SCROLL CURSOR WITH HOLD FOR {_GUARD}"
    xid = _send(connection, f"SAVEPOINT {mark}; {guard}; SELECT txid_current()")
    raised: Exception | None = None
    try:
        with psycopg.Cursor(connection) as cursor:
            write.function(cursor, write.events)
    except Exception as error:  # noqa: BLE001 - whatever the function raises is judged after the transaction is
        raised = error
    _check_connection(connection, write, place, raised)
    failed = connection.info.transaction_status is TransactionStatus.INERROR
    try:
        if raised is None and not failed:
            _send(connection, f"RELEASE SAVEPOINT {mark}; CLOSE {mark}")
            return
        _send(connection, f"ROLLBACK TO SAVEPOINT {mark}")
    except psycopg.Error as error:
        if error.sqlstate not in _ENDED:
            raise
        connection.rollback()
        if _send(connection, f"SELECT txid_status({xid})") == "committed":
            raise _committed(write, place) from raised or error
        raise _ended(write, place, "has ended the transaction") from raised or error
    if raised is None:
        raise RejectedRowsError(f"{write} continued after a statement of its own had failed")
    if isinstance(raised, psycopg.Error):
        raise raised
    raise RejectedRowsError(f"{type(raised).__name__}: {raised}") from raised


def _check_connection(
    connection: psycopg.Connection[Any], write: OwnWrite, place: str, raised: Exception | None
) -> None:
    """The connection can still be asked."""
    if connection.closed and not connection.broken:
        raise _ended(write, place, "has closed the connection") from raised
    if connection.closed:
        raise SinkUnreachableError(f"{place}: the connection was lost in {write}") from raised
    active = connection.info.transaction_status is TransactionStatus.ACTIVE
    if active or connection.pgconn.pipeline_status != PipelineStatus.OFF:
        raise _ended(write, place, "has left a statement or a pipeline of its own open") from raised


def _ended(write: OwnWrite, place: str, what: str) -> FatalTaskError:
    return FatalTaskError(
        f"{place}: {write} {what}, in which its rows and their positions are written; "
        "the batch was rolled back",
        hint="remove COMMIT, ROLLBACK, BEGIN, PREPARE TRANSACTION, CLOSE ALL and close() from the function; "
        "use savepoints (`with cursor.connection.transaction():`) to undo a part. Then restart the worker: it "
        "continues from the last committed position",
    )


def _committed(write: OwnWrite, place: str) -> FatalTaskError:
    return FatalTaskError(
        f"{place}: {write} has committed the transaction: the positions behind all of these records, and the rows that "
        "it had written until then",
        hint="remove CLOSE ALL and COMMIT from the function, compare these records with the tables, and go back to the "
        "first one that is missing: pipeline reset APP --group GROUP --from TOPIC=OFFSET --partition N",
    )


def _send(connection: psycopg.Connection[Any], statements: str) -> object:
    """On a cursor of our own, since the function may have changed what the connection makes; the last one's value."""
    with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(statements.encode())
        while cursor.nextset():
            pass
        found = cursor.fetchone() if cursor.description is not None else None
    return found[0] if found is not None else None
