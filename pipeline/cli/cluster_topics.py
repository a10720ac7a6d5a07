"""`pipeline topics list|show|set`: the topics of the cluster, with or without a declaration."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import (
    CommandWait,
    JsonOption,
    KafkaOption,
    confirm,
    print_json,
    print_message,
    quiet_kafka_settings,
)
from pipeline.cli.rendering import Column, print_table
from pipeline.core.names import TopicPartition, held_by_the_pipeline
from pipeline.core.suggestions import counted, no_topic
from pipeline.errors import ConfigError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ops.topics.declarations import declaration_file
from pipeline.ports import Cluster, TopicInfo
from pipeline.runtime.restore.genesis import JOURNAL_CONFIG, JOURNAL_MESSAGE_BYTES

__all__ = ["DirOption", "list_topics", "set_topic", "show_topic"]

_LIST = (Column("topic"), Column("partitions", number=True), Column("replicas", number=True), Column("id"))
_PARTITIONS = (
    *(Column("partition", number=True), Column("start", number=True), Column("end", number=True)),
    *(Column("leader", number=True), Column("in sync"), Column("replicas")),
)
DirOption = Annotated[Path, typer.Option("--dir", help="The directory with the declarations.")]
TopicArgument = Annotated[str, typer.Argument(metavar="TOPIC", help="An existing topic.")]


def list_topics(kafka: KafkaOption = None, json: JsonOption = False) -> None:
    """List all topics of the cluster, with those of the pipeline itself."""
    settings = quiet_kafka_settings(kafka)
    with closing(KafkaCluster(settings, CommandWait(settings))) as cluster:
        found = cluster.describe(sorted(cluster.topics()))
    infos = [found[name] for name in sorted(found)]
    if json:
        print_json({"topics": [_document(info) for info in infos]})
    else:
        print_table(_LIST, ((i.name, i.partitions, i.replication, i.topic_id) for i in infos))


def show_topic(topic: TopicArgument, kafka: KafkaOption = None, json: JsonOption = False) -> None:
    """Show a topic: its id, the settings that are not defaults, and its partitions with offsets and brokers.

    `start` is the first offset of a partition, and `end` the offset after its last record.
    """
    settings = quiet_kafka_settings(kafka)
    with (
        closing(KafkaCluster(settings, CommandWait(settings))) as cluster,
        closing(KafkaJournalReader(settings)) as reader,
    ):
        info = _described(topic, cluster)
        places = [TopicPartition(topic, number) for number in range(info.partitions)]
        bounds = [reader.bounds(place) for place in places]
        replicas = cluster.replicas(topic)
    if json:
        documents = [
            {"partition": number, "start": at.start, "end": at.end, **on._asdict()}
            for number, (at, on) in enumerate(zip(bounds, replicas, strict=True))
        ]
        print_json({**_document(info), "offsets": documents})
        return
    typer.echo(f"{info.name}: {counted(info.partitions, 'partition')}, id {info.topic_id}")
    for name in sorted(info.overridden):
        typer.echo(f"  {name}={info.config[name]}")
    rows = (
        (number, at.start, at.end, on.leader, _ids(on.in_sync), _ids(on.all))
        for number, (at, on) in enumerate(zip(bounds, replicas, strict=True))
    )
    print_table(_PARTITIONS, rows)


def set_topic(
    topic: TopicArgument,
    assignments: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=VALUE", help="Settings, such as retention.ms=-1. NAME= restores the default."
        ),
    ],
    directory: DirOption = Path("topics"),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    kafka: KafkaOption = None,
) -> None:
    """Change settings of a topic without a declaration, such as a journal.

    A topic that has a file in the directory of the declarations is refused. Change that file, and apply it.
    """
    changes = _parsed(assignments)
    _refuse_declared(topic, directory)
    _refuse_harm(topic, changes)
    settings = quiet_kafka_settings(kafka)
    with closing(KafkaCluster(settings, CommandWait(settings))) as cluster:
        info = _described(topic, cluster)
        cluster.configure(topic, changes, check_only=True)
        for name, value in changes.items():
            now = info.config.get(name, "?")
            print_message(f"{topic}: {name}={now} -> {'its default' if value is None else value}")
        confirm("Change these settings?", yes=yes)
        cluster.configure(topic, changes)
    print_message(f"{topic}: changed")


def _described(topic: str, cluster: Cluster) -> TopicInfo:
    info = cluster.describe([topic]).get(topic)
    if info is None:
        raise no_topic(topic, cluster.topics())
    return info


def _ids(brokers: Sequence[int]) -> str:
    return ",".join(map(str, brokers))


def _parsed(assignments: Sequence[str]) -> dict[str, str | None]:
    changes: dict[str, str | None] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="NAME=VALUE")
        changes[name] = value or None
    return changes


def _refuse_declared(topic: str, directory: Path) -> None:
    """Refuse a topic whose changes `apply` checks first, and would undo. Raises ConfigError."""
    path = declaration_file(topic, directory)
    if path is not None:
        raise ConfigError(
            f"topic {topic} is declared in {path}: `pipeline topics apply` would reset what is set here",
            hint=f"change {path}, and run: pipeline topics apply",
        )


def _refuse_harm(topic: str, changes: dict[str, str | None]) -> None:
    """Refuse settings with which the workers of a journal would not start. Raises ConfigError."""
    if not topic.endswith(".journal") or held_by_the_pipeline(topic) is None:
        return
    needed = {**JOURNAL_CONFIG, "max.message.bytes": str(JOURNAL_MESSAGE_BYTES)}
    for name, value in changes.items():
        if name in needed and value != needed[name]:
            raise ConfigError(
                f"topic {topic} is a journal, and needs {name}={needed[name]}",
                hint=f"pipeline topics set {topic} {name}={needed[name]}",
            )


def _document(info: TopicInfo) -> dict[str, object]:
    return {
        "name": info.name,
        "id": info.topic_id,
        "partitions": info.partitions,
        "replicas": info.replication,
        "settings": {name: info.config[name] for name in sorted(info.overridden)},
    }
