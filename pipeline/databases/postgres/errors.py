"""Translates psycopg's errors: `translation` for statements, `not_connected` for failed connections.

`refuse_bytes` refuses a database from which psycopg would return bytes instead of text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import psycopg

from pipeline.errors import (
    ConfigError,
    FatalTaskError,
    PipelineError,
    RejectedRowsError,
    RetriableError,
    SinkUnreachableError,
)

__all__ = ["not_connected", "refuse_bytes", "translation"]

# By the first two characters or all five characters of the SQLSTATE.
_AWAY = {"08", "53", "57", "25006", "25P03"}
_AGAIN = {"40", "55P03", "57014"}
# 25P02: a write function continued after an error of its own.
_ABOUT_ROWS = {"21", "22", "23", "25P02", "42804", "42846", "44", "P0"}
_SETUP = {"3D", "3F", "42"}
# The messages of a server, or of a pooler in front of it, that refuses a connection.
_REFUSED = re.compile(
    r"authentication failed|no password supplied|does not exist|is not permitted to log in|pg_hba\.conf|"
    r"permission denied for database|no such (user|database)",
    re.IGNORECASE,
)


def translation(error: psycopg.Error, connection: psycopg.Connection[Any], place: str) -> PipelineError:
    """The exception for a failed statement."""
    state = error.sqlstate
    reason = error.diag.message_primary or " ".join(str(error).split())
    text = f"{place}: {reason}"
    lost = connection.closed or connection.broken
    if state is None:
        about_rows = isinstance(error, psycopg.DataError | psycopg.ProgrammingError) and not lost
        return RejectedRowsError(reason) if about_rows else SinkUnreachableError(text)
    kinds = {state, state[:2]}
    if kinds & _AGAIN:
        return RetriableError(text)
    if kinds & _AWAY or lost:
        return SinkUnreachableError(text)
    if kinds & _ABOUT_ROWS:
        detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
        return RejectedRowsError(f"{reason}{detail}")
    if kinds & _SETUP:
        return ConfigError(text, hint="compare the sink with the tables and rights that the database has")
    return FatalTaskError(f"{text} (SQLSTATE {state})")


def not_connected(text: str, dsn: str, place: str, known: Mapping[str, Any]) -> SinkUnreachableError:
    """The exception for a failed connection.

    The client has no SQLSTATE for it, so the text decides. Any error that is not a known refusal is treated as an
    outage, and the caller retries.
    """
    message = _scrubbed(text, dsn, known)
    if _REFUSED.search(text):
        return SinkUnreachableError(
            f"{place} lets this worker not in: {message}",
            hint="correct the sink's DSN (user, password, database), or what that server knows of them",
            refused=True,
        )
    return SinkUnreachableError(
        f"{place} cannot be reached: {message}",
        hint="check that the database runs, and the DSN: host, port, user, password, database",
    )


def refuse_bytes(connection: psycopg.Connection[Any], place: str) -> None:
    """Close the connection and raise ConfigError if the database has no encoding.

    SQL_ASCII stores any bytes. So psycopg returns text as bytes, and other clients may read other characters.
    """
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "SQL_ASCII":
        return
    connection.close()
    raise ConfigError(
        f"{place}: the encoding of the database is {encoding}, which stores bytes and not characters; "
        "sinks need UTF8",
        hint="move its tables to a database with another name, and name that one in the DSN: "
        "CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0;",
    )


def _scrubbed(text: str, dsn: str, known: Mapping[str, Any]) -> str:
    """The message without any part of a password, also if the password was not quoted correctly in the DSN."""
    suspects = [str(known.get("password") or "")]
    if "://" in dsn:
        user_info = dsn.partition("://")[2].rpartition("@")[0].partition(":")[2]
        suspects += re.split(r"[@:/?#]", user_info)
    for suspect in sorted(suspects, key=len, reverse=True):
        if suspect:
            text = text.replace(suspect, "***")
    return " ".join(text.split())
