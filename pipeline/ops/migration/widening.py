"""Tells whether a record was written before or after its topic got more partitions. Pure.

The partition of a key is its hash modulo the number of partitions. If the key moves, it has records in two partitions:
in the old one until its producers learn of the change, and then in the new one. Its records are in order if all records
of the old partition come first.
"""

from __future__ import annotations

from enum import Enum

from pipeline.core.partitioner import partition_of

__all__ = ["Era", "era_of"]


class Era(Enum):
    """When a record was written.

    BEFORE: it can be copied in the first pass. AFTER: it must follow all records of its key that are BEFORE.
    UNKNOWN: its producer uses another partitioner.
    """

    BEFORE = "before"
    AFTER = "after"
    UNKNOWN = "unknown"


def era_of(key: bytes | None, partition: int, before: int, now: int) -> Era:
    """The era of a record in `partition` of a topic that had `before` partitions and has `now`.

    row  key    condition                                        era
    1    any    `before` equals `now`                            BEFORE: no key has moved
    2    none   none                                             BEFORE: the record has no order
    3    some   the partition is the hash modulo `before`        BEFORE (all records of a key that did not move)
    4    some   the partition is the hash modulo `now`, not 3    AFTER
    5    some   neither 3 nor 4                                  UNKNOWN
    """
    if before == now or key is None or partition_of(key, before) == partition:
        return Era.BEFORE
    return Era.AFTER if partition_of(key, now) == partition else Era.UNKNOWN
