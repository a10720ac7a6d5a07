"""`pipeline table show` without --at: which states were read, and what Kafka knows that they do not contain."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from pipeline.config import KafkaSettings
from pipeline.core.names import GroupId
from pipeline.core.records import iso_time
from pipeline.errors import PipelineError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ports import Cluster, JournalReader, SystemClock
from pipeline.runtime.status import read_status

__all__ = ["asked_of_kafka", "missing_rows", "read_line"]


def read_line(group: GroupId, applied: Mapping[int, int], directory: Path) -> str:
    """The states that were read. `applied`: the last journal entry in each state, by task."""
    tasks = ", ".join(f"{number} (entry {seq:,})" for number, seq in applied.items())
    return f"read from {directory}: task{'s' * (len(applied) != 1)} {tasks} of {group.app}/{group.group}"


def asked_of_kafka(
    group: GroupId, applied: Mapping[int, int], only: int | None, settings: KafkaSettings
) -> list[str]:
    """`missing_rows` of a cluster. If it does not answer, one line says so: the rows can be shown without it."""
    try:
        with (
            closing(KafkaCluster(settings)) as cluster,
            closing(KafkaJournalReader(settings)) as reader,
        ):
            return missing_rows(group, applied, only, cluster, reader, SystemClock().wall_ms())
    except PipelineError as error:
        return [f"unknown whether these rows are current and complete: {error.message}"]


def missing_rows(
    group: GroupId,
    applied: Mapping[int, int],
    only: int | None,
    cluster: Cluster,
    reader: JournalReader,
    now_ms: int,
) -> list[str]:
    """The tasks whose state is elsewhere or out of date, with their workers, and how to read all current rows.

    Raises InputError if Kafka does not know the app, UnreachableError, FatalTaskError (a damaged journal).
    """
    elsewhere, lines = [], []
    for status in read_status(group.app, cluster, reader, now_ms).tasks:
        number = status.task.partition
        if status.task.group_id != group or only not in {None, number}:
            continue
        worker = f"worker {status.worker}" if status.worker else "no worker"
        if number not in applied:
            elsewhere.append(f"task {number} ({worker})")
        elif applied[number] < status.seq:
            lines.append(
                f"task {number} is out of date here: its state is at entry {applied[number]:,}, its journal at "
                f"{status.seq:,} ({worker})"
            )
    if elsewhere:
        lines.insert(0, f"not read, because there is no state of them here: {', '.join(elsewhere)}")
    if lines:
        lines.append(f"to show the current rows of all tasks, from Kafka: --at {iso_time(now_ms)}")
    return lines
