"""Which dead letters were replayed or discarded: one record each in the compacted topic `pipeline.replays.<app>`.

A mark is written in the transaction that replays its letter, so there is one if, and only if, the letter is on its way.
Marks are JSON for people to read, with a version and a checksum over the exact bytes of the body. A mark names the
dead-letter topic by its id, too: in one that was created again the same place is another letter. That a letter was
discarded is beside the body, with a checksum of its own: for earlier releases it is a letter that was replayed.
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
    """`partition`, `offset`: the letter's. `times`: how often it was replayed; `replay`: as which replay of its record.

    `nonce`: of the attempt, by which a replay knows its own. `discarded`: it is not to be replayed.
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
    """The record that says it, keyed by the letter."""
    body = msgspec.json.encode(msgspec.structs.replace(mark, discarded=False))
    discarded = json_checksum(body + _DISCARDED) if mark.discarded else ""
    value = _ENVELOPE.seal(body, {"discarded": discarded})
    return Output(replay_marks_topic(mark.app), _key(mark), value, mark.replayed_ms)


def forgotten_mark(mark: ReplayMark, now_ms: int) -> Output:
    """The record that removes a mark of a letter that no longer exists."""
    return Output(replay_marks_topic(mark.app), _key(mark), None, now_ms)


def decode_mark(data: bytes, app: str) -> ReplayMark:
    """The mark, verified. Raises CorruptStateError."""
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
    """The marks of a group's letters, by letter. `topic_id`: of the dead-letter topic.

    `at_least`: where the leader of the marks is known to be; without it what is read may be old. Raises
    CorruptStateError, UnreachableError, StaleReadError.
    """
    place = marks_place(group)
    if not at_least and not environment.cluster.describe([place.topic]):
        return {}

    def by_letter(records: Iterator[tuple[int, bytes]]) -> Marks:
        decoded = (decode_mark(data, group.app) for _, data in records if data)
        return {
            (mark.partition, mark.offset): mark
            for mark in decoded
            if mark.group == group.group and mark.topic_id == topic_id
        }

    return read_settled(
        place, by_letter, journals=environment.journals, clock=environment.clock, at_least=at_least
    )


def marks_place(group: GroupId) -> TopicPartition:
    """Where the marks of an app are."""
    return TopicPartition(replay_marks_topic(group.app), 0)


def ensure_marks_topic(group: GroupId, cluster: Cluster) -> None:
    """Create the topic of marks. Raises ConfigError when it would forget them."""
    name = replay_marks_topic(group.app)
    found = cluster.describe([name]).get(name)
    if found is None:
        cluster.create([TopicSpec(name, partitions=1, config=_CONFIG)])
        found = cluster.describe_by_most([name])[name]
    policy = found.config.get("cleanup.policy")
    if found.partitions != 1 or policy != "compact":
        raise ConfigError(
            f"{name} must have 1 partition and cleanup.policy=compact; it has {found.partitions} and {policy}",
            hint="it would forget what was replayed; set cleanup.policy=compact again",
        )


def _key(mark: ReplayMark) -> bytes:
    return f"{mark.app}/{mark.group}/{mark.partition}/{mark.offset}".encode()


def _corrupt(app: str, what: str) -> CorruptStateError:
    return CorruptStateError(
        f"it cannot be told which dead letters of app {app} were replayed: {what} in {replay_marks_topic(app)}",
        hint="nothing was replayed; find out who else writes to that topic",
    )
