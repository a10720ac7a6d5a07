"""The data of an in-memory Kafka cluster: the logs of partitions, and the transactions that wrote their records.

Topic settings are taken and refused as by the brokers of Kafka 4.4 (`DEFAULTS`, `check_settings`).

`StaleLeader` shows a cluster as it was at an earlier time. A broker that has lost its controllers still answers
Metadata, ListOffsets and Fetch as if it were the leader. Its answers are correct but outdated: its high watermark does
not advance, because no follower fetches from it. All records below the high watermark are in the log of the new leader,
too. It does not confirm writes. (Kafka's replication protocol; KIP-101.)
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pipeline.core.names import TopicPartition
from pipeline.errors import ConfigError, InvariantError
from pipeline.ports import Output, TopicInfo

__all__ = [
    "DEFAULTS",
    "MemoryRecord",
    "MemoryTopic",
    "MemoryTransaction",
    "MissingTopicError",
    "PartitionLog",
    "RefusedRecordError",
    "StaleLeader",
    "TransactionState",
    "check_settings",
    "refusal",
]

_CREATE_TIME = 1
_BATCH_OVERHEAD = 70  # what the broker counts in addition to key, value and headers of a record

Bounds = tuple[int, int, int]

_LONGEST = str(2**63 - 1)

DEFAULTS: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "compression.gzip.level": "-1",
    "compression.lz4.level": "9",
    "compression.type": "producer",
    "compression.zstd.level": "3",
    "delete.retention.ms": "86400000",
    "errors.deadletterqueue.group.enable": "false",
    "file.delete.delay.ms": "60000",
    "flush.messages": _LONGEST,
    "flush.ms": _LONGEST,
    "follower.replication.throttled.replicas": "",
    "index.interval.bytes": "4096",
    "leader.replication.throttled.replicas": "",
    "local.retention.bytes": "-2",
    "local.retention.ms": "-2",
    "max.compaction.lag.ms": _LONGEST,
    "max.decompressed.message.bytes": "2147483639",
    "max.message.bytes": "1048588",
    "message.timestamp.after.max.ms": "3600000",
    "message.timestamp.before.max.ms": _LONGEST,
    "message.timestamp.type": "CreateTime",
    "min.cleanable.dirty.ratio": "0.5",
    "min.compaction.lag.ms": "0",
    "min.insync.replicas": "1",
    "preallocate": "false",
    "remote.copy.lag.bytes": "-1",
    "remote.copy.lag.ms": "0",
    "remote.log.copy.disable": "false",
    "remote.log.delete.on.disable": "false",
    "remote.storage.enable": "false",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
    "segment.bytes": "1073741824",
    "segment.index.bytes": "10485760",
    "segment.jitter.ms": "0",
    "segment.ms": "604800000",
    "unclean.leader.election.enable": "false",
}
_POLICIES = frozenset({"compact", "delete"})


def check_settings(topic: str, settings: Mapping[str, str | None]) -> None:
    """Raise ConfigError, in the words of the brokers, for a setting that does not exist or a value that is invalid."""
    for name, value in settings.items():
        if name not in DEFAULTS:
            raise ConfigError(f"topic {topic}: Unknown topic config name: {name}")
        if value is not None and not _fits(name, value):
            raise ConfigError(f"topic {topic}: Invalid value {value} for configuration {name}")


def _fits(name: str, value: str) -> bool:
    default = DEFAULTS[name]
    if default.lstrip("-").isdigit():
        return _is_number(value, int)
    if name == "min.cleanable.dirty.ratio":
        return _is_number(value, float) and 0 <= float(value) <= 1
    if default in {"true", "false"}:
        return value.strip().lower() in {"true", "false"}
    if name == "cleanup.policy":
        return not value.strip() or {part.strip() for part in value.split(",")} <= _POLICIES
    return True


def _is_number(value: str, kind: type[int] | type[float]) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return True


class MissingTopicError(Exception):
    """The topic or partition does not exist."""


class RefusedRecordError(Exception):
    """The topic refuses the record: because of its size or its timestamp, or because a compacted topic needs keys."""

    def __init__(self, topic: str, reason: str) -> None:
        super().__init__(f"topic {topic} refuses a record: {reason}")
        self.topic = topic


class TransactionState(Enum):
    """The state of a transaction."""

    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"


class MemoryTransaction:
    """One transaction, and the partitions to which it has written."""

    def __init__(self) -> None:
        self.outcome = TransactionState.OPEN
        self.partitions: dict[TopicPartition, int] = {}  # with its first offset in each


class MemoryRecord:
    """`ports.Record`."""

    __slots__ = (
        "_fails_with",
        "_headers",
        "_key",
        "_offset",
        "_partition",
        "_timestamp_ms",
        "_torn",
        "_value",
    )

    def __init__(self, partition: TopicPartition, offset: int, output: Output) -> None:
        self._partition = partition
        self._offset = offset
        self._key = output.key
        self._value = output.value
        self._timestamp_ms = output.timestamp_ms
        self._headers: Any = [_as_read(*header) for header in output.headers] or None
        self._fails_with = next((h.error for h in self._headers or () if isinstance(h, _Torn)), None)
        self._torn = output if self._fails_with is not None else None

    def topic(self) -> str:
        return self._partition.topic

    def partition(self) -> int:
        return self._partition.partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> Any:
        """The headers, with a defect of the Kafka client: a name that is not valid UTF-8 raises at the first call.

        Later calls return a header that ends the process when it is read.
        """
        error, self._fails_with = self._fails_with, None
        if error is not None:
            raise SystemError("headers returned a result with an exception set") from error
        return self._headers

    def set_headers(self, headers: Any) -> None:
        """Replace what `headers` returns."""
        self._headers = headers
        self._fails_with = None

    def fetched(self) -> MemoryRecord:
        """The record for one reader. Readers do not share headers, because `headers` changes them."""
        return self if self._torn is None else MemoryRecord(self._partition, self._offset, self._torn)

    def timestamp(self) -> tuple[int, int]:
        return (_CREATE_TIME, self._timestamp_ms)


class _Torn:
    """A header of two items whose name is a null pointer. Reading that name from the Kafka client ends the process."""

    __slots__ = ("error",)

    def __init__(self, error: UnicodeDecodeError) -> None:
        self.error = error

    def __len__(self) -> int:
        return 2 + len(gc.get_referents(self))  # never as many as it refers to

    def __iter__(self) -> Iterator[Any]:
        raise InvariantError("the Kafka client's process has died: a null pointer was read")

    def __getitem__(self, index: int) -> Any:
        raise InvariantError("the Kafka client's process has died: a null pointer was read")


def _as_read(name: str | bytes, value: bytes | None) -> Any:
    """A header as the client returns it. A name is bytes if a producer other than ours may have written it."""
    if isinstance(name, str):
        return name, value
    try:
        return name.partition(b"\x00")[0].decode(), value
    except UnicodeDecodeError as error:
        return _Torn(error)


@dataclass(slots=True)
class PartitionLog:
    """The log of a partition. A marker is an entry without a record."""

    start: int = 0
    entries: list[tuple[MemoryRecord | None, MemoryTransaction | None]] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.start + len(self.entries)

    def truncate(self, before: int) -> None:
        """Remove the entries before offset `before`."""
        del self.entries[: max(0, before - self.start)]
        self.start = max(self.start, before)

    def lose_tail(self, start: int) -> None:
        """Remove the entries from offset `start` on."""
        del self.entries[max(0, start - self.start) :]

    def between(self, start: int, end: int) -> Iterator[tuple[MemoryRecord | None, MemoryTransaction | None]]:
        """Entries with offsets in [start, end)."""
        for index in range(max(0, start - self.start), end - self.start):
            yield self.entries[index]


@dataclass(slots=True)
class MemoryTopic:
    """A topic: its settings, and the logs of its partitions. `overridden`: the settings that are not defaults."""

    topic_id: str
    replication: int
    defaults: Mapping[str, str]
    overridden: dict[str, str]
    partitions: list[PartitionLog]

    @property
    def config(self) -> dict[str, str]:
        return {**self.defaults, **self.overridden}


def refusal(output: Output, config: Mapping[str, str], now_ms: int) -> str | None:
    """Why a topic with these settings refuses a record, checked in the order of the brokers. None if it does not."""
    size, limit = _stored_size(output), int(config["max.message.bytes"])
    if size > limit:
        return f"its {size} bytes are too large, max.message.bytes is {limit}"
    if output.key is None and "compact" in config["cleanup.policy"]:
        return "it has no key, and the topic is compacted (INVALID_RECORD)"
    stamp = output.timestamp_ms  # 0: the client sets the current time
    if config["message.timestamp.type"] == "CreateTime" and stamp > 0:
        if stamp - now_ms > int(config["message.timestamp.after.max.ms"]):
            return f"its timestamp {stamp} is too far ahead of {now_ms} (INVALID_TIMESTAMP)"
        if now_ms - stamp > int(config["message.timestamp.before.max.ms"]):
            return f"its timestamp {stamp} is too far behind {now_ms} (INVALID_TIMESTAMP)"
    return None


def _stored_size(output: Output) -> int:
    """The size of a record that the broker compares with `max.message.bytes`."""
    size = len(output.key or b"") + len(output.value or b"") + _BATCH_OVERHEAD
    return size + sum(len(name) + len(value or b"") for name, value in output.headers)


class StaleLeader:
    """The cluster as it was when this object was created. `answers` decides for each new client whether it is used."""

    def __init__(
        self,
        topics: Mapping[str, TopicInfo],
        bounds: Mapping[TopicPartition, Bounds],
        answers: Callable[[], bool],
    ) -> None:
        self._topics = dict(topics)
        self._bounds = dict(bounds)
        self.answers = answers
        self.over = False  # whether its controllers are reachable again, so that its answers are current

    def chosen(self) -> bool:
        """Whether the client that is being opened asks this broker."""
        return not self.over and self.answers()

    def describe(self, topic: str, now: TopicInfo | None) -> TopicInfo | None:
        """The topic as this broker knows it. `now`: its current description."""
        return now if self.over else self._topics.get(topic)

    def bounds(self, partition: TopicPartition, now: Bounds) -> Bounds | None:
        """Start, stable end and end as this broker knows them; None if it does not know the partition."""
        if self.over:
            return now
        then = self._bounds.get(partition)
        if then is None:
            return None
        start, stable_end, end = then
        return max(start, now[0]), min(stable_end, now[1]), min(end, now[2])
