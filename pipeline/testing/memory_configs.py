"""Topic settings as the brokers take and refuse them: defaults of Kafka 4.4, and `check_settings`."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.errors import ConfigError

__all__ = ["DEFAULTS", "check_settings"]

_LONGEST = str(2**63 - 1)

DEFAULTS: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "compression.gzip.level": "-1",
    "compression.lz4.level": "9",
    "compression.type": "producer",
    "compression.zstd.level": "3",
    "delete.retention.ms": "86400000",
    "errors.deadletterqueue.group.enable": "false",
    "file.delete.delay.ms": "60000",
    "flush.messages": _LONGEST,
    "flush.ms": _LONGEST,
    "follower.replication.throttled.replicas": "",
    "index.interval.bytes": "4096",
    "leader.replication.throttled.replicas": "",
    "local.retention.bytes": "-2",
    "local.retention.ms": "-2",
    "max.compaction.lag.ms": _LONGEST,
    "max.decompressed.message.bytes": "2147483639",
    "max.message.bytes": "1048588",
    "message.timestamp.after.max.ms": "3600000",
    "message.timestamp.before.max.ms": _LONGEST,
    "message.timestamp.type": "CreateTime",
    "min.cleanable.dirty.ratio": "0.5",
    "min.compaction.lag.ms": "0",
    "min.insync.replicas": "1",
    "preallocate": "false",
    "remote.copy.lag.bytes": "-1",
    "remote.copy.lag.ms": "0",
    "remote.log.copy.disable": "false",
    "remote.log.delete.on.disable": "false",
    "remote.storage.enable": "false",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
    "segment.bytes": "1073741824",
    "segment.index.bytes": "10485760",
    "segment.jitter.ms": "0",
    "segment.ms": "604800000",
    "unclean.leader.election.enable": "false",
}
_POLICIES = frozenset({"compact", "delete"})


def check_settings(topic: str, settings: Mapping[str, str | None]) -> None:
    """Raise ConfigError, in the words of the brokers, for a setting that does not exist or a value that is invalid."""
    for name, value in settings.items():
        if name not in DEFAULTS:
            raise ConfigError(f"topic {topic}: Unknown topic config name: {name}")
        if value is not None and not _fits(name, value):
            raise ConfigError(f"topic {topic}: Invalid value {value} for configuration {name}")


def _fits(name: str, value: str) -> bool:
    default = DEFAULTS[name]
    if default.lstrip("-").isdigit():
        return _is_number(value, int)
    if name == "min.cleanable.dirty.ratio":
        return _is_number(value, float) and 0 <= float(value) <= 1
    if default in {"true", "false"}:
        return value.strip().lower() in {"true", "false"}
    if name == "cleanup.policy":
        return not value.strip() or {part.strip() for part in value.split(",")} <= _POLICIES
    return True


def _is_number(value: str, kind: type[int] | type[float]) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return True
