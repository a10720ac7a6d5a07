"""`pipeline topics`: the topics declared in topics/*.yaml against the cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console

from pipeline.cli.options import (
    CommandWait,
    JsonOption,
    KafkaOption,
    counted,
    kafka_settings,
    print_json,
    say,
)
from pipeline.cli.tables import Column, print_table
from pipeline.cli.topics_look import list_topics, set_topic, show_topic
from pipeline.cli.topics_view import outcome_lines, plan_document, plan_text
from pipeline.errors import ConfigError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ops.topics.applying import TopicResult, carry_out, checked
from pipeline.ops.topics.cluster_state import look
from pipeline.ops.topics.declarations import read_topics
from pipeline.ops.topics.exporting import FileState, chosen_topics, plan_export, write_export
from pipeline.ops.topics.fields import schema_text
from pipeline.ops.topics.plan import Plan, TopicAction
from pipeline.ports import JournalReader

__all__ = ["topics_app"]

CHANGES = 4  # exit code of `plan --check` where the cluster is not as declared

topics_app = typer.Typer(
    name="topics",
    help="Declare topics in topics/*.yaml, apply the files, and look at topics.",
    no_args_is_help=True,
)

DirOption = Annotated[Path, typer.Option("--dir", help="Where the declarations are.")]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="TOPIC",
        help="Also make changes of this topic by which records are lost or refused. Repeatable.",
    ),
]


@topics_app.callback()
def topics() -> None:
    """Declare topics in topics/*.yaml, apply the files, and look at topics: see docs/how-to/topics.md."""


@topics_app.command()
def plan(
    directory: DirOption = Path("topics"),
    allow: AllowOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show also what is as declared, and topics that nobody declares.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help=f"End with {CHANGES} when the cluster is not as declared.")
    ] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Show what apply would do, and what it would refuse (exit 1). Changes nothing."""
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
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Make the topics as they are declared. Topics that are not declared are left alone.

    On a terminal it asks before it changes a topic that is there. Nothing by which records are lost is done without
    --allow TOPIC, and no topic is deleted that has no declaration with `deleted: true`. What is refused does not hold
    up other topics (exit 1).
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
                    "the cluster has changed meanwhile, and nothing was done", hint="look again"
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
        typer.Option("--topic", metavar="PATTERN", help="Only these, as in 'orders-*'. Repeatable."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also change files that say something else.")
    ] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Write the cluster's topics as declarations, one file each. Files that are right already are left as they are.

    One that says something else is left as it is, too (exit 1), or with --overwrite changed in place: comments, owner,
    key and value stay.
    """
    with _clients(kafka) as found:
        names = chosen_topics(found.cluster.topics(), topic or [])
        exports = plan_export(names, found.cluster, directory)
    write_export(exports, directory, overwrite=overwrite)
    refused = [each for each in exports if each.state is FileState.DIFFERENT and not overwrite]
    said = {
        FileState.NEW: "written",
        FileState.SAME: "right already",
        FileState.DIFFERENT: "changed" if overwrite else "left: it says something else",
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
            f"{counted(len(refused), 'file')} left as they were: they are not as the cluster is",
            hint=f"see how: pipeline topics plan --dir {directory}; or change them: --overwrite",
        )


@topics_app.command()
def schema() -> None:
    """Print the JSON Schema of a declaration, for editors: `topics/topic.schema.json`."""
    typer.echo(schema_text(), nl=False)


topics_app.command("list")(list_topics)
topics_app.command("show")(show_topic)
topics_app.command("set")(set_topic)


class _TopicClients(NamedTuple):
    """What reads Kafka. `journals` opens a reader where one is needed."""

    cluster: KafkaCluster
    journals: Callable[[], JournalReader]


@contextmanager
def _clients(kafka: str | None) -> Iterator[_TopicClients]:
    settings = kafka_settings(kafka)
    with ExitStack() as stack:
        cluster = KafkaCluster(settings, CommandWait(settings))
        stack.callback(cluster.close)

        def journals() -> JournalReader:
            reader = KafkaJournalReader(settings)
            stack.callback(reader.close)
            return reader

        yield _TopicClients(cluster, journals)


def _plan(directory: Path, allow: list[str] | None, found: _TopicClients) -> Plan:
    return look(read_topics(directory), found.cluster, found.journals, frozenset(allow or []))


def _show(planned: Plan, *, json: bool, everything: bool = False) -> None:
    if json:
        print_json(plan_document(planned))
    else:
        Console(highlight=False, soft_wrap=True).print(plan_text(planned, everything=everything))


def _asked(planned: Plan, *, quiet: bool) -> bool:
    """Whether somebody was asked, and agreed. What loses records is refused without --allow, whoever sits there.

    Nobody is asked about topics that are only created: whatever is there stays as it is.
    """
    touches = any(each.to_do and each.action is not TopicAction.CREATE for each in planned.topics)
    if quiet or not touches or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    if not typer.confirm("Do this?", err=True):
        raise typer.Exit(1)
    return True


def _report(outcome: TopicResult, *, json: bool) -> None:
    if not json:
        for line in outcome_lines(outcome):
            say(line)


def _require_done(planned: Plan, outcomes: list[TopicResult], again: Plan) -> None:
    """Raise ConfigError unless the cluster is as declared now, as the plan made `again` says."""
    failed = [outcome.plan.topic.name for outcome in outcomes if outcome.problem is not None]
    refused = sorted({*failed, *(each.topic.name for each in planned.refused)})
    if refused:
        raise ConfigError(
            f"not as declared: {', '.join(refused)}",
            hint="the reasons are above; of a topic that is refused nothing is changed",
        )
    if not again.empty:
        left = ", ".join(each.topic.name for each in again.topics if each.to_do or each.problems)
        raise ConfigError(
            f"done, and yet not as declared: {left}", hint="somebody else changes them: pipeline topics plan"
        )
