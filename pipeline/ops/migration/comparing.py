"""Compares two output topics key by key: the topic of an old app, and the topic of the app that replaces it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

from pipeline.ports import Record

__all__ = ["TopicComparison", "compare_histories", "compare_last_values"]

_DIGEST_BYTES = 16
_NOTHING = bytes(_DIGEST_BYTES)


@dataclass(slots=True)
class TopicComparison:
    """The result of a comparison.

    `keys`: how many keys the old topic has. `ahead`: how many keys have more records in the new topic than in the old
    one. `differing`: the keys whose values differ.
    """

    keys: int = 0
    ahead: int = 0
    differing: list[bytes] = field(default_factory=list)


def compare_histories(old: Iterable[Record], new: Iterable[Record]) -> TopicComparison:
    """Compare the values of each key: those in `old` must be the first ones in `new`, in the same order.

    `new` may have further values, because the old app may have stopped earlier. Records without a key are ignored: they
    have no order.
    """
    wanted: dict[bytes, tuple[int, bytes]] = {}
    for record in old:
        if (key := record.key()) is not None:
            count, digest = wanted.get(key, (0, _NOTHING))
            wanted[key] = count + 1, _chained(digest, record.value())
    found: dict[bytes, tuple[int, bytes]] = {}
    agreeing = set()
    for record in new:
        if (key := record.key()) is None:
            continue
        count, digest = found.get(key, (0, _NOTHING))
        found[key] = at = count + 1, _chained(digest, record.value())
        if at == wanted.get(key):
            agreeing.add(key)
    ahead = sum(count > wanted.get(key, (0, _NOTHING))[0] for key, (count, _) in found.items())
    return TopicComparison(len(wanted), ahead, sorted(wanted.keys() - agreeing))


def compare_last_values(old: Iterable[Record], new: Iterable[Record]) -> TopicComparison:
    """Compare the last value of each key. A key that only one topic has counts as a difference.

    For outputs in which a key depends on several input partitions: the order of their records differs from run to run.
    The old app must have processed all of its input.
    """
    last_old = {record.key(): record.value() for record in old if record.key() is not None}
    last_new = {record.key(): record.value() for record in new if record.key() is not None}
    missing = object()
    differing = [
        k for k in last_old.keys() | last_new.keys() if last_old.get(k, missing) != last_new.get(k, missing)
    ]
    return TopicComparison(len(last_old), len(last_new.keys() - last_old.keys()), sorted(differing))


def _chained(digest: bytes, value: bytes | None) -> bytes:
    tag = b"\x00" if value is None else b"\x01"
    return blake2b(digest + tag + (value or b""), digest_size=_DIGEST_BYTES).digest()
