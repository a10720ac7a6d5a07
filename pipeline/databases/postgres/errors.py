"""Translates psycopg's errors: `translation`, and `not_connected` for a connection that could not be made."""

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

__all__ = ["not_connected", "translation"]

# By the first two or all five letters of the SQLSTATE.
_AWAY = {"08", "53", "57", "25006", "25P03"}
_AGAIN = {"40", "55P03", "57014"}
# 25P02: a write function continued after an error of its own.
_ABOUT_ROWS = {"21", "22", "23", "25P02", "42804", "42846", "44", "P0"}
_SETUP = {"3D", "3F", "42"}
# What a server, or a pooler before it, says to those whom it does not let in.
_REFUSED = re.compile(
    r"authentication failed|no password supplied|does not exist|is not permitted to log in|pg_hba\.conf|"
    r"permission denied for database|no such (user|database)",
    re.IGNORECASE,
)


def translation(error: psycopg.Error, connection: psycopg.Connection[Any], place: str) -> PipelineError:
    """What an error of a statement means to the runtime."""
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
    """The client keeps no SQLSTATE of a connection that failed, so the text has to do.

    What is not known to be a refusal passes for an outage, which is waited for.
    """
    said = _scrubbed(text, dsn, known)
    if _REFUSED.search(text):
        return SinkUnreachableError(
            f"{place} lets this worker not in: {said}",
            hint="correct the sink's DSN (user, password, database), or what that server knows of them",
            refused=True,
        )
    return SinkUnreachableError(
        f"{place} cannot be reached: {said}",
        hint="check that the database runs, and the DSN: host, port, user, password, database",
    )


def _scrubbed(text: str, dsn: str, known: Mapping[str, Any]) -> str:
    """A message without anything that may be a part of a password, also of one that was not quoted as it should."""
    suspects = [str(known.get("password") or "")]
    if "://" in dsn:
        user_info = dsn.partition("://")[2].rpartition("@")[0].partition(":")[2]
        suspects += re.split(r"[@:/?#]", user_info)
    for suspect in sorted(suspects, key=len, reverse=True):
        if suspect:
            text = text.replace(suspect, "***")
    return " ".join(text.split())
