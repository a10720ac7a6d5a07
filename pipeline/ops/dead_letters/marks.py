"""The marks of dead letters that were replayed or discarded: records in the compacted topic `pipeline.replays.<app>`.

A mark is written in the transaction that replays its letter, so a letter has a mark if, and only if, it was replayed.

Marks are readable JSON with a version and a checksum over the exact bytes of the body. A mark includes the id of the
dead-letter topic, because the same offset in a topic that was created again is another letter. A separate field with
its own checksum, outside the body, marks the letter as discarded. Earlier releases ignore it, and treat the
letter as replayed.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from pipeline.core.envelope import EnvelopeError, Fault, JsonEnvelope, json_checksum, unknown_version
from pipeline.core.names import GroupId, TopicPartition, replay_marks_topic
from pipeline.errors import ConfigError, CorruptStateError
from pipeline.ops.dead_letters.letters import LetterId
from pipeline.ops.reading import read_settled
from pipeline.ports import Cluster, Output, TopicSpec
from pipeline.runtime.environment import Environment

__all__ = [
    "Marks",
    "ReplayMark",
    "decode_mark",
    "ensure_marks_topic",
    "forgotten_mark",
    "mark_output",
    "marks_place",
    "read_marks",
]

_ENVELOPE = JsonEnvelope(body="mark", version=1, after=("discarded",))
_DISCARDED = b"discarded"
_CONFIG = {"cleanup.policy": "compact", "segment.bytes": "16777216", "min.cleanable.dirty.ratio": "0.1"}


class ReplayMark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The mark of one letter.

    Attributes:
        partition: The partition of the letter.
        offset: The offset of the letter.
        topic_id: The id of the dead-letter topic.
        times: How often the letter was replayed.
        replay: The number of the last replay among all replays of its record.
        nonce: Unique to each attempt, so that a replay recognizes its own marks.
        discarded: The record was discarded.
    """

    app: str
    group: str
    partition: int
    offset: int
    topic_id: str
    times: int
    replay: int
    replayed_ms: int
    nonce: str
    discarded: bool = False


Marks = dict[LetterId, ReplayMark]


def mark_output(mark: ReplayMark) -> Output:
    """The record of a mark. Its key is the letter's id."""
    body = msgspec.json.encode(msgspec.structs.replace(mark, discarded=False))
    discarded = json_checksum(body + _DISCARDED) if mark.discarded else ""
    value = _ENVELOPE.seal(body, {"discarded": discarded})
    return Output(replay_marks_topic(mark.app), _key(mark), value, mark.replayed_ms)


def forgotten_mark(mark: ReplayMark, now_ms: int) -> Output:
    """The tombstone that removes the mark of a letter that no longer exists."""
    return Output(replay_marks_topic(mark.app), _key(mark), None, now_ms)


def decode_mark(data: bytes, app: str) -> ReplayMark:
    """The mark in a record. Raises CorruptStateError if it is damaged, or has an unknown version."""
    try:
        sealed = _ENVELOPE.read(data)
        body = _ENVELOPE.verify(sealed)
        mark = msgspec.json.decode(body, type=ReplayMark)
        discarded = sealed.fields.get("discarded")
        if not discarded:
            return mark
        if discarded != json_checksum(body + _DISCARDED):
            raise _corrupt(app, "the checksum of a record is wrong")
        return msgspec.structs.replace(mark, discarded=True)
    except EnvelopeError as error:
        if error.fault is Fault.VERSION:
            raise unknown_version(f"topic {replay_marks_topic(app)}", error, _ENVELOPE.version) from error
        if error.fault is Fault.CHECKSUM:
            raise _corrupt(app, "the checksum of a record is wrong") from error
        raise _corrupt(app, f"a record cannot be read: {error.__cause__}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _corrupt(app, f"a record cannot be read: {error}") from error


def read_marks(group: GroupId, topic_id: str, environment: Environment, at_least: int = 0) -> Marks:
    """The marks of a group's letters, by letter id.

    `topic_id`: the id of the dead-letter topic. `at_least`: an end offset that the partition's leader has reported;
    without it, the marks may be old. Raises CorruptStateError, UnreachableError, StaleReadError.
    """
    partition = marks_place(group)
    if not at_least and not environment.cluster.describe([partition.topic]):
        return {}

    def by_letter(records: Iterator[tuple[int, bytes]]) -> Marks:
        decoded = (decode_mark(data, group.app) for _, data in records if data)
        return {
            (mark.partition, mark.offset): mark
            for mark in decoded
            if mark.group == group.group and mark.topic_id == topic_id
        }

    return read_settled(
        partition, by_letter, journals=environment.journals, clock=environment.clock, at_least=at_least
    )


def marks_place(group: GroupId) -> TopicPartition:
    """The partition of an app's marks."""
    return TopicPartition(replay_marks_topic(group.app), 0)


def ensure_marks_topic(group: GroupId, cluster: Cluster) -> None:
    """Create the topic of marks if it does not exist. Raises ConfigError if its settings would delete marks."""
    name = replay_marks_topic(group.app)
    found = cluster.describe([name]).get(name)
    if found is None:
        cluster.create([TopicSpec(name, partitions=1, config=_CONFIG)])
        found = cluster.describe_by_most([name])[name]
    policy = found.config.get("cleanup.policy")
    if found.partitions != 1 or policy != "compact":
        raise ConfigError(
            f"{name} must have 1 partition and cleanup.policy=compact; it has {found.partitions} and {policy}",
            hint="without them the marks of replayed letters are lost; set cleanup.policy=compact",
        )


def _key(mark: ReplayMark) -> bytes:
    return f"{mark.app}/{mark.group}/{mark.partition}/{mark.offset}".encode()


def _corrupt(app: str, what: str) -> CorruptStateError:
    return CorruptStateError(
        f"it is unknown which dead letters of app {app} were replayed: {what} in {replay_marks_topic(app)}",
        hint="no dead letter was replayed; find out which other program writes to that topic",
    )
