"""`Reader`: reads committed rows of an app's tables, windows and histories from its workers, for any program.

    1 partition   compute it from the key, as Kafka's clients do; it determines the task
    2 owner       find the worker that owns the task, and the address of its HTTP port, in the workers' topic
    3 request     request the row from the owner

The owners and addresses are cached. They are read again after a failure: a worker does not answer, no longer owns
the task (421), or does not run the group (404). So the first request after a take-over also reads the topic. No result
depends on the cache. If the owner's app does not declare the table, the request ends at once.
"""

from __future__ import annotations

import http.client
import threading
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Mapping
from contextlib import closing
from functools import reduce
from http import HTTPStatus
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar, overload
from urllib.parse import urlencode

import msgspec

from pipeline.api.declarations import DeclaredTable, Table
from pipeline.api.encode_errors import LATEST_MS, REFUSALS, refuse_key
from pipeline.api.histories import DeclaredHistory, History
from pipeline.api.row_places import partition_of_row
from pipeline.api.timed_rows import has_times
from pipeline.api.windows import DeclaredWindow, SessionWindow, Window
from pipeline.app import App, declared_app
from pipeline.config import Settings, load_settings
from pipeline.core.departures import HttpAddress
from pipeline.core.names import TaskId, TopicPartition, workers_topic
from pipeline.core.notes import Owner, decode_note
from pipeline.errors import ConfigError, QueryError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ports import Deadline, SystemClock
from pipeline.producing.delivery import Delivered, Delivery

__all__ = ["Answer", "Reader"]

K = TypeVar("K")
V = TypeVar("V")

_AGAIN_S = 0.01  # between two requests for a row that is not new enough
_REFRESH_S = 0.1  # between two reads of the workers' topic
_KEPT = 8  # idle connections to each worker
# 404: a later worker at the address does not run the group.
_ELSEWHERE = {HTTPStatus.MISDIRECTED_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.NOT_FOUND}


class Answer(NamedTuple, Generic[V]):
    """The row of a key.

    Attributes:
        value: The value; None if the key has no row.
        seq: The value contains the effects of all entries of the task's journal up to this one, and maybe of later
            ones.
        age_s: Seconds since the worker last knew that it owned the task: since its last commit began. Another worker
            can have changed the row only after that. A task without new records does not commit, so its age grows.

    Example:
        ```python
        answer = reader.get(totals, "ann")
        print(answer.value, answer.age_s)
        ```
    """

    value: V | None
    seq: int
    age_s: float


class _TimedRow(msgspec.Struct):
    """A window, or a value of a history at `time_ms`."""

    value_base64: str | None
    time_ms: int = 0


class _Wanted(NamedTuple):
    """The options of a request: see `Reader.get`."""

    after: Delivery | Delivered | None
    partition: int | None
    max_age_s: float | None
    timeout_s: float


class _Row(msgspec.Struct):
    """The answer of a worker."""

    seq: int
    positions: dict[str, int]
    age_s: float
    found: bool = False
    value_base64: str | None = None
    rows: list[_TimedRow] = []  # of a window or a history


class _Owners(NamedTuple):
    """The address of the owner of each task, or the owner's worker id if it has no HTTP port."""

    address: Mapping[TaskId, str]
    without_port: Mapping[TaskId, str]


_decode_row = msgspec.json.Decoder(_Row).decode


