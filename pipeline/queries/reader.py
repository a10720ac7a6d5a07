"""`Reader`: reads committed rows of an app's tables from its workers, for any program.

    1 partition   compute it from the key, as Kafka's clients do; it determines the task
    2 owner       find the worker that owns the task, and the address of its HTTP port, in the workers' topic
    3 request     request the row from the owner

The owners and addresses are cached. They are read again after a failure: a worker does not answer, no longer owns
the task (421), or does not run the group (404). So the first request after a take-over also reads the topic. No result
depends on the cache.
"""

from __future__ import annotations

import http.client
import threading
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Mapping
from contextlib import closing
from http import HTTPStatus
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar
from urllib.parse import urlencode

import msgspec

from pipeline.api.declarations import DeclaredTable, Table
from pipeline.api.encode_errors import REFUSALS, refuse_key
from pipeline.api.row_places import partition_of_row
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


class _Row(msgspec.Struct):
    """The answer of a worker."""

    found: bool
    value_base64: str | None
    seq: int
    positions: dict[str, int]
    age_s: float


class _Owners(NamedTuple):
    """The address of the owner of each task, or the owner's worker id if it has no HTTP port."""

    address: Mapping[TaskId, str]
    without_port: Mapping[TaskId, str]


_decode_row = msgspec.json.Decoder(_Row).decode


class Reader:
    """Reads rows of an app's tables through the HTTP ports of its workers. Any thread may use it.

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
    ) -> Answer[V]:
        """Read the committed value of a key.

        Args:
            table: What `app.table(...)` or `group.table(...)` returned.
            key: A key of the table's key type.
            after: What `Producer.send` returned for a record of an input of the table's group. The answer contains the
                effect of this record.
            partition: The partition of the record whose handler wrote the row. It is needed if no input of the group
                has keys of the table's type.
            max_age_s: Repeat the request while `age_s` is higher. Only for tasks that always have new records.
            timeout_s: How long to try, in seconds.

        Returns:
            The answer. Its value is None if the key has no row.

        Raises:
            TypeError: The key has a wrong type.
            ConfigError: The table is not one of the app, the topic of `after` is not an input of the table's group, the
                group was never started, or the reader is closed.
            InputError: `partition` is needed.
            QueryError: No worker gave an answer that is new enough in time, or a worker refused the request.
            UnreachableError: Kafka does not answer.

        Example:
            ```python
            answer = reader.get(totals, "ann", timeout_s=1.0)
            ```
        """
        until_s = time.monotonic() + timeout_s
        pause_s = _REFRESH_S
        deadline = Deadline(SystemClock(), timeout_s, lambda: pause_s)
        definition = self._declared(table)
        encoded = _encoded(definition, key)
        partitions, tasks = self._counts_of(definition.group)
        if partition is None:
            partition = partition_of_row(self._group(definition.group), definition, key, partitions)
        task = TaskId(self._app.name, definition.group, partition % tasks)
        place = self._place(definition, after, until_s)
        query = urlencode({"key_base64": urlsafe_b64encode(encoded).decode(), "partition": partition})
        path = f"/api/rows/{definition.group}/{definition.name}?{query}"
        why = "no worker has answered"
        while True:
            row, reason = self._ask(task, path, until_s)
            why = reason or why
            if row is not None:
                passed = place is None or row.positions.get(place[0], 0) > place[1]
                if passed and (max_age_s is None or row.age_s <= max_age_s):
                    value = definition.value.decode(b64decode(row.value_base64 or "")) if row.found else None
                    return Answer(value, row.seq, row.age_s)
                why = (
                    f"the record of after=, {place[0]} offset {place[1]}, is not processed yet"
                    if place is not None and not passed
                    else f"the answer is {row.age_s} s old"
                )
            pause_s = _AGAIN_S if row is not None else _REFRESH_S
            if not deadline.pause():
                raise QueryError(
                    f"table {definition.group}.{definition.name}: no answer for task {task} in {timeout_s:g} s: {why}",
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
        for group in self._app.groups:
            for definition in group.tables.values():
                if definition is table and definition.is_table:
                    return definition
        raise ConfigError(
            f"{table!r} is not a table of app {self._app.name}",
            hint="pass what app.table(...) or group.table(...) returned",
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
                f"topic {after.topic} is not an input of group {table.group}, to which table {table.name} belongs",
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
                response = connection.getresponse()
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
    try:
        encoded = table.key.encode(key)
    except REFUSALS as error:
        refuse_key(error, f"table {table.group}.{table.name}", table.key, key)
    if encoded is None:
        raise TypeError("a table's key cannot be None")
    return encoded


def _problem(body: bytes) -> dict[str, Any]:
    """The JSON object of an error answer; empty if the body is not one."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}
