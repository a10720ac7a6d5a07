"""`/api/rows/GROUP/TABLE?key=KEY`: the committed row of a key, from the worker that owns its task: `RowDocuments`.

Of a window, `&at_ms=TIME` names the windows; of a history, `&from_ms=TIME&to_ms=TIME` names the values. The answer then
has `rows`.

| status | meaning |
| --- | --- |
| 200 | the row, or `found: false` |
| 400 | the key, the partition or a time is missing or wrong |
| 404 | this worker does not run the group, or its app does not declare the table: then `declared` is false |
| 421 | another worker owns the task: `worker`, `address` |
| 503 | no worker is known to own the task, or this worker is starting |
"""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64decode
from binascii import Error as Base64Error
from http import HTTPStatus
from typing import Any

import msgspec

from pipeline.api.app import DeclaredApp
from pipeline.api.declarations import DeclaredTable
from pipeline.api.declared_group import DeclaredGroup
from pipeline.api.encode_errors import LATEST_MS
from pipeline.api.histories import DeclaredHistory
from pipeline.api.keys import parse_key
from pipeline.api.row_places import partition_of_row
from pipeline.api.shown import represented
from pipeline.api.timed_rows import TimedRow, Times, has_times
from pipeline.core.suggestions import counted, did_you_mean
from pipeline.errors import InputError
from pipeline.http.application import Answer, Request, failed, json_answer
from pipeline.runtime.row_queries import Elsewhere, FoundRow, RowQueries

__all__ = ["ROWS", "RowDocuments"]

ROWS = "/api/rows/"
_HELP = "see docs/how-to/queries.md"


class _UndeclaredTableError(LookupError):
    """The app of this worker declares the group, and no such table. Other workers of the app have the same tables."""


class RowDocuments:
    """Answers requests for rows.

    Args:
        app: The app; None if only its name is known. Then no table is found.
        worker: The id of this worker.
    """

    def __init__(self, app: DeclaredApp | None, worker: str) -> None:
        self._app = app
        self._worker = worker
        self.queries: RowQueries | None = None  # once the worker runs

    def answer(self, request: Request) -> Answer:
        """The answer to a request."""
        queries = self.queries
        try:
            group, table = self._named(request.path.removeprefix(ROWS))
            partitions = queries.partitions(group.name) if queries is not None else None
            if queries is None or partitions is None:
                return failed(HTTPStatus.SERVICE_UNAVAILABLE, "the worker is starting", "try again")
            partition, key = _place(group, table, request, partitions)
            times = _times(table, request) if has_times(table) else None
        except _UndeclaredTableError as error:
            document = {"error": str(error), "hint": "request a table of this group", "declared": False}
            return json_answer(document, HTTPStatus.NOT_FOUND)
        except LookupError as error:
            hint = f"request {ROWS}GROUP/TABLE?key=KEY from a worker that runs the group"
            return failed(HTTPStatus.NOT_FOUND, str(error.args[0]), hint)
        except (InputError, ValueError) as error:
            return _bad_request(error)
        found = queries.find(group.name, table, partition, key, times)
        if isinstance(found, FoundRow):
            return json_answer(self._document(table, partition, found))
        return _elsewhere(found)

    def _named(self, path: str) -> tuple[DeclaredGroup, DeclaredTable[Any, Any]]:
        """The group and the table of a path. Raises LookupError."""
        groups = {group.name: group for group in (self._app.groups if self._app is not None else ())}
        group_name, _, table_name = path.partition("/")
        group = groups.get(group_name)
        if group is None:
            similar = did_you_mean(group_name, groups)
            raise LookupError(f"this worker does not run a group {group_name!r}{similar}")
        tables = {name: table for name, table in group.tables.items() if table.is_table or has_times(table)}
        table = tables.get(table_name)
        if table is None:
            similar = did_you_mean(table_name, tables)
            raise _UndeclaredTableError(f"group {group_name} has no table {table_name!r}{similar}")
        return group, table

    def _document(self, table: DeclaredTable[Any, Any], partition: int, found: FoundRow) -> dict[str, object]:
        if found.rows is None:
            row = _value(table, found.data)
        else:
            row = {"rows": [{**_when(table, each), **_value(table, each.data)} for each in found.rows]}
        return {
            **row,
            "task": f"{found.task.group}/{found.task.number}",
            "partition": partition,
            "seq": found.seq,
            "positions": {f"{place.topic}/{place.partition}": at for place, at in found.positions.items()},
            "age_s": round(found.age_s, 3),
            "worker": self._worker,
        }


