"""Detects a pooler that gives each transaction another session of the server: `refuse_transaction_pooling`.

A sink's session has time-outs for locks and idle transactions, temporary tables and prepared statements. Under
transaction pooling, they belong to another client's transactions, or are lost. A direct connection is recognized by its
process id, which the server has sent to the client; a pooler makes one up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from pipeline.errors import ConfigError

__all__ = ["refuse_transaction_pooling", "transaction_pooling"]

Connection = psycopg.Connection[Any]


def refuse_transaction_pooling(first: Connection, connect: Callable[[], Connection], place: str) -> None:
    """At a start. Raises ConfigError.

    1 the session of `first` between two transactions
    2 a transaction on another connection: is it in that session
    3 the session of `first` while that transaction is open
    """
    pid = _pid(first)
    if pid == first.info.backend_pid:
        return
    changed = _pid(first) != pid  # 1
    if not changed:
        try:
            with connect() as second:
                second.execute("BEGIN")
                changed = _pid(second) == pid or _pid(first) != pid  # 2, 3
                second.rollback()
        except psycopg.Error as error:
            # PgBouncer's third mode has no transactions. Any other error: a pooler of few sessions has none left.
            changed = "statement pooling" in str(error)
    if changed:
        raise transaction_pooling(place)


def transaction_pooling(place: str) -> ConfigError:
    """The error for a database behind such a pooler."""
    return ConfigError(
        f"{place}: a pooler gives each transaction another session of the server; the sessions of sinks keep settings, "
        "temporary tables and prepared statements",
        hint="connect to the server itself, or let the pooler keep sessions for this user or database (PgBouncer: "
        "pool_mode = session): docs/how-to/sinks.md",
    )


def _pid(connection: Connection) -> int:
    found = connection.execute("SELECT pg_backend_pid()").fetchone()
    return int(found[0]) if found is not None else 0
