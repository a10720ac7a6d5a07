"""`pipeline loads`: what `pipeline produce` has loaded, and how far."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any

import typer
from rich.table import Table

from pipeline.cli.options import (
    CommandWait,
    JsonOption,
    KafkaOption,
    counted,
    kafka_settings,
    print_json,
    say,
    table_console,
)
from pipeline.client.loading.loads import KnownLoad, known_loads
from pipeline.config import KafkaSettings
from pipeline.core.names import LOADS_TOPIC
from pipeline.errors import InputError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader

__all__ = ["loads_app"]

loads_app = typer.Typer(help="Show the loads of `pipeline produce` and their progress.", no_args_is_help=True)


@loads_app.command("list")
def list_loads(kafka: KafkaOption = None, json: JsonOption = False) -> None:
    """List all loads: where to, how far, and whether the last run came to the end of its files."""
    found = _known(kafka_settings(kafka))
    if json:
        print_json({"loads": [_document(load) for load in found]})
        return
    if not found:
        say("nothing was loaded into this Kafka by `pipeline produce`")
        return
    table = Table("load", "topic", "state", "records", "at", box=None)
    for load in found:
        at = load.position
        if at is None:
            table.add_row(load.name, "", load.state, "", "")
        else:
            place = f"{at.file}, {at.options.unit} {at.line:,}"
            place += f"; {counted(at.passed.count, 'file')} before it" if at.passed.count else ""
            table.add_row(load.name, at.topic, load.state, f"{at.records:,}", place)
    table_console().print(table)


@loads_app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="LOAD", help="The load's name, as `pipeline loads list` has it.")
    ],
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Show one load: how it was begun, where it stands, which files it has finished."""
    load = next((load for load in _known(kafka_settings(kafka)) if load.name == name), None)
    if load is None:
        raise InputError(f"nothing is known of a load {name!r}", hint="pipeline loads list")
    if load.fault is not None:
        raise load.fault
    document = _document(load)
    if json:
        print_json(document)
        return
    table = Table(box=None, show_header=False)
    for field, value in document.items():
        if field != "options":
            table.add_row(field.replace("_", " "), "" if value is None else str(value))
    for option, value in document["options"].items():
        table.add_row(f"--{option}", ", ".join(value) if isinstance(value, tuple) else str(value))
    table_console().print(table)


def _known(settings: KafkaSettings) -> list[KnownLoad]:
    with (
        closing(KafkaCluster(settings, CommandWait(settings))) as cluster,
        closing(KafkaJournalReader(settings)) as reader,
    ):
        return known_loads(reader) if cluster.describe([LOADS_TOPIC]) else []


def _document(load: KnownLoad) -> dict[str, Any]:
    at = load.position
    if at is None:
        return {"load": load.name, "state": load.state, "reason": load.fault.message if load.fault else None}
    options = {field: getattr(at.options, field) for field in at.options.__struct_fields__}
    return {
        "load": load.name,
        "topic": at.topic,
        "state": load.state,
        "records": at.records,
        "skipped": at.skipped,
        "file": at.file,
        f"{at.options.unit}s": at.line,
        "finished_files": at.passed.count,
        "last_finished_file": at.passed.waypoints[-1].name if at.passed.waypoints else None,
        "run": at.run,
        "transactions": at.seq,
        "options": {option: value for option, value in options.items() if value not in {None, ()}},
    }
