"""A user's write function inside the sink's transaction: `run_own_write`.

The function may send any statement, in any form, on its cursor or on the cursor's connection. Two objects inside the
transaction show whether it is still the transaction that moved the positions:

    guard   a cursor WITH HOLD whose query fails. The server runs the query at COMMIT, so a COMMIT rolls back. The
            server also refuses PREPARE TRANSACTION after such a cursor. So the function cannot commit the positions.
    mark    a savepoint with a random name. It does not exist after ROLLBACK or a failed COMMIT, with or without
            another BEGIN.

The mark is checked when the function returns and when it raises. Otherwise a rejected row could hide an ended
transaction: the batch would be halved, and the task would continue from positions whose rows were not written. Only a
function that closes the guard first (CLOSE ALL) can commit. This is also detected: the server reports that the
transaction was committed.
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

# The server's error for this query quotes the text. pg_backend_pid() prevents constant folding.
_GUARD = (
    "SELECT ('the write function must not end the transaction' || left(pg_backend_pid()::text, 0))::integer"
)
# The savepoint, the transaction or the cursor does not exist.
_ENDED = {"3B001", "25P01", "34000"}


def run_own_write(connection: psycopg.Connection[Any], write: OwnWrite, place: str) -> None:
    """Call the function. Raises FatalTaskError if it ended the transaction, RejectedRowsError, psycopg.Error."""
    mark = f"pipeline_{token_hex(8)}"
    guard = f"DECLARE {mark} NO SCROLL CURSOR WITH HOLD FOR {_GUARD}"
    xid = _send(connection, f"SAVEPOINT {mark}; {guard}; SELECT txid_current()")
    raised: Exception | None = None
    try:
        with psycopg.Cursor(connection) as cursor:
            write.function(cursor, write.events)
    except Exception as error:  # noqa: BLE001 - the transaction is checked before the exception
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
    """Raise FatalTaskError unless the connection can run another statement."""
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
        "first one that is missing: pipeline reset APP --group GROUP --from TOPIC=OFFSET --task N",
    )


def _send(connection: psycopg.Connection[Any], statements: str) -> object:
    """Send statements on a new cursor of a fixed class, because the function may have changed the connection's factory.

    Returns the value of the last one.
    """
    with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(statements.encode())
        while cursor.nextset():
            pass
        found = cursor.fetchone() if cursor.description is not None else None
    return found[0] if found is not None else None
