"""`pipeline topics`: the topics declared in topics/*.yaml against the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline.cli.options import JsonOption, KafkaOption, kafka_settings, print_json
from pipeline.client.topics import State, TopicState, compare, read_topics
from pipeline.errors import ConfigError
from pipeline.kafka.cluster import KafkaCluster

__all__ = ["topics_app"]

topics_app = typer.Typer(
    name="topics", help="The topics declared in topics/*.yaml, one file each.", no_args_is_help=True
)


@topics_app.callback()
def topics() -> None:
    """The topics declared in topics/*.yaml, one file each."""


@topics_app.command("apply")
def apply(
    directory: Annotated[Path, typer.Option("--dir", help="Where the declarations are.")] = Path("topics"),
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Create the declared topics that are missing. One that differs is reported, never changed (exit 1)."""
    declared = read_topics(directory)
    cluster = KafkaCluster(kafka_settings(kafka))
    try:
        found = compare(declared, cluster.describe([topic.name for topic in declared]))
        cluster.create([state.topic.spec for state in found if state.state is State.MISSING])
    finally:
        cluster.close()
    if json:
        print_json({"topics": [_document(state) for state in found]})
    else:
        Console(highlight=False).print(_table(found))
    differing = [state for state in found if state.state is State.DIFFERS]
    if differing:
        lines = [
            f"{state.topic.name}: {difference}" for state in differing for difference in state.differences
        ]
        raise ConfigError(
            "\n  ".join([f"{len(differing)} of {len(found)} topics are not as declared:", *lines]),
            hint="nothing was changed there: change the declaration, or the topic by hand",
        )


def _done(state: TopicState) -> str:
    return "created" if state.state is State.MISSING else state.state.value


def _document(state: TopicState) -> dict[str, object]:
    return {
        "name": state.topic.name,
        "partitions": state.topic.partitions,
        "state": _done(state),
        "differences": [
            {"what": each.what, "declared": each.declared, "actual": each.actual}
            for each in state.differences
        ],
    }


def _table(found: Sequence[TopicState]) -> Table:
    colours = {"created": "green", "present": "dim", "differs": "red"}
    table = Table("topic", "partitions", "state", "owner", box=None, pad_edge=False, header_style="bold")
    for state in found:
        done = _done(state)
        table.add_row(
            state.topic.name,
            str(state.topic.partitions),
            f"[{colours[done]}]{done}[/]",
            state.topic.owner,
        )
    return table