class Reader:
    """Reads rows of tables, windows and histories of an app from the HTTP ports of its workers. Any thread may use it.

    Each worker needs an HTTP port that this program can reach, and the same token as this program. Values are always
    committed.

    Args:
        app: The app with the tables.
        settings: The address of Kafka, and `http.token`. Default: from `PIPELINE_*` variables and `pipeline.toml`, as
            `load_settings` reads them.

    Example:
        ```python
        with Reader(app) as reader:
            delivery = producer.send(orders, "ann", Order(5))
            answer = reader.get(totals, "ann", after=delivery)  # contains this order
        ```
    """

    def __init__(self, app: App, settings: Settings | None = None) -> None:
        self._app = declared_app(app)
        self._settings = settings if settings is not None else load_settings()
        self._lock = threading.Lock()
        self._owners: _Owners | None = None
        self._counts: dict[str, tuple[int, int]] = {}  # of partitions and tasks, by group
        self._idle: dict[str, list[http.client.HTTPConnection]] = {}
        self._closed = False

    @overload
    def get(
        self,
        table: Table[K, V],
        key: K,
        /,
        *,
        after: Delivery | Delivered | None = None,
        partition: int | None = None,
        max_age_s: float | None = None,
        timeout_s: float = 5.0,
    ) -> Answer[V]: ...

    @overload
    def get(
        self,
        table: Window[K, V],
        key: K,
        /,
        *,
        at_ms: int,
        after: Delivery | Delivered | None = None,
        partition: int | None = None,
        max_age_s: float | None = None,
        timeout_s: float = 5.0,
    ) -> Answer[V]: ...

    def get(
        self,
        table: Table[K, V] | Window[K, V],
        key: K,
        /,
        *,
        at_ms: int | None = None,
        after: Delivery | Delivered | None = None,
        partition: int | None = None,
        max_age_s: float | None = None,
        timeout_s: float = 5.0,
    ) -> Answer[V]:
        """Read the committed value of a key, in a table or in an open window.

        Args:
            table: What `app.table(...)`, `app.window(...)`, or the same method of a group returned.
            key: A key of its key type.
            at_ms: For a window only: a time in it, in milliseconds since the epoch. As for `ctx.window(...).get`: of
                several windows, the open one that ends first counts; of sessions, the one that an event at this time
                would belong to.
            after: What `Producer.send` returned for a record of an input of the table's group. The answer contains the
                effect of this record.
            partition: The partition of the record whose handler wrote the row. It is needed if no input of the group
                has keys of the table's type.
            max_age_s: Repeat the request while `age_s` is higher. Only for tasks that always have new records.
            timeout_s: How long to try, in seconds.

        Returns:
            The answer. Its value is None if the key has no row, or if the windows at this time are closed.

        Raises:
            TypeError: The key has a wrong type.
            ConfigError: The table is not one of the app, the topic of `after` is not an input of the table's group, the
                group was never started, the reader is closed, or `at_ms` is missing or does not apply.
            InputError: `partition` is needed.
            QueryError: No worker gave an answer that is new enough in time, or a worker refused the request.
            UnreachableError: Kafka does not answer.

        Example:
            ```python
            answer = reader.get(totals, "ann", timeout_s=1.0)
            so_far = reader.get(hourly, "ann", at_ms=now_ms)
            ```
        """
        wanted = _Wanted(after, partition, max_age_s, timeout_s)
        declared: Any = table
        definition = self._declared(declared)
        if isinstance(definition, DeclaredHistory):
            raise ConfigError(f"{definition.label} has many values for a key", hint="read them with between")
        if not isinstance(definition, DeclaredWindow):
            if at_ms is not None:
                raise ConfigError(
                    f"{definition.label} has no windows, so at_ms does not apply", hint="leave it out"
                )
            row = self._answer(definition, key, {}, wanted)
            data = b64decode(row.value_base64 or "")
            value = definition.value_codec.decode(data) if row.found else None
            return Answer(value, row.seq, row.age_s)
        if at_ms is None:
            raise ConfigError(
                f"{definition.label} has a value for each period", hint="pass at_ms=, a time in it"
            )
        row = self._answer(definition, key, {"at_ms": _checked_ms("at_ms", at_ms)}, wanted)
        return Answer(_window_value(definition, row), row.seq, row.age_s)

    def between(
        self,
        history: History[K, V],
        key: K,
        from_ms: int,
        to_ms: int,
        /,
        *,
        after: Delivery | Delivered | None = None,
        partition: int | None = None,
        max_age_s: float | None = None,
        timeout_s: float = 5.0,
    ) -> Answer[list[tuple[int, V]]]:
        """Read the committed values of a key in a range of event time.

        Args:
            history: What `app.history(...)` or `group.history(...)` returned.
            key: A key of the history's key type.
            from_ms: The first time, in milliseconds since the epoch.
            to_ms: The last time. It is included.
            after: As for `get`.
            partition: As for `get`.
            max_age_s: As for `get`.
            timeout_s: As for `get`.

        Returns:
            The answer. Its value is a list of (time in ms, value) in order of time; empty if there are no such values,
            or if they are older than `keep_s`.

        Raises:
            TypeError: The key has a wrong type.
            ConfigError: As for `get`.
            InputError: `partition` is needed.
            QueryError: As for `get`.
            UnreachableError: Kafka does not answer.

        Example:
            ```python
            hour = reader.between(recent, "ann", now_ms - 3_600_000, now_ms).value
            ```
        """
        declared: Any = history
        definition = self._declared(declared)
        if not isinstance(definition, DeclaredHistory):
            raise ConfigError(f"{definition.label} is not a history", hint="read it with get")
        times = {"from_ms": _checked_ms("from_ms", from_ms), "to_ms": _checked_ms("to_ms", to_ms)}
        row = self._answer(definition, key, times, _Wanted(after, partition, max_age_s, timeout_s))
        decode = definition.value_codec.decode
        values = [(each.time_ms, decode(b64decode(each.value_base64 or ""))) for each in row.rows]
        return Answer(values, row.seq, row.age_s)

    def _answer(
        self, definition: DeclaredTable[Any, Any], key: object, times: Mapping[str, int], wanted: _Wanted
    ) -> _Row:
        """The answer of the owner, once it is as new as it must be. Raises as `get` does."""
        until_s = time.monotonic() + wanted.timeout_s
        pause_s = _REFRESH_S
        deadline = Deadline(SystemClock(), wanted.timeout_s, lambda: pause_s)
        encoded = _encoded(definition, key)
        partitions, tasks = self._counts_of(definition.group)
        partition, max_age_s = wanted.partition, wanted.max_age_s
        if partition is None:
            partition = partition_of_row(self._group(definition.group), definition, key, partitions)
        task = TaskId(self._app.name, definition.group, partition % tasks)
        place = self._place(definition, wanted.after, until_s)
        query = urlencode(
            {"key_base64": urlsafe_b64encode(encoded).decode(), "partition": partition, **times}
        )
        path = f"/api/rows/{definition.group}/{definition.name}?{query}"
        why = "no worker has answered"
        while True:
            row, reason = self._ask(task, path, until_s)
            why = reason or why
            if row is not None:
                passed = place is None or row.positions.get(place[0], 0) > place[1]
                if passed and (max_age_s is None or row.age_s <= max_age_s):
                    return row
                why = (
                    f"the record of after=, {place[0]} offset {place[1]}, is not processed yet"
                    if place is not None and not passed
                    else f"the answer is {row.age_s} s old"
                )
            pause_s = _AGAIN_S if row is not None else _REFRESH_S
            if not deadline.pause():
                raise QueryError(
                    f"{definition.label}: no answer for task {task} in {wanted.timeout_s:g} s: {why}",
                    hint=f"run pipeline status {self._app.name}, or raise timeout_s",
                )

    def close(self) -> None:
        """Close the connections. After that, `get` raises ConfigError."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def __enter__(self) -> Self:
        """Return the reader."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Close the reader."""
        self.close()

    def _declared(self, table: Table[Any, Any]) -> DeclaredTable[Any, Any]:
        if self._closed:
            raise ConfigError("the reader is closed", hint="create another one: Reader(app)")
        table = self._app.declared(table)
        for group in self._app.groups:
            for definition in group.tables.values():
                if definition is table and (definition.is_table or has_times(definition)):
                    return definition
        raise ConfigError(
            f"{table!r} is not a table of app {self._app.name}",
            hint="pass what app.table(...), app.window(...) or app.history(...) returned",
        )

    def _group(self, name: str) -> Any:
        return next(group for group in self._app.groups if group.name == name)

    def _place(
        self, table: DeclaredTable[Any, Any], after: Delivery | Delivered | None, until_s: float
    ) -> tuple[str, int] | None:
        """The input and the offset of the record that the answer must contain."""
        if after is None:
            return None
        inputs = [topic.name for topic in self._group(table.group).inputs]
        if after.topic not in inputs:
            raise ConfigError(
                f"topic {after.topic} is not an input of group {table.group}, to which {table.label} belongs",
                hint=f"its inputs: {', '.join(inputs)}. For a table of a later group, call get without after=",
            )
        done = after if isinstance(after, Delivered) else after.result(max(0.0, until_s - time.monotonic()))
        return f"{done.topic}/{done.partition}", done.offset

    def _counts_of(self, group: str) -> tuple[int, int]:
        """The numbers of partitions and tasks of a group. They never change."""
        known = self._counts.get(group)
        if known is None:
            declared = self._group(group)
            source, journal = declared.inputs[0].name, declared.id.journal_topic
            with self._lock, closing(KafkaCluster(self._settings.kafka)) as cluster:
                topics = cluster.describe([source, journal])
            if journal not in topics or source not in topics:
                raise ConfigError(
                    f"group {group} of app {self._app.name} was never started: topic {journal} does not exist",
                    hint="start a worker of the app",
                )
            known = self._counts[group] = topics[source].partitions, topics[journal].partitions
        return known

    def _ask(self, task: TaskId, path: str, until_s: float) -> tuple[_Row | None, str]:
        """The answer of the task's owner, or the reason why it gave no answer."""
        owners = self._known()
        address = owners.address.get(task)
        if address is None:
            self._forget(owners)
            worker = owners.without_port.get(task)
            return None, (
                f"worker {worker}, which owns it, has no HTTP port"
                if worker
                else "no worker is known to own it"
            )
        try:
            status, body = self._request(address, path, until_s)
        except (OSError, http.client.HTTPException) as error:
            self._forget(owners)
            return None, f"{address} does not answer: {error}"
        if status == HTTPStatus.OK:
            return _decode_row(body), ""
        document = _problem(body)
        if document.get("declared") is False:
            raise QueryError(
                f"the app of the worker at {address} does not declare the table: {document.get('error', status)}",
                hint="deploy the workers with the version of the app that this program has",
            )
        if status not in _ELSEWHERE:
            raise QueryError(
                f"worker at {address} refuses the request: {document.get('error', status)}",
                hint=str(document.get("hint") or "") or None,
            )
        self._forget(owners)
        return None, f"{address}: {document.get('error', status)}"

    def _request(self, address: str, path: str, until_s: float) -> tuple[int, bytes]:
        """Send one request, on an idle connection or on a new one. The worker may have closed an idle connection."""
        token = self._settings.http.token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        while True:
            with self._lock:
                connections = self._idle.get(address)
                connection = connections.pop() if connections else None
            was_idle = connection is not None
            if connection is None:
                connection = http.client.HTTPConnection(address)
            connection.timeout = max(0.01, until_s - time.monotonic())
            if connection.sock is not None:
                connection.sock.settimeout(connection.timeout)
            try:
                connection.request("GET", path, headers=headers)
                with connection.getresponse() as response:  # `connection.close` leaves a response open
                    body = response.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                if was_idle:
                    continue
                raise
            with self._lock:
                kept = self._idle.setdefault(address, [])
                if len(kept) < _KEPT and not self._closed:
                    kept.append(connection)
                    connection = None
            if connection is not None:
                connection.close()
            return response.status, body

    def _known(self) -> _Owners:
        with self._lock:
            if self._owners is None:
                self._owners = self._read_owners()
            return self._owners

    def _forget(self, owners: _Owners) -> None:
        """Read the workers' topic again at the next request."""
        with self._lock:
            if self._owners is owners:
                self._owners = None

    def _read_owners(self) -> _Owners:
        """Read the workers' topic. Raises UnreachableError."""
        owners: dict[TaskId, Owner] = {}
        ports: dict[str, HttpAddress] = {}
        topic = TopicPartition(workers_topic(self._app.name), 0)
        with closing(KafkaJournalReader(self._settings.kafka)) as reader:
            bounds = reader.bounds(topic)
            for _, data in reader.read(topic, bounds.start, bounds.stable_end):
                note = decode_note(self._app.name, data)
                if note is None:
                    continue
                task, about = note
                if isinstance(about, HttpAddress):
                    ports[about.worker] = about
                elif isinstance(about, Owner) and about.replaces(owners.get(task)):
                    owners[task] = about
        address, without_port = {}, {}
        for task, owner in owners.items():
            port = ports.get(owner.worker)
            if owner.released:
                continue
            if port is not None and port.process == owner.process:
                host = f"[{port.host}]" if ":" in port.host else port.host
                address[task] = f"{host}:{port.port}"
            else:
                without_port[task] = owner.worker
        return _Owners(address, without_port)


def _encoded(table: DeclaredTable[K, Any], key: K) -> bytes:
    """The encoded key. Raises TypeError, ValueError."""
    codec = table.key_codec
    try:
        encoded = codec.encode(key)
    except REFUSALS as error:
        refuse_key(error, table.label, codec, key)
    if encoded is None:
        raise TypeError("a table's key cannot be None")
    return encoded


def _checked_ms(name: str, time_ms: object) -> int:
    """A time of a request, which is 0 or more. Raises ConfigError."""
    if type(time_ms) is not int:
        raise ConfigError(f"{name} is {time_ms!r}; it must be a whole number of milliseconds since the epoch")
    return min(max(time_ms, 0), LATEST_MS)


def _window_value(window: DeclaredWindow[Any, V], row: _Row) -> V | None:
    """The value of the window that ends first, or of the sessions that would be merged."""
    values: list[Any] = [
        None if each.value_base64 is None else window.own_value.decode(b64decode(each.value_base64))
        for each in row.rows
    ]
    if not values:
        return None
    value: V | None = reduce(window.merge, values) if isinstance(window, SessionWindow) else values[0]
    return value


def _problem(body: bytes) -> dict[str, Any]:
    """The JSON object of an error answer; empty if the body is not one."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}
