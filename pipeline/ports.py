"""What the runtime needs from the world, as protocols; adapters and in-memory fakes provide it.

Every method states which errors of `pipeline.errors` it may raise; anything else that escapes is a bug.
The same contract tests (tests/contracts) run on the fakes and on the real thing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol, TypeVar

from pipeline.core.names import TaskId, TopicPartition
from pipeline.errors import PipelineError

__all__ = [
    "CheckpointStore",
    "Clock",
    "Cluster",
    "EventClient",
    "EventClients",
    "Executor",
    "JournalBounds",
    "JournalReader",
    "Logger",
    "Members",
    "Output",
    "PartitionFailure",
    "Pending",
    "Polled",
    "Producers",
    "Random",
    "Record",
    "Report",
    "Snapshot",
    "SnapshotFile",
    "Source",
    "Sources",
    "Staged",
    "Step",
    "Steps",
    "Store",
    "StoredObject",
    "Stores",
    "TopicInfo",
    "TopicSpec",
    "TransactionalProducer",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Record(Protocol):
    """One consumed record. The Kafka client's message type fits as it is, so no record is copied."""

    def topic(self) -> Any: ...
    def partition(self) -> Any: ...
    def offset(self) -> Any: ...
    def key(self) -> Any: ...
    def value(self) -> Any: ...
    def headers(self) -> Any: ...
    def timestamp(self) -> tuple[int, int]: ...


class Output(NamedTuple):
    """One record to produce. `timestamp_ms` 0 or above; headers may be empty."""

    topic: str
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Sequence[tuple[str, bytes | None]] = ()


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to create. `replication` 0 means min(3, number of brokers)."""

    name: str
    partitions: int
    replication: int = 0
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as the cluster has it. `topic_id` changes when a topic is deleted and created again.

    `config`: every setting as it is in force. `overridden`: those of them that the topic has for itself; the others
    follow the cluster's defaults.
    """

    name: str
    topic_id: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    overridden: frozenset[str] = frozenset()


