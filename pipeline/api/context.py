"""What a handler acts through: tables, outputs and resources of its task, valid during the call only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pipeline.api.declarations import Resource, Table, Topic
from pipeline.api.encode_errors import LATEST_MS, REFUSALS, check_header_name, refuse_key, refuse_value
from pipeline.api.table import TaskTable
from pipeline.api.topic_limits import Accepted
from pipeline.core.records import EARLIEST_MS, Record, kept_timestamp
from pipeline.errors import ConfigError

__all__ = ["Context", "Sender"]

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")

# name, key encoder, value codec's `admit`, what the topic accepts
Sender = tuple[str, Callable[[Any], bytes | None], Callable[[Any], tuple[bytes | None, Any]], Accepted]


class Context:
    """Handed to each handler call. Do not keep it: what is written after the call belongs to no record."""

    __slots__ = ("_outputs", "_resources", "_senders", "_tables", "_used", "message")

    def __init__(
        self,
        tables: Mapping[Table[Any, Any], TaskTable[Any, Any]],
        senders: Mapping[Topic[Any, Any], Sender],
        resources: Callable[[Resource[Any]], Any],
    ) -> None:
        self._tables = tables
        self._senders = senders
        self._used: dict[Topic[Any, Any], Sender] = {}  # those that something was sent to
        self._resources = resources
        self._outputs: list[Any] = []
        self.message: Any = None

    def table(self, table: Table[K, V], /) -> TaskTable[K, V]:
        """The task's part of a table of this group."""
        try:
            return self._tables[table]
        except (KeyError, TypeError):
            if not isinstance(table, Table):
                raise ConfigError(f"ctx.table takes what app.table(...) returned, not {table!r}") from None
            raise ConfigError(
                f"table {table.group}.{table.name} does not belong to the group of this handler",
                hint="use a table declared on the handler's own group; groups exchange data through topics",
            ) from None

    def send(
        self,
        topic: Topic[K, V],
        key: K,
        value: V,
        *,
        headers: Sequence[tuple[str, bytes | None]] = (),
        timestamp_ms: int | None = None,
    ) -> None:
        """Produce a record with this commit. It carries its input's timestamp unless one is given.

        The Kafka client cannot send the timestamp 0; it is sent as 1.
        Key and value are checked and encoded here, so a bad one belongs to the record at hand. Raises
        TypeError, ValueError (also when the topic would refuse the size, the timestamp, or a record without a key)
        or OverflowError; ConfigError for what is no topic of the app, which stops the task whatever `on_error` says.
        """
        try:
            name, encode_key, admit, accepted = self._used[topic]
        except (KeyError, TypeError):
            name, encode_key, admit, accepted = self._first_use(topic)
        try:
            key_data = encode_key(key)
        except REFUSALS as error:
            refuse_key(error, f"topic {name}", topic.key, key)
        try:
            data = admit(value)[0]
        except REFUSALS as error:
            refuse_value(error, f"topic {name}")
        if headers or len(data or b"") + len(key_data or b"") > accepted.most:
            headers = tuple(headers)  # the caller may go on using its list
            _check_headers(headers)
            accepted.check_size(key_data, data, headers)
        if key_data is None and accepted.compacted:
            accepted.refuse_null_key()
        if timestamp_ms is None:
            timestamp_ms = self.message.timestamp()[1]
            if timestamp_ms <= 0:  # a record without a timestamp gives the present
                timestamp_ms = kept_timestamp(self.message)
        elif type(timestamp_ms) is not int or not 0 <= timestamp_ms <= LATEST_MS:
            raise ValueError(
                f"timestamp_ms is {timestamp_ms!r}; it must be a number of milliseconds, 0 or above, of 64 bits"
            )
        elif timestamp_ms == 0:
            timestamp_ms = EARLIEST_MS
        if timestamp_ms > accepted.surely_ms:
            accepted.check_time(timestamp_ms)
        self._outputs.append((name, key_data, data, timestamp_ms, headers))

    def resource(self, resource: Resource[R], /) -> R:
        """The worker's instance of a resource; made on first use."""
        if not isinstance(resource, Resource):
            raise ConfigError(f"ctx.resource takes what app.resource(...) returned, not {resource!r}")
        result: R = self._resources(resource)
        return result

    def forward(
        self, topic: Topic[Any, Any], record: Record, headers: Sequence[tuple[str, bytes | None]]
    ) -> None:
        """Produce a record as it came, under other headers, with this commit. For the runtime.

        Raises ValueError when the topic would refuse it.
        """
        name, _, _, accepted = self._used.get(topic) or self._first_use(topic)
        key, value, timestamp_ms = record.key(), record.value(), kept_timestamp(record)
        accepted.check_size(key, value, headers)
        if key is None and accepted.compacted:
            accepted.refuse_null_key()
        accepted.check_time(timestamp_ms)
        self._outputs.append((name, key, value, timestamp_ms, headers))

    def _first_use(self, topic: Any) -> Sender:
        try:
            sender = self._senders[topic]
        except (KeyError, TypeError):
            raise ConfigError(
                f"{topic!r} is not declared by this app",
                hint="ctx.send takes what app.topic(...) returned",
            ) from None
        self._used[topic] = sender
        return sender

    def value_decoder(self, topic: Topic[Any, V]) -> Callable[[bytes | None], V]:
        """What decodes the value of the record at hand, `message`: the codec's own, so that it costs no call more."""
        with_message = topic.value.decode_message
        if with_message is None:
            return topic.value.decode
        return lambda data: with_message(data, self.message)

    @property
    def written(self) -> list[str]:
        """The topics that something was sent to, since the task went live. For the runtime."""
        return [sender[0] for sender in self._used.values()]

    def take_outputs(self) -> list[Any]:
        """The outputs so far; a new list is open from here on. For the runtime."""
        outputs = self._outputs
        self._outputs = []
        return outputs

    @property
    def outputs(self) -> list[Any]:
        """The outputs of the open commit. For the runtime."""
        return self._outputs


def _check_headers(headers: Sequence[tuple[str, bytes | None]]) -> None:
    for name, content in headers:
        if type(name) is not str or (content is not None and type(content) is not bytes):
            raise TypeError(f"a header is (str, bytes), not {(name, content)!r}")
        check_header_name(name)
