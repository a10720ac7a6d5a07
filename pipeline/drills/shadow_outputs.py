"""Compares the outputs of a shadow app with those of the live app: `compare_outputs`, one topic at a time.

The live app continues while it is compared, so its topic ends in some outputs of later commits. Two ends bound them:

    certain   read before the last entry of any task was: each live output below it is of an entry that is replayed
    possible  read after: each output of a replayed entry is below it

So for each key, the replayed outputs must be the live ones from the first on, up to an end between the two. If the
replay begins later than the topic, or retention has deleted the first outputs, they are compared from the end on. The
order is compared for keys that the records of one partition cause; several partitions are processed in any order, so
only the numbers of equal outputs are compared for such a key. Key, value and headers are compared, as 8 bytes of a hash
for each output.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from pipeline.core.headers import readable_headers
from pipeline.core.names import TRACEPARENT_HEADER, TopicPartition
from pipeline.drills.row_differences import readable
from pipeline.drills.shadow_spec import SOURCE_HEADER
from pipeline.ports import Record

__all__ = ["OutputComparison", "OutputDifference", "compare_outputs"]

_HASH_BYTES = 8


@dataclass(slots=True)
class _Outputs:
    """The outputs of one key, in order. `late`: those that may be of commits that are not replayed."""

    hashes: array[int] = field(default_factory=lambda: array("Q"))
    places: list[tuple[int, int]] = field(default_factory=list)  # partition and offset
    late: bytearray = field(default_factory=bytearray)
    sources: set[bytes | None] = field(default_factory=set)


class OutputDifference(NamedTuple):
    """The first output of a key that differs. `live`, `shadow`: its partition and offset; None if there is none."""

    key: bytes | None
    number: int
    live: tuple[int, int] | None
    shadow: tuple[int, int] | None

    def describe(self, live: Record | None, shadow: Record | None) -> str:
        """Key, number and both values, in words."""
        key = f"key {readable(self.key)}" if self.key is not None else "the null key"
        ours, theirs = (
            "no output" if record is None else readable(record.value()) for record in (live, shadow)
        )
        return f"output {self.number} of {key}: live {ours}, replayed {theirs}"


@dataclass(slots=True)
class OutputComparison:
    """The result for one topic. `unordered`: keys of several partitions, whose order was not compared."""

    compared: int = 0
    differences: list[OutputDifference] = field(default_factory=list)
    unordered: int = 0


def compare_outputs(
    live: Iterable[Record],
    shadow: Iterable[Record],
    certain: Mapping[TopicPartition, int],
    *,
    whole_replay: bool,
    whole_topic: bool,
) -> OutputComparison:
    """Compare the outputs of a topic.

    Args:
        live: The committed records of the live topic, up to the possible end.
        shadow: The committed records of its shadow.
        certain: The ends below which each live output is of a replayed entry.
        whole_replay: Whether the replay begins where the live app did.
        whole_topic: Whether the live topic still has its first record.
    """
    ours, theirs = _collected(live, certain), _collected(shadow, {})
    result = OutputComparison()
    for key in sorted(ours.keys() | theirs.keys(), key=lambda key: key or b""):
        mine, other = ours.get(key, _Outputs()), theirs.get(key, _Outputs())
        result.compared += len(other.hashes)
        if len(other.sources) > 1 or key is None:  # null keys have no partition of their own
            result.unordered += 1
            found = _different_bag(key, mine, other, whole_replay=whole_replay, whole_topic=whole_topic)
        elif whole_replay and whole_topic:
            found = _different_start(key, mine, other)
        else:
            found = _different_end(key, mine, other, whole_topic=whole_topic)
        if found is not None:
            result.differences.append(found)
    return result


def _collected(
    records: Iterable[Record], certain: Mapping[TopicPartition, int]
) -> dict[bytes | None, _Outputs]:
    found: dict[bytes | None, _Outputs] = {}
    for record in records:
        key, partition, offset = record.key(), record.partition(), record.offset()
        outputs = found.setdefault(key, _Outputs())
        digest = blake2b(digest_size=_HASH_BYTES)
        if key is not None:
            digest.update(partition.to_bytes(4, "big"))
        for part in _parts_of(record, outputs):
            digest.update(b"-" if part is None else b"+" + len(part).to_bytes(4, "big") + part)
        outputs.hashes.append(int.from_bytes(digest.digest(), "big"))
        outputs.places.append((partition, offset))
        outputs.late.append(offset >= certain.get(TopicPartition(record.topic(), partition), offset + 1))
    return found


def _parts_of(record: Record, outputs: _Outputs) -> Iterator[bytes | None]:
    """Value and headers, except the trace context. Notes the source of an output of a shadow app."""
    yield record.value()
    for name, value in readable_headers(record)[0]:
        if name == SOURCE_HEADER:
            outputs.sources.add(value)
        elif name != TRACEPARENT_HEADER:  # that of a live output names the span of its commit
            yield name.encode()
            yield value


def _different_start(key: bytes | None, live: _Outputs, shadow: _Outputs) -> OutputDifference | None:
    """Both begin with the first output of the key. Only late live outputs may be missing from the replay."""
    ours, theirs = live.hashes, shadow.hashes
    least = len(ours) - sum(live.late)
    at = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if at is None and least <= len(theirs) <= len(ours):
        return None
    return _at(key, min(len(ours), len(theirs)) if at is None else at, None, live, shadow)


def _different_end(
    key: bytes | None, live: _Outputs, shadow: _Outputs, *, whole_topic: bool
) -> OutputDifference | None:
    """Compare backwards, from each output that may be the last one of the replay."""
    ours, theirs = live.hashes, shadow.hashes
    least = len(ours) - sum(live.late)
    for end in range(least, len(ours) + 1):
        size = min(end, len(theirs))
        if size == len(theirs) or (not whole_topic and size):
            if ours[end - size : end] == theirs[len(theirs) - size :]:
                return None
        elif not whole_topic and not ours:
            return None  # retention has deleted all live outputs of the key
    for back in range(1, min(least, len(theirs)) + 1):
        if ours[least - back] != theirs[-back]:
            return _at(key, least - back, len(theirs) - back, live, shadow)
    return _at(key, least, 0, live, shadow)


def _different_bag(
    key: bytes | None, live: _Outputs, shadow: _Outputs, *, whole_replay: bool, whole_topic: bool
) -> OutputDifference | None:
    """Compare the numbers of equal outputs, as far as both have all of them."""
    ours, theirs = Counter(live.hashes), Counter(shadow.hashes)
    if whole_replay:
        certain = Counter(value for value, late in zip(live.hashes, live.late, strict=True) if not late)
        for number, value in enumerate(live.hashes):
            if theirs[value] < certain[value]:
                return OutputDifference(key, number + 1, live.places[number], None)
    if whole_topic:
        for number, value in enumerate(shadow.hashes):
            if theirs[value] > ours[value]:
                return OutputDifference(key, number + 1, None, shadow.places[number])
    return None


def _at(
    key: bytes | None, ours: int, theirs: int | None, live: _Outputs, shadow: _Outputs
) -> OutputDifference:
    other = ours if theirs is None else theirs
    return OutputDifference(
        key,
        ours + 1,
        live.places[ours] if ours < len(live.places) else None,
        shadow.places[other] if other < len(shadow.places) else None,
    )