class Cluster(Protocol):
    """Metadata and administration. All calls may raise UnreachableError or ConfigError (not authorised)."""

    def cluster_id(self) -> str: ...

    def topics(self) -> list[str]:
        """The names of all topics but Kafka's own."""
        ...

    def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """The topics that exist, by name; a missing topic is absent from the answer."""
        ...

    def create(self, specs: Sequence[TopicSpec], *, check_only: bool = False) -> None:
        """Create topics and return when they can be written. One that exists already is left as it is.

        `check_only`: ask the brokers whether they would, and change nothing. The same for `configure` and `grow`.
        """
        ...

    def configure(self, topic: str, settings: Mapping[str, str | None], *, check_only: bool = False) -> None:
        """Set a topic's settings, all or none, and return when the cluster shows them; None: back to the default.

        Settings that are not named stay. ConfigError with the brokers' words: a setting that does not exist, a
        value that it cannot take, a policy of the cluster, a topic that is gone.
        """
        ...

    def grow(self, topic: str, partitions: int, *, check_only: bool = False) -> None:
        """Give a topic this many partitions in all and return when they can be written.

        ConfigError with the brokers' words: it has as many or more already, it is gone.
        """
        ...

    def default_replication(self) -> int:
        """What a topic gets that asks for no replication: 3, or the number of brokers when there are fewer."""
        ...

    def delete(self, topics: Sequence[str]) -> None:
        """Delete topics and return when they are gone. One that does not exist is ignored."""
        ...

    def committed(self, consumer_group: str) -> dict[TopicPartition, int]:
        """Positions that the consumer group has committed; empty when it has none."""
        ...

    def member_ids(self, consumer_group: str) -> list[str]:
        """The client id of each member of a consumer group, also while it is rebalancing; empty without one."""
        ...

    def truncate(self, partition: TopicPartition, before: int) -> None:
        """Delete every record below the offset `before`; nothing happens when there is none."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class PartitionFailure:
    """A partition that cannot be read any further."""

    partition: TopicPartition
    error: PipelineError


class Polled(NamedTuple):
    """What one poll returned: records in offset order per partition, and partitions that failed."""

    records: Sequence[Record]
    failures: Sequence[PartitionFailure] = ()


class Source(Protocol):
    """The input of one handler group: reads committed records only, holds no decisions about positions."""

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Add partitions, each read from its position on."""
        ...

    def unassign(self, partitions: Iterable[TopicPartition]) -> None: ...

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Up to `max_records` records; returns at once with what is there, else waits up to `timeout_s`.

        A position below or above what the partition still holds is a PartitionFailure (FatalTaskError).
        A broker that is away is no error here: the answer is empty until it is back.
        """
        ...

    def rewind(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from these positions again; nothing fetched earlier is returned any more."""
        ...

    def pause(self, partitions: Iterable[TopicPartition]) -> None: ...

    def resume(self, partitions: Iterable[TopicPartition]) -> None: ...

    def bounds(self, partition: TopicPartition) -> tuple[int, int]:
        """(first offset still there, position after the last committed one). May raise UnreachableError."""
        ...

    def mirror(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commit positions to the consumer group for lag tools: best effort, never waits, never raises."""
        ...

    def close(self) -> None: ...


class Sources(Protocol):
    """Opens the input of a consumer group."""

    def open(self, consumer_group: str) -> Source: ...


class TransactionalProducer(Protocol):
    """One transactional producer under one static transactional id. One thread at a time.

    Calls, in order: `init` once, then any number of: `begin`, `send`*, `append`, `flush`, `commit` (or
    `abort` instead of the rest). Every call may raise FencedError (a newer owner), AbortableError (the
    transaction must be aborted), UnknownOutcomeError (renew: close, open a new one, `init`, ask the journal),
    UnreachableError (only `init`: nothing happened, call again).
    """

    def init(self) -> None:
        """Fence every older producer of this id and end its open transaction."""
        ...

    def begin(self) -> None: ...

    def send(self, outputs: Sequence[Output]) -> None:
        """Enqueue all outputs; plain tuples in the order of Output are as good, and cheaper to make.

        A client that takes fewer than it was given must not pass for success.
        """
        ...

    def append(self, journal: TopicPartition, chunks: Sequence[bytes]) -> None:
        """Enqueue an entry's chunks, in order, to exactly this partition."""
        ...

    def flush(self) -> int:
        """Wait until every record is delivered; the offset of the first appended chunk."""
        ...

    def commit(self) -> None: ...

    def abort(self) -> None: ...

    def close(self) -> None:
        """Release the client without waiting for anything undelivered. Never raises."""
        ...


class Producers(Protocol):
    """Opens transactional producers."""

    def open(self, transactional_id: str) -> TransactionalProducer: ...


Report = Callable[[Any, Any], None]
"""Told once what became of a record: (an error for `EventClient.failure`, or None; the `Record`, where it is now)."""


class EventClient(Protocol):
    """An idempotent client outside of transactions. Any thread may enqueue; one serves."""

    @property
    def fatal(self) -> PipelineError | None:
        """Why the client can do nothing more, ever; None while it can."""
        ...

    def enqueue(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes]],
        report: Report,
    ) -> bool:
        """Take a record, without waiting; False when there is no room. `timestamp_ms` 0 is now.

        Records of one partition are written in the order in which they were taken. Raises what `fatal` gives,
        ConfigError, and ValueError for a record that no topic could take.
        """
        ...

    def serve(self, timeout_s: float) -> None:
        """Run the reports of what is decided; wait up to `timeout_s` for the first. Never raises."""
        ...

    def failure(self, error: Any, what: str) -> PipelineError:
        """What a reported error means: ConfigError, or DeliveryError. `what` names the event."""
        ...

    def purge(self) -> None:
        """Give up whatever waits or is under way: `serve` reports it as failed. Never raises."""
        ...

    def close(self) -> None:
        """Release the client without waiting. Never raises."""
        ...


class EventClients(Protocol):
    """Opens clients for events. May raise ConfigError."""

    def open(self) -> EventClient: ...


class Members(Protocol):
    """This process among the workers of its app."""

    def join(self, consumer_group: str, topic: str, client_id: str, progress: Callable[[], object]) -> None:
        """Become a dynamic member, and stay one for as long as `progress` keeps returning something new.

        `topic`: one that exists; members must subscribe to something. Joining goes on beside the caller. May
        raise ConfigError.
        """
        ...

    def announce(self, topic: str, notes: Sequence[tuple[bytes, bytes]]) -> None:
        """Write (key, value) records, outside of any transaction, and wait. May raise UnreachableError."""
        ...

    def leave(self) -> None:
        """Be a member no longer, at once. Never raises; nothing happens without a join."""
        ...


