"""`pipeline loads`: the loads of `pipeline produce` and their progress."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any

import typer

from pipeline.cli.options import (
    CommandWait,
    JsonOption,
    KafkaOption,
    print_json,
    print_message,
    quiet_kafka_settings,
)
from pipeline.cli.rendering import Cell, Column, print_table
from pipeline.config import KafkaSettings
from pipeline.core.names import LOADS_TOPIC
from pipeline.core.suggestions import counted
from pipeline.errors import InputError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ops.loading.formats.readers import FORMATS
from pipeline.ops.loading.loader import KnownLoad, known_loads

__all__ = ["loads_app"]

loads_app = typer.Typer(help="Show the loads of `pipeline produce` and their progress.", no_args_is_help=True)


@loads_app.command("list")
def list_loads(kafka: KafkaOption = None, json: JsonOption = False) -> None:
    """List all loads: the topic, the position, and whether the last run reached the end of its files."""
    found = _known(quiet_kafka_settings(kafka))
    if json:
        print_json({"loads": [_document(load) for load in found]})
        return
    if not found:
        print_message("this Kafka cluster has no loads of `pipeline produce`")
        return
    print_table(_COLUMNS, map(_cells, found))


@loads_app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="LOAD", help="The name of the load, as `pipeline loads list` shows it.")
    ],
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Show one load: its options, its position, and the files that it has finished."""
    load = next((load for load in _known(quiet_kafka_settings(kafka)) if load.name == name), None)
    if load is None:
        raise InputError(
            f"there is no load {name!r} in this Kafka cluster", hint="list the loads: pipeline loads list"
        )
    if load.fault is not None:
        raise load.fault
    document = _document(load)
    if json:
        print_json(document)
        return
    lines = [
        (field.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
        for field, value in document.items()
        if field != "options" and value is not None
    ]
    for option, value in document["options"].items():
        lines.append((f"--{option}", ", ".join(value) if isinstance(value, tuple) else str(value)))
    width = max(len(name) for name, _ in lines)
    for name_, text in lines:
        typer.echo(f"{name_:<{width}}  {text}")


_COLUMNS = (
    Column("load"),
    Column("topic"),
    Column("state"),
    Column("records", number=True),
    Column("position"),
)


def _cells(load: KnownLoad) -> list[Cell]:
    at = load.position
    if at is None:
        return [load.name, None, load.state, None, None]
    place = f"{at.file}, {FORMATS[at.options.format].unit} {at.line:,}"
    place += f"; {counted(at.finished_files.count, 'file')} finished" if at.finished_files.count else ""
    return [load.name, at.topic, load.state, at.records, place]


def _known(settings: KafkaSettings) -> list[KnownLoad]:
    with (
        closing(KafkaCluster(settings, CommandWait(settings))) as cluster,
        closing(KafkaJournalReader(settings)) as reader,
    ):
        return known_loads(reader) if cluster.describe([LOADS_TOPIC]) else []


def _document(load: KnownLoad) -> dict[str, Any]:
    at = load.position
    if at is None:
        return {"load": load.name, "state": load.state, "message": load.fault.message if load.fault else None}
    options = {field: getattr(at.options, field) for field in at.options.__struct_fields__}
    return {
        "load": load.name,
        "topic": at.topic,
        "state": load.state,
        "records": at.records,
        "skipped_rows": at.skipped,
        "file": at.file,
        f"{FORMATS[at.options.format].unit}s": at.line,
        "finished_files": at.finished_files.count,
        "last_finished_file": at.finished_files.waypoints[-1].name if at.finished_files.waypoints else None,
        "run": at.run,
        "transactions": at.seq,
        "options": {option: value for option, value in options.items() if value not in {None, ()}},
    }
