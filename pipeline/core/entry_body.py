"""The body of a journal entry and of an applied position: `Entry`, `Identity`, and their two formats. Pure.

    format 1  one task for each partition: positions are one offset by topic, an identity has five fields
    format 2  a task owns several partitions: positions are a list of offsets by topic, an identity has a sixth field,
              the number of tasks

In memory there is one form: positions by input name (`core/inputs.py`), and an identity with `tasks`, which is 0 in
format 1. So a reader of positions need not know the format. A journal has one format from its first entry on.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, Literal

import msgspec

from pipeline.core.dead_letter_count import LetterCount
from pipeline.core.inputs import MAX_PARTITIONS, ROW_PREFIX_BYTES, TaskInputs, packed, row_prefix, unpacked
from pipeline.core.suggestions import counted
from pipeline.errors import FatalTaskError, InvariantError

__all__ = [
    "NEWEST",
    "Entry",
    "EntryKind",
    "Format",
    "Identity",
    "InputFacts",
    "StoredIdentity",
    "decode_body",
    "encode_body",
    "entry_partitions",
    "format_of",
    "identity_in",
    "identity_partitions",
    "loaded_identity",
    "loaded_positions",
    "partitions_to_reset",
    "reset_partitions",
    "row_prefixes",
    "split_row",
    "stored_identity",
    "stored_positions",
    "task_count",
]

Format = Literal[1, 2]
NEWEST: Format = 2
_PARTITIONS = "partitions"  # the key in the `extra` of a RESET entry


class EntryKind(IntEnum):
    """The kind of an entry. An entry of any kind has a seq and is applied.

    RESET discards everything before it: the state is empty, and the positions are those of the entry. If its `extra`
    names partitions (`reset_partitions`), it discards only theirs. RETIRE ends the app: no worker continues after it,
    not even one of a release that does not know this kind.
    """

    GENESIS = 1
    ACQUIRE = 2
    COMMIT = 3
    CHECKPOINT = 4
    RELEASE = 5
    RESET = 6
    RETIRE = 7


class InputFacts(msgspec.Struct, frozen=True, array_like=True):
    """An input topic as it was when the task was acquired. `topic_id` identifies a recreated topic.

    Two fields are for the replays topic, which may be missing. `absent`: it did not exist for this owner; the other
    fields are those that an earlier owner found. `replaced`: earlier positions belong to another topic of this name.
    """

    topic_id: str
    partitions: int
    absent: bool = False
    replaced: bool = False


class _IdentityFields(msgspec.Struct, frozen=True, array_like=True):
    """An identity as format 1 stores it."""

    cluster_id: str
    partitioner: str
    inputs: dict[str, InputFacts]
    tables: dict[str, str]
    topology: str


class Identity(_IdentityFields, frozen=True, array_like=True):
    """The cluster, topics and schemas of a task's history, in genesis and acquire entries and in the applied position.

    `inputs`: by topic name. `tables`: schema fingerprint by table name. `topology`: a fingerprint of the input topics
    of the handlers. `tasks`: the number of the group's tasks; 0 in format 1, which has one for each partition.
    """

    tasks: int = 0


# What a format stores: one without `tasks`, or one with it.
StoredIdentity = _IdentityFields


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One entry's body.

    `positions`: the next input offset to read, by input name (`core/inputs.py`). `delta`: the new value by full key,
    None for a delete. Values are absolute, so applying an entry twice is harmless. `wall_ms`: the time at which the
    entry was built, before its transaction. `stream_time_ms`: the event
    clock of the partition that is furthest behind, -1 without one; only for people. `nonce`: unique to the process and
    the attempt. `checkpoint`: the offset of the last CHECKPOINT entry before this one; -1 if there is none. So that
    entry can be found from the last entry of a journal. `journal_bytes`: the bytes of all entries before this one.
    `letters`: the dead letters written so far, including those of this commit; None in entries of earlier releases.
    """

    kind: EntryKind
    seq: int
    owner: str
    nonce: bytes
    positions: dict[str, int]
    delta: dict[bytes, bytes | None] = {}
    identity: Identity | None = None
    wall_ms: int = 0
    stream_time_ms: int = -1
    extra: dict[str, bytes] = {}
    checkpoint: int = -1
    journal_bytes: int = 0
    letters: LetterCount | None = None

    def offsets_since(self, before: Entry) -> int:
        """The input offsets after an earlier entry. An input that `before` does not have, or that was reset, adds 0."""
        earlier = before.positions
        return sum(max(0, at - earlier.get(name, at)) for name, at in self.positions.items())


class _Stored2(msgspec.Struct, frozen=True, array_like=True):
    """An entry as format 2 stores it: the same fields in the same order."""

    kind: EntryKind
    seq: int
    owner: str
    nonce: bytes
    positions: dict[str, tuple[int, ...]]
    delta: dict[bytes, bytes | None] = {}
    identity: Identity | None = None
    wall_ms: int = 0
    stream_time_ms: int = -1
    extra: dict[str, bytes] = {}
    checkpoint: int = -1
    journal_bytes: int = 0
    letters: LetterCount | None = None


_encoder = msgspec.msgpack.Encoder()
_decode_1 = msgspec.msgpack.Decoder(Entry).decode
_decode_2 = msgspec.msgpack.Decoder(_Stored2).decode