def _bad_request(error: InputError | ValueError) -> Answer:
    if isinstance(error, InputError):
        return failed(HTTPStatus.BAD_REQUEST, error.message, error.hint or _HELP)
    return failed(HTTPStatus.BAD_REQUEST, str(error), _HELP)


def _place(
    group: DeclaredGroup, table: DeclaredTable[Any, Any], request: Request, partitions: int
) -> tuple[int, bytes]:
    """The partition and the encoded key of a request. Raises InputError, ValueError."""
    query = request.query
    try:
        if "key_base64" in query:
            encoded = urlsafe_b64decode(query["key_base64"])
            key = table.key_codec.decode(encoded)
        elif "key" in query:
            key = (
                parse_key(table.key_codec, query["key"])
                if has_times(table)
                else table.parse_key(query["key"])
            )
            encoded = table.key_codec.encode(key) or b""
        else:
            raise InputError("the request names no key", hint="add ?key=KEY")
    except (Base64Error, msgspec.DecodeError, TypeError) as error:
        raise InputError(f"the key cannot be decoded: {error}") from error
    if "partition" not in query:
        return partition_of_row(group, table, key, partitions), encoded
    text = query["partition"]
    if not (text.isascii() and text.isdecimal()):
        raise InputError(f"partition is {text!r}; it must be a whole number, 0 or more")
    partition = int(text)
    if not 0 <= partition < partitions:
        raise InputError(
            f"there is no partition {partition}: the inputs have {counted(partitions, 'partition')}, from 0"
        )
    return partition, encoded


def _elsewhere(found: Elsewhere | None) -> Answer:
    if found is None or not found.worker:
        return failed(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "no worker is known to own the task",
            "try again, or run pipeline status APP",
        )
    document = {
        "error": f"worker {found.worker} owns task {found.task.group}/{found.task.number}, which is not live here",
        "hint": f"send the request to {found.address}"
        if found.address
        else "that worker has no HTTP port: start it with --http-port",
        "worker": found.worker,
        "address": found.address,
    }
    return json_answer(document, HTTPStatus.MISDIRECTED_REQUEST)


def _times(table: DeclaredTable[Any, Any], request: Request) -> Times:
    """The times of a request. Raises InputError."""
    names = ("from_ms", "to_ms") if isinstance(table, DeclaredHistory) else ("at_ms", "at_ms")
    found = []
    for name in names:
        text = request.query.get(name)
        if text is None:
            raise InputError(
                f"{table.label} is read by time, and the request has no {name}",
                hint=f"add &{name}=TIME, in milliseconds since the epoch",
            )
        if not (text.isascii() and text.isdecimal()) or (time_ms := int(text[:20])) > LATEST_MS:
            raise InputError(f"{name} is {text!r}; it must be a time in milliseconds since the epoch")
        found.append(time_ms)
    return Times(found[0], found[1])


def _when(table: DeclaredTable[Any, Any], row: TimedRow) -> dict[str, object]:
    if isinstance(table, DeclaredHistory):
        return {"time_ms": row.start_ms}
    return {"start_ms": row.start_ms, "end_ms": row.end_ms}


def _value(table: DeclaredTable[Any, Any], data: bytes | None) -> dict[str, object]:
    return {
        "found": data is not None,
        "value": None if data is None else _readable(table, data),
        "value_base64": None if data is None else b64encode(data).decode(),
    }


def _readable(table: DeclaredTable[Any, Any], data: bytes) -> Any:
    """The value as JSON; None if JSON cannot express it."""
    value = table.value_codec.decode(data)
    try:
        return msgspec.Raw(msgspec.json.encode(value, enc_hook=represented))
    except (TypeError, ValueError, OverflowError):
        return None
