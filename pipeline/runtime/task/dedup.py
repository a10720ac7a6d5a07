"""Drops duplicates before handlers see them: `DedupTable`, the ids of one input partition.

Ids are stored like table rows: open until the task seals, then in the commit's delta, in one transaction with the
outputs and the position of the record. So a crash never separates an id from the effects of its event:

    before the commit point   neither the id nor the outputs exist; the record is processed again
    after it                  both exist; the record is not read again, and another record with its id is a duplicate

The same commit deletes expired ids, so restore, checkpoints and handoffs do not depend on time. An id is stored once
the handlers of its record have succeeded: a record that is skipped, retried or becomes a dead letter stores no id.
Processing thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.api.context import RuntimeContext
from pipeline.api.declarations import DeclaredTopic, declared_topic
from pipeline.api.declared_group import DeclaredGroup
from pipeline.api.event import Event, event_id
from pipeline.api.table import ReadableStore, TaskOverlay
from pipeline.core.dedup import (
    advance,
    clock_key,
    digest,
    digests_in,
    expiries,
    expiry_clock,
    expiry_prefix,
    expiry_start,
    forgotten,
    id_prefix,
    is_over,
    pack_clock,
    pack_state,
    unpack_clock,
    unpack_state,
)
from pipeline.core.headers import headers_of
from pipeline.core.names import EVENT_ID_HEADER
from pipeline.errors import InvariantError
from pipeline.ports import Clock, Record
from pipeline.runtime.task.handler_errors import ENDING

__all__ = ["Admitted", "DedupTable", "Dropped", "dedup_tables"]

# The most ids that one commit deletes: twice the ids that it adds, so that expired rows cannot accumulate, and a few
# more. So the first commit after a long pause does not delete all expired ids at once.
FORGOTTEN_PER_LEARNT = 2
FORGOTTEN_AT_LEAST = 1024

Reject = Callable[[Record, BaseException], None]


@dataclass(slots=True)
class Dropped:
    """`duplicates`: dropped. `late`: passed, although their ids are still stored, because they had expired."""

    duplicates: int = 0
    late: int = 0


@dataclass(slots=True)
class Admitted:
    """A batch without its duplicates, and the ids to store if its handler succeeds."""

    records: list[Record] = field(default_factory=list)
    ids: dict[bytes, bytes] = field(default_factory=dict)
    late: list[bytes] = field(default_factory=list)
    again_ms: int = -1
    duplicates: int = 0
    clock_ms: int = 0


class DedupTable:
    """The ids of one partition of `topic`. `rows`: the beginning of the keys of the partition's rows."""

    def __init__(
        self,
        topic: DeclaredTopic[Any, Any],
        store: ReadableStore,
        overlay: TaskOverlay,
        context: RuntimeContext,
        clock: Clock,
        rows: bytes = b"",
    ) -> None:
        if topic.dedup is None:
            raise InvariantError(f"{topic!r} has no dedup table")
        self._topic = topic
        self._ttl_ms = topic.dedup.ttl_ms
        target = topic.dedup.duplicates_to
        self._duplicates_to = declared_topic(target) if target is not None else None
        self._store = store
        self._overlay = overlay
        self._context = context
        self._clock = clock
        self._id_of = _header_id if topic.dedup.id is None else self._chosen_id(topic.dedup.id)
        self._rows = rows
        self._prefix = id_prefix(topic.name, rows)
        self._clock_ms = -1  # not read yet
        self._written_ms = -1
        self._oldest_ms = 0  # no expiry in the store has an earlier clock
        self._deleted_ms = -1  # no id in an expiry of the store was first seen before this clock
        self._again_ms = -1  # the latest first-seen clock of ids seen again after they had expired
        self._open: dict[bytes, bytes] = {}  # id rows since the last seal, in the order of their clocks
        self._disowned = False  # the current record
        self.dropped = Dropped()

    def identifies(self, record: Record) -> bool:
        """Whether the record has an id."""
        return isinstance(self._keys([record])[0], bytes)

    def unique(
        self, records: Sequence[Record], reject: Reject, first: Iterable[Record] | None = None
    ) -> Iterator[Record]:
        """Yield the records that are not duplicates, one by one.

        Taking the next record means that the handlers of the last one have succeeded, unless `disown` was called.
        `reject` receives records without an id, and may raise. `first`: the records to process now, which may end
        before the last one.
        """
        self._read_clock()
        keys = self._keys(records)
        found = self._found(keys)
        wall_ms = self._clock.wall_ms()
        remembered, ttl_ms = self._open, self._ttl_ms
        now_ms = self._clock_ms  # the clock if this record is processed
        packed = pack_clock(now_ms)
        now = records if first is None else first
        for record, key, stored in zip(now, keys, found, strict=first is None):
            if not isinstance(key, bytes):
                reject(record, key)
                continue
            timestamp_ms = record.timestamp()[1]
            if not 0 <= timestamp_ms <= now_ms:
                now_ms = advance(now_ms, timestamp_ms, wall_ms)
                packed = pack_clock(now_ms)
            seen = remembered.get(key) or stored
            self._disowned = False
            if seen is not None and not is_over(now_ms, unpack_clock(seen), ttl_ms):
                self._drop(record, reject)
            else:
                yield record
                if not self._disowned:
                    if seen is not None:
                        self.dropped.late += 1
                        self._again_ms = max(self._again_ms, unpack_clock(seen))
                        remembered.pop(key, None)  # so that it becomes the last one
                    remembered[key] = packed
            if self._disowned:
                now_ms = self._clock_ms
                packed = pack_clock(now_ms)
            else:
                self._clock_ms = now_ms

    def disown(self) -> None:
        """The current record was not processed: its id is not stored, and the clock is unchanged."""
        self._disowned = True

    def admit(self, records: Sequence[Record]) -> Admitted:
        """Remove the duplicates from a batch. No id is stored, and the clock does not advance, before `settle`.

        Raises the error of a record without an id; ValueError for a duplicate that is too large to be copied.
        """
        self._read_clock()
        keys = self._keys(records)
        wall_ms = self._clock.wall_ms()
        admitted = Admitted(clock_ms=self._clock_ms)
        for record, key, stored in zip(records, keys, self._found(keys), strict=True):
            if not isinstance(key, bytes):
                raise key
            admitted.clock_ms = advance(admitted.clock_ms, record.timestamp()[1], wall_ms)
            seen = admitted.ids.get(key) or self._open.get(key) or stored
            if seen is not None and not is_over(admitted.clock_ms, unpack_clock(seen), self._ttl_ms):
                self._copy(record)
                admitted.duplicates += 1
                continue
            if seen is not None:
                admitted.late.append(key)
                admitted.again_ms = max(admitted.again_ms, unpack_clock(seen))
                admitted.ids.pop(key, None)
            admitted.records.append(record)
            admitted.ids[key] = pack_clock(admitted.clock_ms)
        return admitted

    def settle(self, admitted: Admitted) -> None:
        """The handler of the batch has succeeded."""
        self._clock_ms = admitted.clock_ms
        self._again_ms = max(self._again_ms, admitted.again_ms)
        for key in admitted.late:
            self._open.pop(key, None)
        self._open.update(admitted.ids)
        self.dropped.duplicates += admitted.duplicates
        self.dropped.late += len(admitted.late)

    def take_writes(self) -> Mapping[bytes, bytes | None]:
        """The writes of the commit that is being sealed: new ids, the clock, and deletes of expired ids.

        Call it while no commit is in progress, so that the store contains all sealed writes. Raises CorruptStateError.
        """
        if self._clock_ms == self._written_ms and not self._open:
            return {}
        writes: dict[bytes, bytes | None] = self._forget()
        writes.update(self._open)  # after the deletes: an id that was seen again is kept
        writes.update(expiries(self._topic.name, self._open, self._rows))
        writes[clock_key(self._topic.name, self._rows)] = pack_state(self._clock_ms, self._again_ms)
        self._written_ms = self._clock_ms
        self._open = {}
        return writes

    def _forget(self) -> dict[bytes, bytes | None]:
        """Deletes of due expiries, the oldest first, and of their expired ids.

        The next scan starts where this one ends, because a later expiry never has an earlier clock. So it does not scan
        RocksDB's tombstones again.
        """
        deletes: dict[bytes, bytes | None] = {}
        if not is_over(self._clock_ms, self._oldest_ms, self._ttl_ms):
            return deletes
        most = FORGOTTEN_AT_LEAST + FORGOTTEN_PER_LEARNT * len(self._open)
        topic = self._topic.name
        for key, value in self._store.scan(
            expiry_prefix(topic, self._rows), expiry_start(topic, self._oldest_ms, self._rows)
        ):
            newest_ms = expiry_clock(key)
            if newest_ms > self._oldest_ms:
                # All ids of the clock before are deleted, and the others were seen at that clock or later. (Within one
                # clock, they are not in the order in which their ids were seen.)
                self._deleted_ms, self._oldest_ms = self._oldest_ms, newest_ms
            if not is_over(self._clock_ms, self._oldest_ms, self._ttl_ms) or len(deletes) >= most:
                return deletes
            ids = [self._prefix + name for name in digests_in(value)]
            if self._again_ms < max(self._deleted_ms, 0):
                deletes.update(dict.fromkeys(ids))  # none was seen again, so all expire with the newest
            else:
                rows = zip(ids, self._store.get_many(ids), strict=True)
                deletes.update(dict.fromkeys(forgotten(rows, self._clock_ms, self._ttl_ms)))
            deletes[key] = None
        self._oldest_ms = unpack_clock(next(iter(self._open.values()))) if self._open else self._clock_ms
        return deletes

    def _read_clock(self) -> None:
        if self._clock_ms < 0:
            data = self._store.get(clock_key(self._topic.name, self._rows))
            self._clock_ms, self._again_ms = unpack_state(data)
            self._written_ms = self._clock_ms

    def _keys(self, records: Sequence[Record]) -> list[bytes | BaseException]:
        """The key of each record's id row, or the error if it has no id."""
        prefix, id_of = self._prefix, self._id_of
        keys: list[bytes | BaseException] = []
        for record in records:
            try:
                keys.append(prefix + digest(id_of(record)))
            except ENDING:
                raise
            except BaseException as error:  # noqa: BLE001 - it belongs to the record, and is raised when its turn comes
                keys.append(error)
        return keys

    def _found(self, keys: Sequence[bytes | BaseException]) -> list[bytes | None]:
        """The id rows that are committed or sealed, read together; None for an id without a row."""
        known = [key for key in keys if isinstance(key, bytes)]
        rows = self._store.get_many(known) if known else []
        if sealed := self._overlay.sealed:
            rows = [sealed.get(key) or row for key, row in zip(known, rows, strict=True)]
        if len(known) == len(keys):
            return rows
        remaining = iter(rows)
        return [next(remaining) if isinstance(key, bytes) else None for key in keys]

    def _drop(self, record: Record, reject: Reject) -> None:
        try:
            self._copy(record)
        except ValueError as error:
            self.disown()
            reject(record, error)
        else:
            self.dropped.duplicates += 1

    def _copy(self, record: Record) -> None:
        """Copy the record unchanged to the topic for duplicates.

        Raises ValueError if the topic would refuse it, or if its headers cannot be read.
        """
        if self._duplicates_to is not None:
            headers = [
                *headers_of(record),
                ("duplicate-topic", str(record.topic()).encode()),
                ("duplicate-partition", str(record.partition()).encode()),
                ("duplicate-offset", str(record.offset()).encode()),
            ]
            self._context.forward(self._duplicates_to, record, headers)

    def _chosen_id(self, choose: Callable[[Event[Any, Any]], bytes | str]) -> Callable[[Record], bytes]:
        topic, context = self._topic, self._context
        decode_key, decode_value = topic.key.decode, context.value_decoder(topic)

        def chosen_id(record: Record) -> bytes:
            context.message = record
            found = choose(Event(decode_key(record.key()), decode_value(record.value()), record))
            if isinstance(found, str):
                found = found.encode()
            if not isinstance(found, bytes):
                raise TypeError(
                    f"the id of an event must be str or bytes; the id function of Dedup returned {found!r}"
                )
            if not found:
                raise ValueError(
                    "the id function of Dedup returned an empty id: all such events would be duplicates"
                )
            return found

        return chosen_id


def dedup_tables(
    group: DeclaredGroup,
    store: ReadableStore,
    overlay: TaskOverlay,
    context: RuntimeContext,
    clock: Clock,
    rows: bytes = b"",
) -> dict[str, DedupTable]:
    """The dedup tables of one partition of a group's inputs, by name of the topic."""
    return {
        topic.name: DedupTable(topic, store, overlay, context, clock, rows)
        for topic in group.inputs
        if topic.dedup is not None
    }


def _header_id(record: Record) -> bytes:
    found = event_id(record)
    if not found:
        raise ValueError(
            f"the record has no id: no header {EVENT_ID_HEADER}. "
            "Write one (pipeline produce --id), or declare Dedup(id=...)"
        )
    return found
