"""Reads what the workers of `pipeline demo` have left: committed output records, and rows of the table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.demo.processes import Processes
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.source import KafkaSources
from pipeline.ops.reading import last_committed, read_topic
from pipeline.ports import JournalReader, Source, Sources, SystemClock

__all__ = ["OutputTopic", "opened", "table_rows"]

_MAX_RECORDS = 20_000
_GROUP = "pipeline-demo-reader"


class OutputTopic:
    """The committed records of one topic, read with `isolation.level=read_committed`."""

    def __init__(self, sources: Sources, reader: JournalReader, partitions: Sequence[TopicPartition]) -> None:
        self._sources = sources
        self._reader = reader
        self._partitions = partitions

    @contextmanager
    def counting(self) -> Iterator[Callable[[], int]]:
        """A function that returns the number of records so far. It reads only those that are new, and never waits."""
        found = 0

        def count() -> int:
            nonlocal found
            polled = source.poll(_MAX_RECORDS, 0.0)
            if polled.failures:
                raise polled.failures[0].error
            found += len(polled.records)
            return found

        with self._open() as source:
            source.assign(dict.fromkeys(self._partitions, 0))
            yield count

    def read(self) -> list[tuple[str, object]]:
        """(key, value as a JSON document) of each record up to the end, in the order of its partition."""
        bounds = {partition: self._reader.bounds(partition) for partition in self._partitions}
        ends = {
            partition: last_committed(self._reader, partition, found.start, found.stable_end)
            for partition, found in bounds.items()
        }
        with self._open() as source:
            return [
                (record.key().decode(), json.loads(record.value()))
                for record in read_topic(
                    source,
                    SystemClock(),
                    {partition: found.start for partition, found in bounds.items()},
                    {partition: last for partition, last in ends.items() if last is not None},
                )
            ]

    @contextmanager
    def _open(self) -> Iterator[Source]:
        source = self._sources.open(_GROUP)
        try:
            yield source
        finally:
            source.close()


@contextmanager
def opened(servers: str, topic: str, partitions: int) -> Iterator[OutputTopic]:
    """A topic of the Kafka at `servers`."""
    settings = KafkaSettings(servers)
    reader = KafkaJournalReader(settings)
    try:
        numbers = range(partitions)
        yield OutputTopic(
            KafkaSources(settings), reader, [TopicPartition(topic, number) for number in numbers]
        )
    finally:
        reader.close()


def table_rows(processes: Processes, app: str, group: str, table: str) -> list[tuple[str, object]]:
    """(key, value) of each row, from the state directory of the worker that committed last for the row's task."""
    entries = processes.command(
        "journal", "show", app, "--group", group, "--last", "1", "--json"
    ).splitlines()
    owners = {int(entry["task"]): entry["owner"] for entry in map(json.loads, entries)}
    disks = {worker.name: worker.disk for worker in processes.workers}  # of its last process
    rows: list[tuple[str, object]] = []
    for owner in sorted(set(owners.values())):
        where = ("--app", processes.app, "--state-dir", str(disks[owner]))
        shown = processes.command("table", "show", f"{group}.{table}", *where, "--json")
        rows += [
            (row["key"], row["value"])
            for row in map(json.loads, shown.splitlines())
            if owners[row["task"]] == owner
        ]
    return rows