def format_of(identity: Identity) -> Format:
    """The format of a history with this identity."""
    return 2 if identity.tasks else 1


def task_count(identity: Identity) -> int:
    """The number of tasks of a group, in either format."""
    return identity.tasks or max((facts.partitions for facts in identity.inputs.values()), default=1)


def identity_in(identity: Identity, version: Format) -> Identity:
    """An identity of a history of this format. One task for each partition can be in either."""
    tasks = 0 if version == 1 else task_count(identity)
    return identity if identity.tasks == tasks else msgspec.structs.replace(identity, tasks=tasks)


def identity_partitions(identity: Identity, number: int) -> Sequence[int]:
    """The partitions of task `number`."""
    most = max((facts.partitions for facts in identity.inputs.values()), default=0)
    return TaskInputs(number, identity.tasks).partitions(most)


def entry_partitions(entry: Entry, inputs: TaskInputs) -> list[int]:
    """The partitions of the task `inputs`, according to one of its entries.

    Positions are complete from the first acquire entry on; entries before it have the identity.
    """
    if entry.identity is not None:
        return list(identity_partitions(entry.identity, inputs.number))
    return inputs.numbers(entry.positions)


def row_prefixes(identity: Identity, number: int) -> list[bytes]:
    """The beginnings of the keys of all rows of task `number`, one for each of its partitions."""
    if not identity.tasks:
        return [b""]
    return [row_prefix(partition) for partition in identity_partitions(identity, number)]


def split_row(key: bytes, version: Format, number: int) -> tuple[int, bytes]:
    """The partition of a row of task `number`, and its key of format 1.

    The key alone does not show its format: the prefix of a table in format 1 may have any first byte but zero.
    """
    if version == 1:
        return number, key
    return int.from_bytes(key[1:ROW_PREFIX_BYTES], "big"), key[ROW_PREFIX_BYTES:]


def encode_body(entry: Entry, version: Format) -> bytes:
    """The bytes of an entry. Raises InvariantError for one that belongs to a journal of the other format."""
    changes: dict[str, Any] = {}
    if entry.identity is not None:
        changes["identity"] = stored_identity(entry.identity, version)
    if version == 2:
        changes["positions"] = packed(entry.positions)
    return _encoder.encode(msgspec.structs.replace(entry, **changes) if changes else entry)


def decode_body(body: bytes, version: Format) -> Entry:
    """The entry. Raises msgspec.DecodeError, also for one that belongs to a journal of the other format."""
    if version == 1:
        entry = _decode_1(body)
    else:
        stored = _decode_2(body)
        fields = {name: getattr(stored, name) for name in stored.__struct_fields__}
        entry = Entry(**{**fields, "positions": unpacked(stored.positions)})
    if entry.identity is not None:
        loaded_identity(entry.identity, version)
    return entry


def stored_identity(identity: Identity, version: Format) -> StoredIdentity:
    """An identity as `version` stores it. Raises InvariantError for one of the other format."""
    if format_of(identity) != version:
        raise InvariantError(f"an identity with {counted(identity.tasks, 'task')} in format {version}")
    if version == 2:
        return identity
    return _IdentityFields(*(getattr(identity, name) for name in _IdentityFields.__struct_fields__))


def loaded_identity(identity: Identity, version: Format) -> Identity:
    """An identity that was read. Raises msgspec.ValidationError for one of the other format."""
    if format_of(identity) != version:
        raise msgspec.ValidationError(
            f"an identity with {counted(identity.tasks, 'task')} in format {version}"
        )
    return identity


def stored_positions(positions: Mapping[str, int], version: Format) -> Mapping[str, int | list[int]]:
    """Positions as `version` stores them."""
    return positions if version == 1 else packed(positions)


def loaded_positions(stored: Mapping[str, int | tuple[int, ...]], version: Format) -> dict[str, int]:
    """Positions that were read. Raises msgspec.ValidationError for those of the other format."""
    single = {name: at for name, at in stored.items() if isinstance(at, int)}
    several = {name: at for name, at in stored.items() if not isinstance(at, int)}
    if several if version == 1 else single:
        raise msgspec.ValidationError(f"positions of another format than {version}")
    return single if version == 1 else unpacked(several)


def partitions_to_reset(partitions: Sequence[int]) -> dict[str, bytes]:
    """The `extra` of a RESET entry of format 2 that discards only these partitions: u16 big-endian, in order."""
    if not partitions or not all(0 <= partition < MAX_PARTITIONS for partition in partitions):
        raise InvariantError(f"the partitions {list(partitions)} cannot be reset")
    return {_PARTITIONS: struct.pack(f">{len(partitions)}H", *sorted(partitions))}


def reset_partitions(entry: Entry) -> tuple[int, ...] | None:
    """The partitions that a RESET entry discards; None for all. Raises FatalTaskError."""
    data = entry.extra.get(_PARTITIONS)
    if data is None:
        return None
    if not data or len(data) % 2:
        raise FatalTaskError(
            f"reset entry {entry.seq} names its partitions in {len(data)} bytes",
            hint="follow runbooks/journal-check-failed.md",
        )
    return struct.unpack(f">{len(data) // 2}H", data)
