"""`pipeline deadletters`: shows, replays, discards and deletes dead letters."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, NamedTuple

import typer

from pipeline.api.app import DeclaredApp
from pipeline.api.declared_group import DeclaredGroup
from pipeline.cli.dead_letter_views import letter_document, letter_lines, record_lines, record_summary
from pipeline.cli.lookup import find_app, find_group
from pipeline.cli.options import CommandWait, KafkaOption, print_json, print_message, terminal_width
from pipeline.config import Settings, load_settings
from pipeline.core.suggestions import counted
from pipeline.errors import InputError
from pipeline.ops.dead_letters.letters import (
    Choice,
    DeadLetter,
    LetterId,
    dead_letter_topic,
    letter_id,
    read_letters,
)
from pipeline.ops.dead_letters.marks import ReplayMark, read_marks
from pipeline.ops.dead_letters.purging import plan_purge
from pipeline.ops.dead_letters.purging import purge as purge_letters
from pipeline.ops.dead_letters.records import State, failed_records, newest_letters
from pipeline.ops.dead_letters.replaying import Discarder, Replayer, ReplayReport
from pipeline.ports import TopicInfo
from pipeline.processes.wiring import build_environment
from pipeline.runtime.dead_letter_topics import dead_letter_topics
from pipeline.runtime.environment import Environment

__all__ = ["DeadLetterGroup", "deadletters_app", "open_dead_letters"]

deadletters_app = typer.Typer(help="Show, replay, discard and delete dead letters.", no_args_is_help=True)

_SHOWN = 50

Target = Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app, as in flights.app:app.")]
Ids = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID]...", help="Only these dead letters. IDs are PARTITION:OFFSET, as `list` shows them."
    ),
]
GroupOption = Annotated[
    str | None, typer.Option(help="The handler group. Default: the only group with dead letters.")
]
PartitionOption = Annotated[
    int | None, typer.Option(help="Only records of this partition of the input.", min=0)
]
ErrorOption = Annotated[str, typer.Option(metavar="TEXT", help="Only dead letters with TEXT in their error.")]
MaxOption = Annotated[int | None, typer.Option("--max", metavar="N", help="At most N.", min=1)]


class DeadLetterGroup(NamedTuple):
    """A group with dead letters, and what is needed to read them."""

    app: DeclaredApp
    group: DeclaredGroup
    topic: TopicInfo
    environment: Environment
    settings: Settings

    @property
    def marks(self) -> dict[LetterId, ReplayMark]:
        return read_marks(self.group.id, self.topic.topic_id, self.environment)


@contextmanager
def open_dead_letters(target: str, group: str | None, kafka: str | None) -> Iterator[DeadLetterGroup]:
    """Open the clients for the dead letters of a group, and close them afterwards.

    Raises:
        ConfigError: The app cannot be loaded.
        InputError: There is no such group, or it has no dead letters.
        UnreachableError: Kafka does not answer.
    """
    app = find_app(target)
    settings = load_settings({"bootstrap_servers": kafka})
    environment = build_environment(app, settings, wait=CommandWait(settings.kafka))
    try:
        chosen = _group(app, group, environment)
        yield DeadLetterGroup(
            app, chosen, dead_letter_topic(chosen.id, environment.cluster), environment, settings
        )
    finally:
        environment.executor.close()
        environment.cluster.close()


def _group(app: DeclaredApp, name: str | None, environment: Environment) -> DeclaredGroup:
    """The group with this name, or the only group with dead letters."""
    groups = app.groups
    if name is not None:
        return find_group(app, groups, name)
    known = ", ".join(group.name for group in groups) or "none"
    there = dead_letter_topics(groups, environment.cluster)
    found = [group for group in groups if group.id.dead_letter_topic in there]
    if not found:
        raise InputError(
            f"app {app.name} has no dead letters: none of its groups ({known}) has a dead-letter topic",
            hint="a worker creates the topic if a handler has on_error='dead_letter'",
        )
    if len(found) > 1:
        names = ", ".join(group.name for group in found)
        raise InputError(
            f"several groups of app {app.name} have dead letters: {names}", hint="choose one with --group"
        )
    return found[0]


@deadletters_app.command("list")
def list_(
    target: Target,
    group: GroupOption = None,
    partition: PartitionOption = None,
    error: ErrorOption = "",
    only_open: Annotated[
        bool, typer.Option("--open", help="Only records that were neither replayed nor discarded.")
    ] = False,
    most: Annotated[
        int | None,
        typer.Option(
            "--max", metavar="N", help=f"The newest N records. Default: {_SHOWN}; with --json, all.", min=1
        ),
    ] = None,
    kafka: KafkaOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per record.")] = False,
) -> None:
    """Show the records that failed: their position, the time, the error, and their state.

    A record that failed several times, because its replay failed, has several dead letters. It is listed once, with the
    ID of the newest one; `dead_letters` in --json is their number. The state is open, replayed or discarded.
    """
    with open_dead_letters(target, group, kafka) as source:
        marks = source.marks
        found = failed_records(
            source.topic, source.group.id, Choice(partition=partition, error=error), source.environment
        )
        states = [(record, record.state(marks)) for record in found if record.meant]
        count = Counter(state for _, state in states)
        records = [record for record, state in states if state is State.OPEN or not only_open]
        shown = records
        if most is not None or not json:
            shown = heapq.nlargest(
                most or _SHOWN, records, key=lambda record: (record.failed_ms, record.newest)
            )
        read = {
            letter.id: (record, letter)
            for record, letter in newest_letters(source.topic, shown, source.environment)
        }
        rows = [
            (record, letter, marks.get(letter.id))
            for record, letter in sorted(read.values(), key=lambda row: (row[0].failed_ms, row[0].newest))
        ]
        if json:
            for record, letter, mark in rows:
                print_json(record_summary(record, letter, mark))
            return
        for line in record_lines(rows, terminal_width()):
            typer.echo(line)
        hidden = f"; only the newest {len(rows)} are shown" if len(rows) < len(records) else ""
        print_message(
            f"{counted(len(states), 'record')} of group {source.group.name} failed: {count[State.OPEN]:,} open, "
            f"{count[State.REPLAYED]:,} replayed, {count[State.DISCARDED]:,} discarded{hidden}"
        )


@deadletters_app.command()
def show(
    target: Target,
    ids: Ids = None,
    group: GroupOption = None,
    partition: PartitionOption = None,
    error: ErrorOption = "",
    most: MaxOption = None,
    kafka: KafkaOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per dead letter.")] = False,
) -> None:
    """Show complete dead letters: the record with its headers and bytes, and the error with its traceback."""
    with open_dead_letters(target, group, kafka) as source:
        choice = _choice(ids, partition, error)
        marks = source.marks
        shown = 0
        for letter in _found(source, choice):
            if shown == most:
                break
            mark = marks.get(letter.id)
            if json:
                print_json(letter_document(letter, mark))
            else:
                typer.echo(("\n" if shown else "") + "\n".join(letter_lines(letter, mark)))
            shown += 1
        if not shown:
            raise InputError(f"topic {source.topic.name} has no such dead letter", hint=_ask(target))
        if choice.ids and most is None and shown < len(choice.ids):
            raise InputError(
                f"topic {source.topic.name} lacks {len(choice.ids) - shown} of these "
                f"{counted(len(choice.ids), 'dead letter')}",
                hint=_ask(target),
            )


@deadletters_app.command()
def replay(
    target: Target,
    ids: Ids = None,
    group: GroupOption = None,
    partition: PartitionOption = None,
    error: ErrorOption = "",
    most: MaxOption = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Also records that were replayed or discarded before. Each run replays them again.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show how many records would be replayed, and change nothing.")
    ] = False,
    kafka: KafkaOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Let the group's handlers process failed records again, each exactly once.

    Only this group receives them. A record with several dead letters is replayed once, from the newest one; the ID of
    any of them selects it. A record that fails again becomes a dead letter again. After a crash of this command, run it
    again.
    """
    with open_dead_letters(target, group, kafka) as source:
        choice = _choice(ids, partition, error)
        backoff_ms = source.settings.worker.retry_backoff_ms
        replayer = Replayer(source.group, source.environment, backoff_ms, again=again)
        if dry_run:
            done = ReplayReport()
            done.letters = sum(1 for _ in replayer.plan(choice, done, most))
        else:
            done = replayer.run(choice, most)
        if choice.ids and not (done.letters or done.before or done.refused):
            raise InputError(f"topic {source.topic.name} has no such dead letter", hint=_ask(target))
    _report(done, source, dry_run=dry_run, json=json)
    if done.refused:
        raise typer.Exit(1)


