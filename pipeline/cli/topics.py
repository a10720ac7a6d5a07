"""`pipeline topics`: compares the declarations in topics/*.yaml with the cluster, and applies them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console

from pipeline.cli.cluster_topics import DirOption, list_topics, set_topic, show_topic
from pipeline.cli.options import (
    CommandWait,
    JsonOption,
    KafkaOption,
    print_json,
    print_message,
    quiet_kafka_settings,
)
from pipeline.cli.rendering import Column, print_table
from pipeline.cli.topics_view import outcome_lines, plan_document, plan_text
from pipeline.core.suggestions import counted
from pipeline.errors import ConfigError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ops.topics.applying import TopicResult, carry_out, checked
from pipeline.ops.topics.cluster_state import plan_for_cluster
from pipeline.ops.topics.declarations import read_topics
from pipeline.ops.topics.exporting import FileState, chosen_topics, plan_export, write_export
from pipeline.ops.topics.fields import schema_text
from pipeline.ops.topics.plan import Plan, TopicAction
from pipeline.ports import JournalReader

__all__ = ["topics_app"]

CHANGES = 4  # exit code of `plan --check` if the cluster differs from the declarations

topics_app = typer.Typer(
    name="topics",
    help="Declare topics in topics/*.yaml and apply the files; show and set topics.",
    no_args_is_help=True,
)

AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="TOPIC",
        help="Permit changes of TOPIC that delete records, or after which Kafka refuses records that it accepts now. "
        "Repeatable.",
    ),
]


@topics_app.callback()
def topics() -> None:
    """Declare topics in topics/*.yaml and apply the files; show and set topics.

    See docs/how-to/topics.md.
    """


@topics_app.command()
def plan(
    directory: DirOption = Path("topics"),
    allow: AllowOption = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Also show topics without a difference, and topics without a declaration."
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help=f"Exit code {CHANGES} if the cluster differs from the declarations."),
    ] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Show what `apply` would change. Changes nothing. Exit code 1 if `apply` would refuse a topic."""
    with _clients(kafka) as found:
        planned = _plan(directory, allow, found)
    _show(planned, json=json, everything=everything)
    if planned.refused:
        raise typer.Exit(1)
    if check and not planned.empty:
        raise typer.Exit(CHANGES)


@topics_app.command()
def apply(
    directory: DirOption = Path("topics"),
    allow: AllowOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Create and change topics so that they match their declarations. Topics without a declaration are not changed.

    On a terminal it asks before it changes an existing topic. Destructive changes require --allow TOPIC, and a topic is
    deleted only if its declaration has `deleted: true`. If a topic is refused, the others are still changed, and the
    exit code is 1.
    """
    outcomes: list[TopicResult] = []
    with _clients(kafka) as found:
        planned = checked(_plan(directory, allow, found), found.cluster)
        if not json:
            _show(planned, json=False)
        if any(each.to_do for each in planned.topics):
            if (
                _asked(planned, quiet=yes or json)
                and checked(_plan(directory, allow, found), found.cluster) != planned
            ):
                raise ConfigError(
                    "the cluster has changed since the plan was shown, and nothing was done",
                    hint="run the command again",
                )
            outcomes = carry_out(planned, found.cluster, lambda outcome: _report(outcome, json=json))
            again = _plan(directory, allow, found)
        else:
            again = planned
    if json:
        print_json(plan_document(planned, outcomes))
    _require_done(planned, outcomes, again)


@topics_app.command()
def export(
    directory: DirOption = Path("topics"),
    topic: Annotated[
        list[str] | None,
        typer.Option("--topic", metavar="PATTERN", help="Only these topics, such as 'orders-*'. Repeatable."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also change files that differ from the cluster.")
    ] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Write the cluster's topics as declarations, one file per topic.

    A file that differs from the cluster is not changed, and the exit code is 1. With --overwrite it is changed in
    place: comments, owner, key and value are kept.
    """
    with _clients(kafka) as found:
        names = chosen_topics(found.cluster.topics(), topic or [])
        exports = plan_export(names, found.cluster, directory)
    write_export(exports, directory, overwrite=overwrite)
    refused = [each for each in exports if each.state is FileState.DIFFERENT and not overwrite]
    said = {
        FileState.NEW: "written",
        FileState.SAME: "unchanged",
        FileState.DIFFERENT: "changed" if overwrite else "differs, not changed",
    }
    if json:
        print_json(
            {"topics": [{"name": e.topic, "file": str(e.path), "state": e.state.value} for e in exports]}
        )
    else:
        rows = ((each.topic, str(each.path), said[each.state]) for each in exports)
        print_table((Column("topic"), Column("file"), Column("state")), rows)
    if refused:
        raise ConfigError(
            f"{counted(len(refused), 'file')} not changed: the cluster differs",
            hint=f"show the differences: pipeline topics plan --dir {directory}. To change the files, add --overwrite",
        )


@topics_app.command()
def schema() -> None:
    """Print the JSON Schema of a declaration, for editors. Save it as `topics/topic.schema.json`."""
    typer.echo(schema_text(), nl=False)


topics_app.command("list")(list_topics)
topics_app.command("show")(show_topic)
topics_app.command("set")(set_topic)


class _TopicClients(NamedTuple):
    """The clients that read Kafka. `journals` opens a reader when one is needed."""

    cluster: KafkaCluster
    journals: Callable[[], JournalReader]


@contextmanager
def _clients(kafka: str | None) -> Iterator[_TopicClients]:
    settings = quiet_kafka_settings(kafka)
    with ExitStack() as stack:
        cluster = KafkaCluster(settings, CommandWait(settings))
        stack.callback(cluster.close)

        def journals() -> JournalReader:
            reader = KafkaJournalReader(settings)
            stack.callback(reader.close)
            return reader

        yield _TopicClients(cluster, journals)


def _plan(directory: Path, allow: list[str] | None, found: _TopicClients) -> Plan:
    return plan_for_cluster(read_topics(directory), found.cluster, found.journals, frozenset(allow or []))


def _show(planned: Plan, *, json: bool, everything: bool = False) -> None:
    if json:
        print_json(plan_document(planned))
    else:
        Console(highlight=False, soft_wrap=True).print(plan_text(planned, everything=everything))


def _asked(planned: Plan, *, quiet: bool) -> bool:
    """Ask for confirmation on a terminal, and return whether the operator was asked.

    There is no question if topics are only created, because no existing topic changes. Destructive changes require
    --allow in any case.
    """
    touches = any(each.to_do and each.action is not TopicAction.CREATE for each in planned.topics)
    if quiet or not touches or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    if not typer.confirm("Apply these changes?", err=True):
        raise typer.Exit(1)
    return True


def _report(outcome: TopicResult, *, json: bool) -> None:
    if not json:
        for line in outcome_lines(outcome):
            print_message(line)


def _require_done(planned: Plan, outcomes: list[TopicResult], again: Plan) -> None:
    """Raise ConfigError if the cluster still differs from the declarations, according to the new plan `again`."""
    failed = [outcome.plan.topic.name for outcome in outcomes if outcome.problem is not None]
    refused = sorted({*failed, *(each.topic.name for each in planned.refused)})
    if refused:
        raise ConfigError(
            f"not applied: {', '.join(refused)}",
            hint="the reasons are above. A refused topic is not changed at all",
        )
    if not again.empty:
        left = ", ".join(each.topic.name for each in again.topics if each.to_do or each.problems)
        raise ConfigError(
            f"applied, but these topics still differ from their declarations: {left}",
            hint="another client may be changing them. Show the differences: pipeline topics plan",
        )
