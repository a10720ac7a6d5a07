"""Kafka's topic settings: their meaning, when two values are equal, and what a change loses. Pure.

Values are text, as Kafka's DescribeConfigs returns them. A setting that is unknown here is compared and changed like
any other; the cluster decides whether it exists.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["SETTINGS", "UNMANAGED", "loss", "same_value"]

# Tools that move replicas set these while they run. A declaration cannot contain them, and nothing removes them.
UNMANAGED = frozenset({"leader.replication.throttled.replicas", "follower.replication.throttled.replicas"})

SETTINGS: Mapping[str, str] = {
    "cleanup.policy": "delete: old records are deleted; compact: a key's last record is kept; or compact,delete",
    "compression.gzip.level": "of gzip, 1 to 9; -1: the library's own",
    "compression.lz4.level": "of lz4, 1 to 17",
    "compression.type": "producer (as it came), uncompressed, gzip, lz4, snappy or zstd",
    "compression.zstd.level": "of zstd, -131072 to 22",
    "delete.retention.ms": "how long compaction keeps the record of a deleted key, in ms",
    "errors.deadletterqueue.group.enable": "true: share groups may write records they could not deliver here",
    "file.delete.delay.ms": "how long a deleted segment stays on disk, in ms",
    "flush.messages": "records between two fsyncs",
    "flush.ms": "ms between two fsyncs",
    "index.interval.bytes": "bytes of records between two entries of the offset index",
    "local.retention.bytes": "of a tiered topic: bytes of a partition kept on the brokers; -2: retention.bytes",
    "local.retention.ms": "of a tiered topic: ms that records are kept on the brokers; -2: retention.ms",
    "max.compaction.lag.ms": "the longest that a record may stay uncompacted, in ms",
    "max.decompressed.message.bytes": "the largest record that is accepted, in bytes after decompression",
    "max.message.bytes": "the largest batch of records that is accepted, in bytes",
    "message.timestamp.after.max.ms": "how far in the future a record's time may be, in ms",
    "message.timestamp.before.max.ms": "how far in the past a record's time may be, in ms",
    "message.timestamp.type": "CreateTime (the producer's) or LogAppendTime (the broker's)",
    "min.cleanable.dirty.ratio": "the part of a log that must be uncompacted before it is compacted, 0 to 1",
    "min.compaction.lag.ms": "the shortest that a record stays uncompacted, in ms",
    "min.insync.replicas": "replicas that must have a record before it counts as written",
    "preallocate": "true: segments take their full size on disk at once",
    "remote.copy.lag.bytes": "of a tiered topic: newer bytes after which a segment may be uploaded; 0: at once",
    "remote.copy.lag.ms": "of a tiered topic: ms after which a segment may be uploaded; 0: at once",
    "remote.log.copy.disable": "of a tiered topic, true: nothing more is copied to the remote storage",
    "remote.log.delete.on.disable": "true: turning remote storage off deletes its records",
    "remote.storage.enable": "true: old segments move to the remote storage",
    "retention.bytes": "bytes of a partition after which old records are deleted; -1: no limit",
    "retention.ms": "ms after which a record is deleted; -1: never",
    "segment.bytes": "the size of one file of the log, in bytes",
    "segment.index.bytes": "the size of the index of one file, in bytes",
    "segment.jitter.ms": "segment.ms is reduced by a random time up to this, so that logs do not roll at once",
    "segment.ms": "ms after which a file of the log is closed even when it is not full",
    "unclean.leader.election.enable": "true: an out-of-sync replica may become leader, and records are lost",
}

_LOWERED: Mapping[str, str] = {
    "retention.ms": "records older than that are deleted",
    "retention.bytes": "what a partition holds beyond that is deleted",
    "delete.retention.ms": "a slower reader does not see that keys were deleted",
    "max.decompressed.message.bytes": "larger records, accepted until now, are rejected, and stop compaction",
    "max.message.bytes": "larger records, accepted until now, are rejected",
    "message.timestamp.before.max.ms": "older records, accepted until now, are rejected",
    "message.timestamp.after.max.ms": "records from further ahead, accepted until now, are rejected",
    "min.insync.replicas": "a record then counts as written on fewer replicas, and is lost with them",
}
_UNLIMITED = frozenset({"retention.ms", "retention.bytes"})  # for these, -1 means unlimited
_TURNED: Mapping[str, tuple[str, str]] = {
    "unclean.leader.election.enable": (
        "true",
        "an out-of-sync replica may become leader, and records are lost",
    ),
    "remote.storage.enable": ("false", "records in the remote storage can no longer be read"),
}
_GAINED: Mapping[str, str] = {
    "compact": "only the last record of each key is kept",
    "delete": "records that retention.ms and retention.bytes do not keep are deleted",
}


def same_value(one: str, other: str) -> bool:
    """Whether Kafka treats both texts as the same value: `1e3` and 1000, TRUE and true, lists in any order."""
    return _canonical(one) == _canonical(other)


def _canonical(text: str) -> object:
    parts = frozenset(part.strip() for part in text.split(","))
    return parts if len(parts) > 1 else _scalar(next(iter(parts)))


def _scalar(text: str) -> object:
    number = _number(text)
    if number is not None:
        return number
    return text.lower() if text.lower() in {"true", "false"} else text


def _number(text: str) -> int | float | None:
    try:
        return int(text) if text.isascii() and "_" not in text else None
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number - number == 0 and "_" not in text else None  # neither infinite nor NaN


def loss(name: str, before: str | None, after: str | None) -> str | None:
    """What a changed setting loses or refuses, in words; None if nothing.

    None stands for an unknown value, such as a cluster default that every topic overrides. The worst case is assumed.
    """
    if name in _LOWERED:
        lower = before is None or after is None or _amount(name, after) < _amount(name, before)
        return _LOWERED[name] if lower else None
    if name in _TURNED:
        value, why = _TURNED[name]
        turned = (after is None or same_value(after, value)) and not (before and same_value(before, value))
        return why if turned else None
    if name == "cleanup.policy":
        gained = _policies(after, _GAINED) - _policies(before, ())
        return "; ".join(_GAINED[policy] for policy in _GAINED if policy in gained) or None
    return None


def _amount(name: str, value: str) -> float:
    number = _number(value.strip())
    if number is None or (name in _UNLIMITED and number < 0):
        return float("inf")
    return number


def _policies(value: str | None, unknown: Mapping[str, str] | tuple[()]) -> set[str]:
    return set(unknown) if value is None else {part.strip() for part in value.split(",")} & set(_GAINED)