@deadletters_app.command()
def discard(
    target: Target,
    ids: Ids = None,
    group: GroupOption = None,
    partition: PartitionOption = None,
    error: ErrorOption = "",
    everything: Annotated[bool, typer.Option("--all", help="All open records.")] = False,
    most: MaxOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show how many records would be discarded, and change nothing.")
    ] = False,
    kafka: KafkaOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Mark failed records as handled, without a replay.

    Their dead letters are kept until `purge`. `replay --again` with their IDs still replays them.
    """
    if not (ids or error or everything or partition is not None):
        raise InputError(
            "the records to discard are not given", hint="add IDs, --partition, --error, or --all"
        )
    with open_dead_letters(target, group, kafka) as source:
        choice = _choice(ids, partition, error)
        discarder = Discarder(source.group, source.environment, source.settings.worker.retry_backoff_ms)
        if dry_run:
            done = ReplayReport()
            done.letters = sum(1 for _ in discarder.plan(choice, done, most))
        else:
            done = discarder.run(choice, most)
        if choice.ids and not (done.letters or done.before):
            raise InputError(f"topic {source.topic.name} has no such dead letter", hint=_ask(target))
    if json:
        print_json({"discarded": done.letters, "already_handled": done.before, "dry_run": dry_run})
        return
    verb = "would be discarded" if dry_run else "discarded"
    before = f"; {done.before:,} were already replayed or discarded" if done.before else ""
    typer.echo(f"{counted(done.letters, 'record')} {verb}{before}")


@deadletters_app.command()
def purge(
    target: Target,
    group: GroupOption = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete them. Without --yes, show how many would be deleted.")
    ] = False,
    kafka: KafkaOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Delete the dead letters of records that were discarded, or replayed and then handled.

    A dead letter is kept while its record is open, and while a replay of it waits for a worker. Kafka can only delete
    from the start of a partition, so the dead letters after such a one are kept, too.
    """
    with open_dead_letters(target, group, kafka) as source:
        backoff_ms = source.settings.worker.retry_backoff_ms
        done = (
            purge_letters(source.group.id, source.environment, backoff_ms)
            if yes
            else plan_purge(source.group.id, source.environment)
        )
    if json:
        print_json(
            {
                "deleted": done.letters,
                "open": done.open,
                "waiting": done.waiting,
                "blocked": done.behind,
                "dry_run": not yes,
            }
        )
        return
    verb = "deleted" if yes else "would be deleted"
    typer.echo(f"{counted(done.letters, 'dead letter')} {verb}; {counted(done.open, 'record')} open")
    if done.waiting:
        print_message(
            f"{counted(done.waiting, 'record')} kept, because a replay waits for a worker: pipeline status "
            f"{source.app.name} counts it as lag. Run purge again when the workers have handled it"
        )
    if done.behind:
        print_message(
            f"{counted(done.behind, 'dead letter')} more can be deleted when those before them are handled"
        )
    if not yes and done.letters:
        print_message("nothing was changed. To delete them, add --yes")


