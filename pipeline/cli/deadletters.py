"""`pipeline deadletters`: what could not be processed, why, and another try."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, NamedTuple

import typer
from rich.table import Table

from pipeline.app import App
from pipeline.cli.letter_views import letter_cells, letter_document, letter_lines, letter_summary
from pipeline.cli.lookup import find_app
from pipeline.cli.options import CommandWait, KafkaOption, counted, print_json, say, table_console
from pipeline.client.deadletters.letters import (
    Choice,
    DeadLetter,
    LetterId,
    dead_letter_topic,
    letter_id,
    read_letters,
)
from pipeline.client.deadletters.marks import Mark, read_marks
from pipeline.client.deadletters.replaying import Replayed, Replayer
from pipeline.config import Settings, load_settings
from pipeline.errors import InputError
from pipeline.group import Group
from pipeline.ports import TopicInfo
from pipeline.runtime.letter_topics import letter_topics
from pipeline.runtime.world import World
from pipeline.wiring import build_world

__all__ = ["deadletters_app"]

deadletters_app = typer.Typer(help="Look at dead letters, and replay them.", no_args_is_help=True)

_SHOWN = 50

Target = Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app, as in flights.app:app.")]
Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help="Only these, as `list` names them: PARTITION:OFFSET."),
]
GroupOption = Annotated[
    str | None, typer.Option(help="The handler group; default: the one that has dead letters.")
]
PartitionOption = Annotated[
    int | None, typer.Option(help="Only records of this partition, and so of one task.", min=0)
]
ErrorOption = Annotated[str, typer.Option(metavar="TEXT", help="Only those with TEXT in the error.")]
MaxOption = Annotated[int | None, typer.Option("--max", metavar="N", help="N of them at most.", min=1)]


class _Place(NamedTuple):
    """A group whose dead letters are asked about."""

    app: App
    group: Group
    topic: TopicInfo
    world: World
    settings: Settings

    @property
    def marks(self) -> dict[LetterId, Mark]:
        return read_marks(self.group.id, self.topic.topic_id, self.world)


@deadletters_app.command("list")
def list_(
    target: Target,
    group: GroupOption = None,
    partition: PartitionOption = None,
    error: ErrorOption = "",
    most: Annotated[
        int | None,
        typer.Option("--max", metavar="N", help=f"The newest N. Default: {_SHOWN}, with --json all.", min=1),
    ] = None,
    kafka: KafkaOption = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a letter.")] = False,
) -> None:
    """Show where dead letters come from, when and why they were given up, and whether they were replayed."""
    with _place(target, group, kafka) as place:
        marks = place.marks
        found = _found(place, Choice(partition=partition, error=error))
        if json and most is None:  # as they come: there may be a million
            for letter in found:
                print_json(letter_summary(letter, marks.get(letter.id)))
            return
        total, replayed, newest = _newest(found, marks, most or _SHOWN)
        if json:
            for letter in newest:
                print_json(letter_summary(letter, marks.get(letter.id)))
            return
        table = Table("id", "record", "given up", "handler", "tries", "replayed", "error", box=None)
        for letter in newest:
            table.add_row(*letter_cells(letter, marks.get(letter.id)))
        table_console().print(table)
        hidden = f"; the newest {len(newest)} are shown" if len(newest) < total else ""
        say(
            f"{counted(total, 'dead letter')} of group {place.group.name}, {replayed} of them replayed{hidden}"
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
    json: Annotated[bool, typer.Option("--json", help="One JSON object a letter.")] = False,
) -> None:
    """Show everything of dead letters: the record with its headers and bytes, the error with its traceback."""
    with _place(target, group, kafka) as place:
        choice = _choice(ids, partition, error)
        marks = place.marks
        shown = 0
        for letter in _found(place, choice):
            if shown == most:
                break
            mark = marks.get(letter.id)
            if json:
                print_json(letter_document(letter, mark))
            else:
                typer.echo(("\n" if shown else "") + "\n".join(letter_lines(letter, mark)))
            shown += 1
        if not shown:
            raise InputError(f"there is no such dead letter in topic {place.topic.name}", hint=_ask(target))
        if choice.ids and most is None and shown < len(choice.ids):
            raise InputError(
                f"of {len(choice.ids)} dead letters {len(choice.ids) - shown} are not there",
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
        bool, typer.Option("--again", help="Also those that were replayed before: once more with each run.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be replayed, and change nothing.")
    ] = False,
    kafka: KafkaOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Let the group's handlers try dead letters again, each exactly once. Run it again after any crash.

    Only this group sees them. One that fails again becomes a dead letter again.
    """
    with _place(target, group, kafka) as place:
        choice = _choice(ids, partition, error)
        backoff_ms = place.settings.worker.retry_backoff_ms
        replayer = Replayer(place.group, place.world, backoff_ms, again=again)
        if dry_run:
            done = Replayed()
            done.letters = sum(1 for _ in replayer.plan(choice, done, most))
        else:
            done = replayer.run(choice, most)
        if choice.ids and not (done.letters or done.before or done.refused):
            raise InputError(f"there is no such dead letter in topic {place.topic.name}", hint=_ask(target))
    _report(done, place, dry_run=dry_run, json=json)
    if done.refused:
        raise typer.Exit(1)


