"""Loads files into one topic, exactly once. Uses ports only.

The protocol:

1. Fence: open the transactional producer of the load and call `init`. An older loader of the name cannot commit any
   more.
2. Barrier: the leader of `pipeline.loads` reports where the partition ends (`transactions/proof.py`).
3. Recall: read the last committed position of the name from `pipeline.loads`, up to its current end, which is not
   before the barrier.
4. Plan: start, continue, or refuse (the table in `pipeline.ops.loading.decisions`).
5. Check: hash the finished files, and the current file up to the position. A list or a file that has changed is
   refused.
6. Read the next batch of records, from one file or several, while the previous batch is being committed.
7. Commit: begin, send the records and the position after them, flush, commit.
8. Renew if step 7 failed, if its outcome is unknown, or if the commit was so slow that the client may have sent it
   twice: close, then steps 1, 2 and 3. The position that step 3 reads decides. Repeat steps 6 to 8 until the last file
   ends.

A crash leaves the last committed position and exactly the records before it. A fenced loader never resumes.

Step 3 waits until all transactions before the end have ended. A read that stops at the stable end could miss our own
last commit behind another load's open transaction, and the load would write its records twice.

A row that the topic would refuse is found before it is sent, so an error can name the line (`row_limits`).
`known_loads` lists the loads of a cluster with their positions, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from pipeline.core.names import LOADS_TOPIC, TopicPartition, held_by_the_pipeline, load_transactional_id
from pipeline.core.suggestions import no_topic
from pipeline.errors import ConfigError, CorruptStateError, FencedError, InputError
from pipeline.ops.loading.decisions import (
    LoadRequest,
    LoadStep,
    SequencePosition,
    advance,
    judge,
    plan,
    taken,
)
from pipeline.ops.loading.file_sequence import FileSequence, Stretch
from pipeline.ops.loading.formats.cells import MAX_TIMESTAMP_MS
from pipeline.ops.loading.formats.readers import FORMATS
from pipeline.ops.loading.formats.rows import RowLimits
from pipeline.ops.loading.positions import LoadPosition, decode_position, encode_position, position_name
from pipeline.ops.reading import read_settled
from pipeline.ops.transactions import ReceiptTransactions
from pipeline.ports import (
    Clock,
    Cluster,
    Executor,
    JournalReader,
    Output,
    Pending,
    Random,
    TopicInfo,
    TopicSpec,
    TransactionalClients,
)
from pipeline.transactions.engine import TransactionEngine

__all__ = [
    "DEFAULT_RECORD_BYTES",
    "LOADS_SPEC",
    "KnownLoad",
    "LoadEnvironment",
    "Loader",
    "RateLimit",
    "find_topic",
    "known_loads",
    "paced_rows",
    "record_bytes",
    "row_limits",
]

LOADS_SPEC = TopicSpec(
    LOADS_TOPIC,
    partitions=1,
    config={"cleanup.policy": "compact", "segment.bytes": "16777216", "min.cleanable.dirty.ratio": "0.1"},
)
LOADS = TopicPartition(LOADS_TOPIC, 0)

DEFAULT_RECORD_BYTES = 1_048_588
_OVERHEAD_BYTES = 1_024  # the batch around a record, and its headers


def record_bytes(config: Mapping[str, str]) -> int:
    """The largest message that the topic accepts, in bytes."""
    return int(config.get("max.message.bytes", DEFAULT_RECORD_BYTES))


def row_limits(config: Mapping[str, str], batch_rows: int, now_ms: int) -> RowLimits:
    """The limits of a load that starts at `now_ms`."""
    oldest_ms, newest_ms = 0, MAX_TIMESTAMP_MS
    if config.get("message.timestamp.type", "CreateTime") == "CreateTime":
        kept_ms = int(config.get("retention.ms", -1))
        if kept_ms >= 0 and "delete" in config.get("cleanup.policy", "delete"):
            oldest_ms = now_ms - kept_ms
        oldest_ms = max(oldest_ms, now_ms - int(config.get("message.timestamp.before.max.ms", now_ms)))
        newest_ms = min(newest_ms, now_ms + int(config.get("message.timestamp.after.max.ms", newest_ms)))
    return RowLimits(
        batch_rows=batch_rows,
        record_bytes=max(1, record_bytes(config) - _OVERHEAD_BYTES),
        oldest_ms=max(0, oldest_ms),
        newest_ms=newest_ms,
    )


_COMMITS_PER_S = 10


class RateLimit:
    """Call the object with the number of records loaded since its creation. It waits until more are allowed."""

    def __init__(self, rate: int, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._began_s = clock.monotonic_s()

    def __call__(self, records: int) -> None:
        due_s = self._began_s + records / self._rate
        wait_s = due_s - self._clock.monotonic_s()
        if wait_s > 0:
            self._clock.sleep(wait_s)


def paced_rows(rate: int, rows: int) -> int:
    """The rows of one transaction, at most `rows`: with a low rate, transactions are small and frequent."""
    return max(1, min(rows, rate // _COMMITS_PER_S))


@dataclass(frozen=True, slots=True)
class LoadEnvironment:
    """The adapters of a loader; fakes in tests. `journals` opens a reader."""

    cluster: Cluster
    producers: TransactionalClients
    journals: Callable[[], JournalReader]
    clock: Clock
    random: Random
    executor: Executor
    retry_backoff_ms: int


def find_topic(cluster: Cluster, topic: str, known: Callable[[], Iterable[str]] = list) -> TopicInfo:
    """The topic to load into. Creates `pipeline.loads` if it does not exist.

    `known` returns the names of topics, for a suggestion if the topic does not exist. Raises ConfigError if the topic
    or `pipeline.loads` cannot be used.
    """
    held = held_by_the_pipeline(topic)
    if held:
        raise ConfigError(f"cannot load into {topic}, which {held}", hint="load into a topic of your own")
    found = cluster.describe([topic, LOADS_TOPIC])
    if topic not in found:
        found |= cluster.describe_by_most([topic])
    if topic not in found:
        raise no_topic(topic, known())
    loads = found.get(LOADS_TOPIC)
    if loads is None:
        cluster.create([LOADS_SPEC])
        loads = cluster.describe_by_most([LOADS_TOPIC])[LOADS_TOPIC]
    if loads.partitions != 1 or loads.config.get("cleanup.policy") != "compact":
        raise ConfigError(
            f"{LOADS_TOPIC} must have 1 partition and cleanup.policy=compact; it has {loads.partitions}"
            f" and {loads.config.get('cleanup.policy')}",
            hint="without them the positions of loads are lost; set cleanup.policy=compact",
        )
    return found[topic]


class Loader:
    """One run of one load. Use an object once, from one thread."""

    def __init__(self, environment: LoadEnvironment, request: LoadRequest, sequence: FileSequence) -> None:
        self._environment = environment
        self._request = request
        self._sequence = sequence
        self._committed: LoadPosition | None = None  # the last one of the name, of any run
        self._run = 1
        self.continued: LoadPosition | None = None
        self.already_done = False

    @cached_property
    def _transactions(self) -> ReceiptTransactions:
        environment = self._environment
        transactional_id = load_transactional_id(self._request.name)
        return ReceiptTransactions(
            transactional_id, [LOADS], environment.producers, environment.clock, environment.retry_backoff_ms
        )

    def run(self, progress: Callable[[LoadPosition], None]) -> LoadPosition:
        """Load the rows that are not loaded yet, and return the last position.

        `progress` is called with each committed position. Raises InputError (a file cannot be loaded under this name),
        FencedError, UnreachableError, ConfigError.
        """
        try:
            self._transactions.fence()
            self._committed = self._recall()
            self._begin()
            if self.already_done and self._committed is not None:
                return self._committed
            return self._load(progress)
        except FencedError as error:
            raise taken(self._request.name) from error
        finally:
            self._transactions.close()
            self._sequence.close()

    def _begin(self) -> None:
        """Steps 4 and 5. Afterwards the files are at the position."""
        try:
            position = self.continued = plan(self._committed, self._request)
        except InputError:
            self._sequence.check_columns()  # if a column is misspelled, its error is more useful
            raise
        self._run = self._run_of(position)
        self.already_done = self._sequence.begin(position)

    def _run_of(self, position: LoadPosition | None) -> int:
        if position is not None:
            return position.run
        return self._committed.run + 1 if self._committed is not None else 1

    def _load(self, progress: Callable[[LoadPosition], None]) -> LoadPosition:
        """Steps 6 to 8. Reading is one batch ahead of committing."""
        pending: Pending[LoadPosition] | None = None
        try:
            while True:
                batch = self._sequence.read(self._environment.clock.wall_ms())
                if pending is not None:
                    progress(pending.result())
                    pending = None
                if batch.finished:
                    self._check_topic()
                if batch.error is None or batch.outputs or batch.skipped:
                    pending = self._environment.executor.submit(self._step(batch))
                if batch.error is not None:
                    if pending is not None:
                        progress(pending.result())
                    raise batch.error
                if batch.finished and pending is not None:
                    last = pending.result()
                    progress(last)
                    return last
        except BaseException:
            if pending is not None:
                pending.result()
            raise

    def _check_topic(self) -> None:
        """Raise ConfigError if the topic was deleted during the load."""
        found = self._environment.cluster.describe([self._request.topic]).get(self._request.topic)
        if found is None or found.topic_id != self._request.topic_id:
            found = self._environment.cluster.describe_by_most([self._request.topic]).get(self._request.topic)
        if found is None or found.topic_id != self._request.topic_id:
            raise ConfigError(
                f"topic {self._request.topic!r} was deleted during the load",
                hint="create it again, and load all rows again with --restart",
            )

    def _step(self, batch: Stretch) -> Callable[[], LoadPosition]:
        def commit() -> LoadPosition:
            self._committed = self._commit(batch)
            return self._committed

        return commit

    def _recall(self) -> LoadPosition | None:
        """Step 3, with new readers: an older one may know only the leaders from before a broker's restart."""
        return read_settled(
            LOADS,
            self._last_of,
            journals=self._environment.journals,
            clock=self._environment.clock,
            at_least=self._transactions.known_ends.get(LOADS, 0),
        )

    def _last_of(self, records: Iterator[tuple[int, bytes]]) -> LoadPosition | None:
        last: LoadPosition | None = None
        for _, data in records:
            position = decode_position(data, self._request.name) if data else None
            last = last if position is None else position
        return last

    def _commit(self, batch: Stretch) -> LoadPosition:
        """Steps 7 and 8, until the batch is committed."""
        previous = self._committed
        step = LoadStep(len(batch.outputs), batch.skipped, batch.end, batch.finished)

        def position() -> LoadPosition:
            return advance(previous, self._request, self._run, step, self._environment.random.token(12).hex())

        def send(engine: TransactionEngine, position: LoadPosition) -> None:
            wall_ms = self._environment.clock.wall_ms()
            engine.send(batch.outputs)
            engine.send([Output(LOADS_TOPIC, position.name.encode(), encode_position(position), wall_ms)])

        return self._transactions.write(
            self._name_of(step.end),
            receipt=position,
            send=send,
            outcome=lambda position: judge(previous, position, self._recall()),
        )

    def _name_of(self, end: SequencePosition) -> str:
        """The lines between the committed position and `end`, for an error."""
        unit = FORMATS[self._request.options.format].unit
        before = self._committed if self._committed is not None and self._committed.run == self._run else None
        here = before is not None and before.finished_files.count == end.finished_files.count
        first = before.line + 1 if before is not None and here else 1
        since = f" (and all rows after {before.file}, {unit} {before.line})" if before and not here else ""
        return f"{end.file}, {unit}s {first} to {end.mark.line}{since}"


@dataclass(frozen=True, slots=True)
class KnownLoad:
    """The last committed position of a load. `fault`: why it cannot be read; `position` is then None."""

    name: str
    position: LoadPosition | None
    fault: CorruptStateError | None = None

    @property
    def state(self) -> str:
        """`complete` (its last run reached the end of the files), `begun`, or `unreadable`.

        It does not show whether a loader is running now.
        """
        if self.position is None:
            return "unreadable"
        return "complete" if self.position.finished else "begun"


def known_loads(reader: JournalReader) -> list[KnownLoad]:
    """All loads, sorted by name. A record without a readable name is skipped. Raises UnreachableError."""
    bounds = reader.bounds(LOADS)
    found: dict[str, KnownLoad] = {}
    for _, data in reader.read(LOADS, bounds.start, bounds.stable_end):
        name = position_name(data)
        if name is None:
            continue
        try:
            found[name] = KnownLoad(name, decode_position(data, name))
        except CorruptStateError as error:
            found[name] = KnownLoad(name, None, error)
    return [found[name] for name in sorted(found)]