def _choice(ids: Sequence[str] | None, partition: int | None, error: str) -> Choice:
    return Choice(frozenset(map(letter_id, ids or ())), partition, error)


def _found(source: DeadLetterGroup, choice: Choice) -> Iterator[DeadLetter]:
    return read_letters(source.topic, choice, source.environment)


def _report(done: ReplayReport, source: DeadLetterGroup, *, dry_run: bool, json: bool) -> None:
    refused = [{"id": each.letter.name, "message": each.reason} for each in done.refused]
    if json:
        print_json(
            {
                "replayed": done.letters,
                "already_handled": done.before,
                "refused": refused,
                "dry_run": dry_run,
            }
        )
    else:
        verb = "would be replayed" if dry_run else "replayed"
        before = f"; {_before(done)}" if done.before else ""
        typer.echo(f"{counted(done.letters, 'dead letter')} {verb}{before}")
    for each in refused:
        print_message(f"not replayed: {each['id']}: {each['message']}")
    if done.letters and not dry_run:
        print_message(
            f"the workers process them next; until then, pipeline status {source.app.name} counts them as lag"
        )


def _before(done: ReplayReport) -> str:
    replayed = done.before - done.discarded
    parts = [(replayed, "replayed"), (done.discarded, "discarded")]
    said = " and ".join(f"{number:,} were already {verb}" for number, verb in parts if number)
    return f"{said} (replay them again with --again)"


def _ask(target: str) -> str:
    return f"pipeline deadletters list {target}"
