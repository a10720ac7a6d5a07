"""The `pipeline` command as a process against the Kafka under test, and what a topic holds afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Protocol

import pytest

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.source import KafkaSources
from pipeline.ops.reading import last_committed, read_topic
from pipeline.ports import JournalBounds, Record, SystemClock, TopicSpec
from tests.support.afterwards import (
    committed_records,
    committed_records_are_verified,
    memory_records_are_verified,
)
from tests.support.ports import closed_port

__all__ = ["committed_records", "committed_records_are_verified", "memory_records_are_verified"]

_TIMEOUT_S = 150  # of a command that loads 150,000 rows: ten seconds on a free machine
# How long markers may take; a transaction of a killed loader stays open for longer.
_MARKERS_S = 10.0
_ROOT = Path(__file__).parents[2]


class _Kafka(Protocol):
    @property
    def bootstrap_servers(self) -> str: ...


def _settled(reader: KafkaJournalReader, partition: TopicPartition) -> JournalBounds:
    """The bounds once the markers of what was decided have arrived; as they are when a transaction stays open."""
    deadline = time.monotonic() + _MARKERS_S
    while (bounds := reader.bounds(partition)).stable_end < bounds.end and time.monotonic() < deadline:
        pass  # each look is a request
    return bounds


class Command:
    """Runs `pipeline` against one Kafka, in a directory of the test's own."""

    def __init__(self, servers: str, directory: Path) -> None:
        self.settings = KafkaSettings(bootstrap_servers=servers)
        self.directory = directory
        self._started: list[subprocess.Popen[str]] = []

    def start(
        self,
        *arguments: str,
        stdin: int | IO[str] | None = subprocess.DEVNULL,
        stderr: int | IO[str] = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=self.directory,
            env={
                **os.environ,
                "PIPELINE_KAFKA": self.settings.bootstrap_servers,
                "PYTHONPATH": str(_ROOT),
                "COLUMNS": "200",
                "PIPELINE_KAFKA_STARTUP_WAIT_S": "1",
            },
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        self._started.append(process)
        return process

    def run(self, *arguments: str, code: int = 0, stdin: str | None = None) -> tuple[str, str]:
        """Standard output and error of a command that ends with `code`."""
        process = self.start(*arguments, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL)
        out, err = process.communicate(stdin, timeout=_TIMEOUT_S)
        assert process.returncode == code, f"{arguments}: exit {process.returncode}\n{out}\n{err}"
        return out, err

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json")[0])

    def create(self, topic: str, partitions: int = 3, **config: str) -> None:
        """Create a topic that keeps records of any age, unless `retention_ms` is given.

        Kafka deletes old records a few minutes after its own start: in the middle of a test that writes them.
        """
        settings = {"retention.ms": "-1", **{k.replace("_", "."): v for k, v in config.items()}}
        with closing(KafkaCluster(self.settings)) as cluster:
            cluster.create([TopicSpec(topic, partitions, config=settings)])

    def records(self, topic: str) -> list[Record]:
        """Every committed record of the topic."""
        with (
            closing(KafkaCluster(self.settings)) as cluster,
            closing(KafkaJournalReader(self.settings)) as reader,
            closing(KafkaSources(self.settings).open("pipeline.test")) as source,
        ):
            count = cluster.describe([topic])[topic].partitions
            bounds = {
                p: _settled(reader, p) for p in (TopicPartition(topic, number) for number in range(count))
            }
            lasts = {p: last_committed(reader, p, b.start, b.stable_end) for p, b in bounds.items()}
            known = {p: last for p, last in lasts.items() if last is not None}
            return list(read_topic(source, SystemClock(), {p: b.start for p, b in bounds.items()}, known))

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def command(kafka: _Kafka, tmp_path: Path) -> Iterator[Command]:
    """The `pipeline` command against the Kafka under test."""
    found = Command(kafka.bootstrap_servers, tmp_path)
    yield found
    found.end()


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool], str], None]:
    """Wait for a condition, with a deadline."""

    def wait(condition: Callable[[], bool], what: str) -> None:
        clock = SystemClock()
        deadline = clock.monotonic_s() + _TIMEOUT_S
        while not condition():
            assert clock.monotonic_s() < deadline, f"waited {_TIMEOUT_S} s for {what}"
            clock.sleep(0.01)

    return wait


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that nothing listens on."""
    with closed_port() as port:
        yield port
