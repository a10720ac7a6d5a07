"""Dead letters and their replays as bytes, and the replays topic in acquire entries. Pure.

A dead letter is a byte-for-byte copy of the failed record. After the record's own headers it has a block of headers
with the record's origin and the reason of the failure. The block begins with `dead-letter-topic`. A dead letter that
was itself an input and failed has two blocks, and the last one counts.

A replay is a dead letter that is sent back to its task. Only the task's group reads it, so its value has a format of
its own, with a version and a checksum.

`acquired_identity`: how an acquire entry records the replays topic, the only input that may be missing. The topic does
not exist for an owner whose release has no dead letters, nor for one that started before the topic was created. Such an
owner keeps the topic's id and the position of the last owner that read it. The next owner that finds the topic compares
the ids:

    row  before                 now             the acquire entry says
    1    read or never seen     a topic         that topic; another one is refused by `core.recovery.check_identity`
    2    read                   none            the old id, `absent`; the position stays
    3    absent                 none            the same
    4    absent                 the same id     that topic; the position counts again
    5    absent                 another id      that topic, `replaced`: it begins at its first record
    6    position without id    ends before it  the same as row 5. Earlier releases did not keep the id
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from pipeline.core.dead_letter_count import NOT_NUMBERED, LetterNumber
from pipeline.core.envelope import BinaryEnvelope, EnvelopeError
from pipeline.core.journal_format import Identity, InputFacts
from pipeline.core.names import is_replays
from pipeline.core.position import AppliedPosition
from pipeline.errors import InvariantError

__all__ = [
    "Headers",
    "Letter",
    "Origin",
    "Replay",
    "acquired_identity",
    "bounded",
    "decode_replay",
    "encode_replay",
    "letter_headers",
    "read_letter",
]

Headers = Sequence[tuple[str, bytes | None]]

_ENVELOPE = BinaryEnvelope(version=1)
ERROR_BYTES = 2 * 1024
TRACEBACK_BYTES = 8 * 1024
_NAME_BYTES = 512
_PREFIX = "dead-letter-"
_FIRST = f"{_PREFIX}topic"
_NUMBER = f"{_PREFIX}number"
_CUT = "\n[...]\n"


class Origin(NamedTuple):
    """The place of the failed record. `timestamp_ms`: its own timestamp; -1 if it has none."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int = -1

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


class Letter(NamedTuple):
    """The headers of a dead letter.

    `tries`: the failed handler calls of the last attempt. `replay`: the number of the replay that failed; 0 if it was
    not a replay. `failed_ms`: when it failed, by the worker's clock; 0 if unknown. `topic_id`: the id of the origin's
    topic, because a recreated topic has other records at the same offsets; empty in dead letters of earlier releases.
    `left_out`: why headers of the record are missing; empty if none are. `number`: its number within its task.
    """

    origin: Origin
    handler: str
    error: str
    traceback: str = ""
    app: str = ""
    group: str = ""
    tries: int = 1
    replay: int = 0
    failed_ms: int = 0
    topic_id: str = ""
    left_out: str = ""
    number: LetterNumber = NOT_NUMBERED


def letter_headers(letter: Letter) -> list[tuple[str, bytes]]:
    """The block of headers. The size of each is bounded."""
    origin = letter.origin
    fields = (
        ("topic", origin.topic, _NAME_BYTES),
        ("partition", str(origin.partition), _NAME_BYTES),
        ("offset", str(origin.offset), _NAME_BYTES),
        ("timestamp", str(origin.timestamp_ms), _NAME_BYTES),
        ("app", letter.app, _NAME_BYTES),
        ("group", letter.group, _NAME_BYTES),
        ("handler", letter.handler, _NAME_BYTES),
        ("error", letter.error, ERROR_BYTES),
        ("traceback", letter.traceback, TRACEBACK_BYTES),
        ("tries", str(letter.tries), _NAME_BYTES),
        ("replay", str(letter.replay), _NAME_BYTES),
        ("time", str(letter.failed_ms), _NAME_BYTES),
        ("topic-id", letter.topic_id, _NAME_BYTES),
    )
    block = [(f"{_PREFIX}{name}", bounded(text, limit)) for name, text, limit in fields]
    if letter.left_out:
        block.append((f"{_PREFIX}headers", bounded(letter.left_out, _NAME_BYTES)))
    if letter.number.since:
        block.append((_NUMBER, "{}.{}".format(*letter.number).encode()))
    return block


