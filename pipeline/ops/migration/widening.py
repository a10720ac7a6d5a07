"""From which time a record of a topic that got more partitions is: before that, or after. Pure.

A key's partition is its hash modulo the number of partitions, so a key that was moved lies in two partitions: in
its old one until the producers heard of the change, in its new one from then on. Its records are in order when all
from before come first.
"""

from __future__ import annotations

from enum import Enum

from pipeline.core.partitioner import partition_of

__all__ = ["Era", "era_of"]


class Era(Enum):
    """BEFORE: may be copied at once. AFTER: only behind all of its key from before. UNKNOWN: placed by another rule."""

    BEFORE = "before"
    AFTER = "after"
    UNKNOWN = "unknown"


def era_of(key: bytes | None, partition: int, before: int, now: int) -> Era:
    """The era of a record in `partition` of a topic that had `before` partitions and has `now`.

    row  key    the partition is that of                 era
    1    any    `before` equals `now`                    BEFORE: nothing has moved, wherever it lies
    2    none   anything                                 BEFORE: it has no order
    3    some   its hash modulo `before`                 BEFORE (all of its records, where it did not move)
    4    some   its hash modulo `now`, and not 3         AFTER
    5    some   neither                                  UNKNOWN
    """
    if before == now or key is None or partition_of(key, before) == partition:
        return Era.BEFORE
    return Era.AFTER if partition_of(key, now) == partition else Era.UNKNOWN
