"""`pipeline consume`: prints the committed records of a topic, as text or as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from enum import StrEnum
from typing import Annotated

import typer

from pipeline.cli.options import CommandWait, KafkaOption, print_json, quiet_kafka_settings
from pipeline.cli.rendering import json_field, text_field
from pipeline.core.headers import readable_headers
from pipeline.core.names import RECORD_READER, TopicPartition
from pipeline.core.records import iso_time, readable
from pipeline.core.suggestions import no_topic
from pipeline.errors import InputError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.source import KafkaSources
from pipeline.ops.reading import last_committed, read_topic
from pipeline.ports import JournalBounds, Record, SystemClock

__all__ = ["consume"]


class StartAt(StrEnum):
    """Where to start reading."""

    BEGINNING = "beginning"
    END = "end"


def consume(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="An existing topic.")],
    begin: Annotated[StartAt, typer.Option("--from", help="Where to start.")] = StartAt.BEGINNING,
    most: Annotated[
        int | None, typer.Option("--max", metavar="N", help="Stop after N records.", min=1)
    ] = None,
    partition: Annotated[int | None, typer.Option(help="Only this partition.", min=0)] = None,
    key: Annotated[str | None, typer.Option(help="Only records with this key.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Do not stop at the end: also print new records.")
    ] = False,
    kafka: KafkaOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per record.")] = False,
) -> None:
    """Show the committed records of a topic: partition, offset, time, key, value."""
    if begin is StartAt.END and not follow:
        raise typer.BadParameter("--from end prints only new records, so it requires --follow")
    settings = quiet_kafka_settings(kafka)
    wanted = key.encode() if key is not None else None
    show = _show_json if json else _show_line
    left = most
    with (
        closing(KafkaJournalReader(settings)) as reader,
        closing(KafkaSources(settings).open(RECORD_READER)) as source,
    ):
        bounds = _bounds(KafkaCluster(settings, CommandWait(settings)), reader, topic, partition)
        starts = {p: b.start if begin is StartAt.BEGINNING else b.stable_end for p, b in bounds.items()}
        lasts = None if follow else _lasts(reader, bounds)
        try:
            for record in read_topic(source, SystemClock(), starts, lasts):
                if wanted is not None and record.key() != wanted:
                    continue
                show(record)
                if left is not None:
                    left -= 1
                    if left == 0:
                        break
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _bounds(
    cluster: KafkaCluster, reader: KafkaJournalReader, topic: str, partition: int | None
) -> Mapping[TopicPartition, JournalBounds]:
    with closing(cluster):
        found = cluster.describe([topic]).get(topic)
        if found is None:
            raise no_topic(topic, cluster.topics())
    if partition is not None and partition >= found.partitions:
        raise InputError(
            f"topic {topic} has no partition {partition}: its partitions are 0 to {found.partitions - 1}"
        )
    numbers = range(found.partitions) if partition is None else (partition,)
    return {place: reader.bounds(place) for place in (TopicPartition(topic, number) for number in numbers)}


def _lasts(
    reader: KafkaJournalReader, bounds: Mapping[TopicPartition, JournalBounds]
) -> Mapping[TopicPartition, int]:
    found = {
        place: last_committed(reader, place, each.start, each.stable_end) for place, each in bounds.items()
    }
    return {place: last for place, last in found.items() if last is not None}


def _show_line(record: Record) -> None:
    place = typer.style(f"{record.partition()} {record.offset():>8}", dim=True)
    typer.echo(
        f"{place}  {_time(record)}  {typer.style(readable(record.key()), bold=True)}  {readable(record.value())}"
    )


def _show_json(record: Record) -> None:
    document: dict[str, object] = {
        "topic": record.topic(),
        "partition": record.partition(),
        "offset": record.offset(),
        "timestamp": _time(record),
        **text_field("key", record.key()),
        **json_field("value", record.value()),
    }
    headers: dict[str, object] = {}
    found, omitted = readable_headers(record)
    for name, value in found:
        headers.update(text_field(name, value))
    if headers:
        document["headers"] = headers
    if omitted:
        document["headers_omitted"] = omitted
    print_json(document)


def _time(record: Record) -> str | None:
    kind, milliseconds = record.timestamp()
    return iso_time(milliseconds) if kind else None
