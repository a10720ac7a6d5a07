"""Compares two output topics key by key: that of an app, and that of the app which takes its place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

from pipeline.ports import Record

__all__ = ["Comparison", "compare_histories", "compare_last_values"]

_DIGEST_BYTES = 16
_NOTHING = bytes(_DIGEST_BYTES)


@dataclass(slots=True)
class Comparison:
    """`keys`: in the old topic. `ahead`: keys of which the new topic holds more, or alone."""

    keys: int = 0
    ahead: int = 0
    differing: list[bytes] = field(default_factory=list)


def compare_histories(old: Iterable[Record], new: Iterable[Record]) -> Comparison:
    """Whether each key's values in `old` are, in their order, the first ones of that key in `new`.

    So an old app that ended early compares well. Records without a key are left out: they have no order.
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
    return Comparison(len(wanted), ahead, sorted(wanted.keys() - agreeing))


def compare_last_values(old: Iterable[Record], new: Iterable[Record]) -> Comparison:
    """Whether each key's last value is the same in both topics, a key of one topic alone being a difference.

    For outputs whose keys take records from several input partitions, whose order among each other differs from run
    to run; and only where the old app had processed all of its input.
    """
    last_old = {record.key(): record.value() for record in old if record.key() is not None}
    last_new = {record.key(): record.value() for record in new if record.key() is not None}
    missing = object()
    differing = [
        k for k in last_old.keys() | last_new.keys() if last_old.get(k, missing) != last_new.get(k, missing)
    ]
    return Comparison(len(last_old), len(last_new.keys() - last_old.keys()), sorted(differing))


def _chained(digest: bytes, value: bytes | None) -> bytes:
    tag = b"\x00" if value is None else b"\x01"
    return blake2b(digest + tag + (value or b""), digest_size=_DIGEST_BYTES).digest()