@contextmanager
def _place(target: str, group: str | None, kafka: str | None) -> Iterator[_Place]:
    app = find_app(target)
    settings = load_settings({"bootstrap_servers": kafka})
    world = build_world(app, settings, wait=CommandWait(settings.kafka))
    try:
        chosen = _group(app, group, world)
        yield _Place(app, chosen, dead_letter_topic(chosen.id, world.cluster), world, settings)
    finally:
        world.executor.close()
        world.cluster.close()


def _group(app: App, name: str | None, world: World) -> Group:
    """The group that is named, or the only one that has dead letters."""
    groups = app.groups
    known = ", ".join(group.name for group in groups) or "none"
    if name is not None:
        found = [group for group in groups if group.name == name]
        if not found:
            raise InputError(f"app {app.app_name} has no group {name}", hint=f"its groups: {known}")
        return found[0]
    there = letter_topics(groups, world.cluster)
    found = [group for group in groups if group.id.dead_letter_topic in there]
    if not found:
        raise InputError(
            f"app {app.app_name} has no dead letters: none of its groups ({known}) has a topic for them",
            hint="a worker creates it when a handler has on_error='dead_letter'",
        )
    if len(found) > 1:
        names = ", ".join(group.name for group in found)
        raise InputError(f"several groups have dead letters: {names}", hint="choose one with --group")
    return found[0]


def _choice(ids: Sequence[str] | None, partition: int | None, error: str) -> Choice:
    return Choice(frozenset(map(letter_id, ids or ())), partition, error)


def _found(place: _Place, choice: Choice) -> Iterator[DeadLetter]:
    return read_letters(place.topic, choice, place.world)


def _newest(
    found: Iterator[DeadLetter], marks: dict[LetterId, Mark], most: int
) -> tuple[int, int, list[DeadLetter]]:
    """How many there are, how many of them were replayed, and the newest `most`, oldest first."""
    total = replayed = 0
    kept: list[tuple[int, int, int, DeadLetter]] = []
    for letter in found:
        total += 1
        replayed += letter.id in marks
        entry = (letter.letter.failed_ms, letter.partition, letter.offset, letter)
        if len(kept) < most:
            heapq.heappush(kept, entry)
        else:
            heapq.heappushpop(kept, entry)
    return total, replayed, [letter for *_, letter in sorted(kept, key=lambda entry: entry[:3])]


def _report(done: Replayed, place: _Place, *, dry_run: bool, json: bool) -> None:
    refused = [{"id": each.letter.name, "reason": each.reason} for each in done.refused]
    if json:
        print_json({"replayed": done.letters, "before": done.before, "refused": refused, "dry_run": dry_run})
    else:
        verb = "would be replayed" if dry_run else "replayed"
        before = f"; {done.before:,} had been replayed before (--again)" if done.before else ""
        typer.echo(f"{counted(done.letters, 'dead letter')} {verb}{before}")
    for each in refused:
        say(f"not replayed: {each['id']}: {each['reason']}")
    if done.letters and not dry_run:
        say(
            f"the workers handle them next; pipeline status {place.app.app_name} counts those that wait as lag"
        )


def _ask(target: str) -> str:
    return f"pipeline deadletters list {target}"