def read_letter(headers: Headers) -> tuple[Letter, Headers] | None:
    """The last block and the record's own headers before it; None if there is no block.

    Blocks of earlier releases hold only the place, the handler and the error.
    """
    first = max((index for index, (name, _) in enumerate(headers) if name == _FIRST), default=None)
    if first is None:
        return None
    fields = {
        name.removeprefix(_PREFIX): (value or b"").decode(errors="replace") for name, value in headers[first:]
    }
    try:
        number = {name: int(fields.get(name, default)) for name, default in _NUMBERS.items()}
    except ValueError:
        return None
    if number["partition"] < 0 or number["offset"] < 0:
        return None
    origin = Origin(fields["topic"], number["partition"], number["offset"], number["timestamp"])
    letter = Letter(
        origin,
        fields.get("handler", ""),
        fields.get("error", ""),
        fields.get("traceback", ""),
        fields.get("app", ""),
        fields.get("group", ""),
        number["tries"],
        number["replay"],
        number["time"],
        fields.get("topic-id", ""),
        fields.get("headers", ""),
        _number(fields.get("number", "")),
    )
    return letter, headers[:first]


def _number(text: str) -> LetterNumber:
    since, _, number = text.partition(".")
    return LetterNumber(int(since), int(number)) if since.isdecimal() and number.isdecimal() else NOT_NUMBERED


_NUMBERS = {"partition": "-1", "offset": "-1", "timestamp": "-1", "tries": "1", "replay": "0", "time": "0"}


def bounded(text: str, limit: int) -> bytes:
    """The text as UTF-8, at most `limit` bytes: its beginning and, three times as long, its end. Never raises."""
    data = text.encode(errors="backslashreplace")  # it may contain characters without a UTF-8 form
    if len(data) <= limit:
        return data
    cut = _CUT.encode()
    head = (limit - len(cut)) // 4
    tail = limit - len(cut) - head
    return b"".join((_whole(data[:head]), cut, _whole(data[-tail:])))


def _whole(data: bytes) -> bytes:
    """The bytes without the characters that the cut has split."""
    return data.decode(errors="ignore").encode()


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter that its task will handle again, as the original record.

    `letter_partition`, `letter_offset`: the place of the dead letter. `number`: the replay number, from 1. `topic_id`:
    as in the dead letter.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    letter_partition: int
    letter_offset: int
    number: int
    topic_id: str = ""

    @property
    def origin(self) -> Origin:
        return Origin(self.topic, self.partition, self.offset, self.timestamp_ms)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Replay)


def encode_replay(replay: Replay) -> bytes:
    """The durable form."""
    if replay.number < 1:
        raise InvariantError(f"replay {replay.number} of {replay.origin}")
    return _ENVELOPE.seal(_encoder.encode(replay))


def decode_replay(data: bytes | None) -> Replay | None:
    """The replay; None if the bytes are damaged, are not a replay, or have an unknown version."""
    if data is None:
        return None
    try:
        return _decoder.decode(_ENVELOPE.open(data))
    except (EnvelopeError, msgspec.DecodeError):
        return None


def acquired_identity(
    before: AppliedPosition, now: Identity, ends_before: Callable[[str, int], bool]
) -> Identity:
    """The identity of the acquire entry after `before`, for an owner that found `now`.

    `ends_before`: whether a topic's partition of the task ends before a position.
    """
    inputs: dict[str, InputFacts] = {}
    for topic, current in now.inputs.items():
        replaced = is_replays(topic) and _replaced(before, topic, current, ends_before)
        inputs[topic] = msgspec.structs.replace(current, replaced=replaced) if replaced else current
    for topic, facts in before.identity.inputs.items():
        if is_replays(topic) and topic not in inputs:  # rows 2 and 3
            inputs[topic] = InputFacts(facts.topic_id, facts.partitions, absent=True)
    return msgspec.structs.replace(now, inputs=inputs)


def _replaced(
    before: AppliedPosition, topic: str, current: InputFacts, ends_before: Callable[[str, int], bool]
) -> bool:
    facts, position = before.identity.inputs.get(topic), before.positions.get(topic)
    if position is None:
        return False
    if facts is None:  # row 6
        return ends_before(topic, position)
    return facts.absent and facts.topic_id != current.topic_id  # rows 4 and 5
