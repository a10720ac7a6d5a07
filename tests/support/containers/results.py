"""The committed results of the containers: the outputs, read from outside, and the tables, read on a worker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from ruamel.yaml import YAML

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.kafka.source import KafkaSources
from pipeline.ports import Source
from tests.support.containers.images import ROOT

__all__ = ["OUTPUTS", "Outputs", "differences", "open_outputs", "table", "wait_until"]

OUTPUTS = ("carrier-delays", "tail-hops")
_POLL_S = 0.2
_QUIET_POLLS = 10
_SHOWN_KEYS = 5


class Outputs:
    """Every committed output so far. `by_key[topic][key]`: the values of a key in order."""

    def __init__(self, source: Source) -> None:
        self.by_key: dict[str, dict[str, list[Any]]] = {topic: {} for topic in OUTPUTS}
        self.count = 0
        self._source = source
        self._quiet = 0

    def read(self) -> int:
        """Read new outputs. Returns the number of outputs so far."""
        polled = self._source.poll(20_000, _POLL_S)
        assert not polled.failures, polled.failures
        for record in polled.records:
            values = self.by_key[record.topic()].setdefault(record.key().decode(), [])
            values.append(msgspec.json.decode(record.value()))
        self.count += len(polled.records)
        self._quiet = 0 if polled.records else self._quiet + 1
        return self.count

    def has_all(self, count: int) -> bool:
        """Read new outputs. Returns whether exactly `count` exist, after a wait that would show surplus ones."""
        return self.read() >= count and self._quiet >= _QUIET_POLLS


@contextmanager
def open_outputs(servers: str) -> Iterator[Outputs]:
    """A reader of all committed outputs from the beginning."""
    source = KafkaSources(KafkaSettings(servers)).open("containers-test-reader")
    try:
        source.assign({TopicPartition(topic, n): 0 for topic in OUTPUTS for n in range(_partitions(topic))})
        yield Outputs(source)
    finally:
        source.close()


def _partitions(topic: str) -> int:
    declared = YAML(typ="safe", pure=True).load(
        (ROOT / "topics" / f"{topic}.yaml").read_text(encoding="utf-8")
    )
    return int(declared["partitions"])


def table(rows: str) -> dict[str, Any]:
    """A complete table from `pipeline table show --json`. Adds the counts of a key in several tasks."""
    result: dict[str, Any] = {}
    for line in rows.splitlines():
        row = json.loads(line)
        key, value = row["key"], row["value"]
        result[key] = result.get(key, 0) + value if isinstance(value, int) else value
    return result


def differences(wanted: Mapping[str, object], found: Mapping[str, object]) -> list[str]:
    """The keys that differ; empty if all are equal."""
    keys = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    more = [f"and {len(keys) - _SHOWN_KEYS} more"] if len(keys) > _SHOWN_KEYS else []
    return keys[:_SHOWN_KEYS] + more


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.05)