class JournalBounds(NamedTuple):
    """A journal partition's ends, asked from the broker and never from a cache.

    `start`: first offset that still exists. `stable_end`: the end for committed readers. `end`: the end for
    all readers. `stable_end < end` while a transaction is open.
    """

    start: int
    stable_end: int
    end: int


class JournalReader(Protocol):
    """Reads committed chunks of journals, and knows where partitions begin and end. May raise UnreachableError."""

    def bounds(self, journal: TopicPartition) -> JournalBounds: ...

    def read(self, journal: TopicPartition, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """(offset, chunk) of every committed record in [start, end), in order.

        Ends when the reader's position reaches `end`, since markers occupy offsets. Raises RetriableError
        when `start` is below what the journal still holds.
        """
        ...

    def stable_ends(self, journals: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The stable end of each, asked for all at once."""
        ...

    def offset_at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """The offset of the first record, or marker, of this time or later; the stable end without any."""
        ...

    def close(self) -> None: ...


class SnapshotFile(NamedTuple):
    """A file of a state. Two with equal tokens have the same content, for as long as the process lives."""

    name: str
    size: int
    token: Hashable


class Snapshot(Protocol):
    """A state as it was at one moment, kept beside the living one until it is closed."""

    @property
    def position(self) -> bytes: ...

    @property
    def files(self) -> Sequence[SnapshotFile]: ...

    def read(self, name: str) -> Iterator[bytes]:
        """A file's content in pieces of a few MiB. Raises CorruptStateError."""
        ...

    def close(self) -> None:
        """Remove it. Never raises."""
        ...


class Staged(Protocol):
    """A state that is being brought from elsewhere, beside the place where it will be. Any thread may write."""

    def write(self, name: str, content: Iterable[bytes]) -> None:
        """One file, whole. Raises CorruptStateError when it cannot be written, and whatever `content` raises."""
        ...

    def install(self) -> None:
        """Put it in its place in one step; there must be no state. Raises CorruptStateError."""
        ...

    def discard(self) -> None:
        """Remove it. Never raises; nothing happens once it is installed."""
        ...


class Store(Protocol):
    """The applied state of one task. Any failure to write or read raises CorruptStateError."""

    def get(self, key: bytes) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys with this prefix, from `start` on, in byte order, as of one moment. Never the position."""
        ...

    def apply(self, writes: Mapping[bytes, bytes | None], position: bytes) -> None:
        """Write all values (None deletes) and the applied position, atomically."""
        ...

    def clear(self, position: bytes) -> None:
        """Remove every value and write the applied position, atomically."""
        ...

    def position(self) -> bytes | None:
        """The applied position as last written; None in an empty store."""
        ...

    def snapshot(self) -> Snapshot:
        """All of it, position included, as of one moment; beside reads and an `apply`.

        Raises CorruptStateError, also when the state is empty or was closed meanwhile.
        """
        ...

    def close(self) -> None: ...


class Stores(Protocol):
    """Opens, lists and destroys the local states of tasks."""

    def claim(self, app: str) -> None:
        """Take the states of an app for this worker, before anybody else's work is disturbed.

        Snapshots and staged states that a process has left behind are removed.
        Raises ConfigError when another worker has them, or when they could not be written.
        """
        ...

    def release(self, app: str) -> None:
        """Give up a claim; nothing happens when there is none. The end of the process does it, too."""
        ...

    def open(self, task: TaskId) -> Store:
        """Open or create. Raises CorruptStateError; ConfigError when another process has it open."""
        ...

    def exists(self, task: TaskId) -> bool: ...

    def destroy(self, task: TaskId) -> None: ...

    def set_aside(self, task: TaskId) -> str:
        """Move a state that cannot be used out of the way, unchanged; where it is now."""
        ...

    def stage(self, task: TaskId) -> Staged:
        """Begin to bring a state; what an earlier attempt has left is removed. Raises ConfigError."""
        ...


class StoredObject(NamedTuple):
    """An object in a checkpoint store. `modified_ms`: when it was last written, by the store's clock."""

    name: str
    size: int
    modified_ms: int


class CheckpointStore(Protocol):
    """Objects by name, parts separated by slashes. Threads may share it.

    Every call may raise CheckpointStoreError: it does not answer in time, refuses, or is full.
    """

    def put(self, name: str, content: Iterable[bytes], size: int) -> None:
        """Write an object, whole or not at all, durably; `size` bytes. May raise whatever `content` raises."""
        ...

    def get(self, name: str) -> Iterator[bytes]:
        """An object's content in pieces of a few MiB. Raises DamagedCheckpointError when it is not there."""
        ...

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose names begin with `prefix`, which ends with a slash; in any order."""
        ...

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects. One that is not there is ignored."""
        ...


class Clock(Protocol):
    """Time. Nothing in the runtime asks the operating system itself."""

    def monotonic_s(self) -> float: ...

    def wall_ms(self) -> int: ...

    def sleep(self, seconds: float) -> None: ...


class Random(Protocol):
    """Randomness. Seeded in tests."""

    def token(self, size: int) -> bytes: ...

    def uniform(self, low: float, high: float) -> float: ...


class Pending(Protocol[T_co]):
    """A step under way."""

    def done(self) -> bool: ...

    def result(self) -> T_co:
        """Wait for the step; its value, or raise what it raised."""
        ...


class Executor(Protocol):
    """Runs steps beside the processing thread: threads in production, a seeded scheduler in tests."""

    def submit(self, step: Callable[[], T]) -> Pending[T]: ...

    def close(self) -> None:
        """Wait for the steps under way and end."""
        ...


class Logger(Protocol):
    """Structured log: an event and its fields. Never a secret, never once per record."""

    def info(self, event: str, **fields: Any) -> Any: ...
    def warning(self, event: str, **fields: Any) -> Any: ...
    def error(self, event: str, **fields: Any) -> Any: ...


class Step(Enum):
    """The named points of the protocol where a crash must be harmless."""

    BEFORE_BEGIN = "before_begin"
    AFTER_OUTPUTS = "after_outputs"
    AFTER_ENTRY = "after_entry"
    AFTER_FLUSH = "after_flush"
    DURING_COMMIT = "during_commit"
    AFTER_COMMIT = "after_commit"
    BEFORE_APPLY = "before_apply"
    AFTER_APPLY = "after_apply"
    BEFORE_RETIRE = "before_retire"
    AFTER_FENCE = "after_fence"
    AFTER_END = "after_end"
    AFTER_CHOICE = "after_choice"
    DURING_REPLAY = "during_replay"
    AFTER_REPLAY = "after_replay"
    BEFORE_ACQUIRE = "before_acquire"
    AFTER_ACQUIRE = "after_acquire"
    AFTER_SNAPSHOT = "after_snapshot"
    DURING_UPLOAD = "during_upload"
    BEFORE_MANIFEST = "before_manifest"
    AFTER_MANIFEST = "after_manifest"
    AFTER_CHECKPOINT = "after_checkpoint"
    DURING_CLEANUP = "during_cleanup"
    BEFORE_TRUNCATE = "before_truncate"
    AFTER_TRUNCATE = "after_truncate"
    DURING_DOWNLOAD = "during_download"
    BEFORE_INSTALL = "before_install"
    AFTER_INSTALL = "after_install"
    BEFORE_GENESIS = "before_genesis"
    DURING_GENESIS = "during_genesis"
    AFTER_GENESIS = "after_genesis"
    SINK_AFTER_POSITIONS = "sink_after_positions"
    SINK_BEFORE_CLAIM = "sink_before_claim"
    SINK_AFTER_CLAIM = "sink_after_claim"
    SINK_BEFORE_BEGIN = "sink_before_begin"
    SINK_AFTER_FENCE = "sink_after_fence"
    SINK_AFTER_ROWS = "sink_after_rows"
    SINK_DURING_COMMIT = "sink_during_commit"
    SINK_AFTER_COMMIT = "sink_after_commit"
    SINK_AFTER_RELEASE = "sink_after_release"


class Steps(Protocol):
    """Told when a named step is reached: nothing in production; tests crash there."""

    def reached(self, step: Step, task: TaskId) -> None: ...
