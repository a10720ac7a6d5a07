"""`pipeline reset MODULE:APP`: delete the state of tasks, and process their input again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, TypeVar

import typer

from pipeline.api.app import DeclaredApp
from pipeline.api.declared_group import DeclaredGroup
from pipeline.cli.lookup import find_app, find_group, group_of, parse_task
from pipeline.cli.options import (
    CommandWait,
    JsonOption,
    KafkaOption,
    confirm,
    print_json,
    print_message,
)
from pipeline.cli.rendering import Cell, Column, print_table
from pipeline.config import load_settings
from pipeline.core.names import TaskChoice, is_replays
from pipeline.core.suggestions import counted
from pipeline.errors import PipelineError
from pipeline.ports import task_fields
from pipeline.processes.wiring import build_environment, with_worker_id
from pipeline.runtime.reset import InputReset, TaskReset, plan_reset, reset_task, start_at

__all__ = ["reset"]

_T = TypeVar("_T")


def reset(
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app, as in flights.app:app.")],
    group: Annotated[str | None, typer.Option(help="Only this handler group. Default: all.")] = None,
    task: Annotated[
        list[TaskChoice] | None,
        typer.Option(
            "--task",
            metavar="[GROUP/]N",
            help="Only the task with this number. Default: all.",
            parser=parse_task,
        ),
    ] = None,
    partition: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help="Only this partition of the inputs of --group, or of all groups. The other partitions of its task "
            "keep their rows and positions.",
            show_default=False,
            min=0,
        ),
    ] = None,
    start: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="[TOPIC=]WHERE",
            help="The new position: earliest, latest, an offset, or a time such as 2026-01-31T00:00:00Z. Once for "
            "each topic, or once for all. Default: earliest.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Delete the state of tasks, and process their input again from a chosen position.

    The outputs of these records are produced again. Workers may run meanwhile: each task is fenced first, and its
    worker continues from the new position within seconds.
    """
    if task and partition:
        raise typer.BadParameter("cannot be combined with --task", param_hint="--partition")
    only_task, only_partition = _one(task, "--task"), _one(partition, "--partition")
    app = find_app(target)
    settings = load_settings({"bootstrap_servers": kafka})
    environment = build_environment(app, settings, wait=CommandWait(settings.kafka))
    chosen = start_at(start or ["earliest"])
    resets = list(
        plan_reset(
            app,
            _groups(app, group_of(group, only_task)),
            only_task.number if only_task is not None else None,
            chosen,
            environment,
            only_partition,
        )
    )
    if json:
        for planned in resets:
            print_json(_document(planned, dry_run=dry_run))
    else:
        _print_plan(resets)
    print_message(_consequences(resets))
    if dry_run:
        return
    confirm(f"Reset {_named(resets)}?", yes=yes)
    owner = f"reset by {with_worker_id(settings.worker).worker_id}"
    for done, planned in enumerate(resets):
        try:
            seq = reset_task(planned, owner, environment, settings.worker)
        except PipelineError as error:
            raise type(error)(
                f"{error.message}\n{done} of {counted(len(resets), 'task')} {'was' if done == 1 else 'were'} reset "
                "before this error",
                hint=error.hint or "run the command again for the other tasks, with --group and --task",
            ) from error
        what = f"epoch {seq}" if planned.plan.group.sinks else f"journal entry {seq}"
        which = f"partition {planned.partition} of " if planned.partition is not None else ""
        print_message(f"{which}task {planned.task} is reset ({what})")


def _one(given: Sequence[_T] | None, option: str) -> _T | None:
    """The value of an option. Of several values, the parser would otherwise silently use the last one."""
    if given and len(given) > 1:
        raise typer.BadParameter("can be given once: run the command again for the others", param_hint=option)
    return given[0] if given else None


def _groups(app: DeclaredApp, name: str | None) -> list[DeclaredGroup]:
    return list(app.groups) if name is None else [find_group(app, app.groups, name)]


def _named(resets: Sequence[TaskReset]) -> str:
    partitions = [planned.partition for planned in resets if planned.partition is not None]
    if not partitions:
        return counted(len(resets), "task")
    return f"partition {partitions[0]} of {counted(len(resets), 'task')}"


_COLUMNS = (
    Column("task"),
    Column("topic"),
    Column("partition", number=True),
    Column("position", number=True),
    Column("new position", number=True),
    Column("reprocessed", number=True),
    Column("skipped", number=True),
)


def _print_plan(resets: Sequence[TaskReset]) -> None:
    """Print a table. If each task has one partition, its number is that of the task, and is left out."""
    if any(planned.plan.task_count < planned.plan.partitions for planned in resets):
        print_table(_COLUMNS, _rows(resets))
    else:
        columns = [column for column in _COLUMNS if column.title != "partition"]
        print_table(columns, ([*row[:2], *row[3:]] for row in _rows(resets)))


def _rows(resets: Sequence[TaskReset]) -> Iterator[list[Cell]]:
    """A row for each input whose position changes, and at least one for each task, because its state is deleted."""
    for planned in resets:
        still = [place for place in planned.inputs if not is_replays(place.topic)]
        moved = [place for place in planned.inputs if place.again or place.skipped or _is_new(place)]
        for place in moved or still[:1]:
            yield [
                f"{planned.task.group}/{planned.task.number}",
                *(place.topic, place.partition, place.position, place.start, place.again, place.skipped),
            ]


def _is_new(place: InputReset) -> bool:
    """Whether the task never read this topic, also because it was created again."""
    return place.position is None and not is_replays(place.topic)


def _document(planned: TaskReset, *, dry_run: bool) -> dict[str, object]:
    inputs = [
        {
            "topic": i.topic,
            "partition": i.partition,
            "position": i.position,
            "new_position": i.start,
            "reprocessed": i.again,
            "skipped": i.skipped,
        }
        for i in planned.inputs
    ]
    return {
        **task_fields(planned.task, planned.partitions),
        "seq": planned.seq,
        "inputs": inputs,
        "outputs": list(planned.outputs),
        "dry_run": dry_run,
    }


def _consequences(resets: Sequence[TaskReset]) -> str:
    tables = sorted({f"{r.task.group}.{name}" for r in resets for name in r.plan.group.tables})
    outputs = sorted({name for r in resets for name in r.outputs})
    handled = [r for r in resets if not r.plan.group.sinks]
    again = sum(place.again for r in handled for place in r.inputs)
    lines = []
    if handled:
        only = [f" in partition {r.partition}" for r in handled if r.partition is not None]
        rows = f"all rows of {', '.join(tables)}{only[0] if only else ''}"
        lines = [f"deleted: {rows}" if tables else "deleted: nothing, there are no tables"]
    if again:
        where = f", to {', '.join(outputs)}" if outputs else ""
        lines.append(f"produced again: the outputs for the reprocessed records{where}")
        lines += _read_again(resets)
    if new := sorted({place.topic for r in resets for place in r.inputs if _is_new(place)}):
        lines.append(f"read for the first time, from the new position: {', '.join(new)}")
    if again and any(r.plan.reads_replays for r in resets):
        lines.append(
            "kept: the dead letters of these records. Do not replay them: their records are reprocessed, and would "
            "be counted twice. Replays that were not processed yet are dropped"
        )
    sinks = list(dict.fromkeys(str(bound.sink) for r in resets for bound in r.plan.group.sinks))
    if sinks:
        lines.append(
            f"written again: the rows of the reprocessed records, to {', '.join(sinks)}. No rows are deleted. Sinks "
            "with mode upsert or insert store each row once; sinks with mode append store it twice"
        )
    return "\n".join(lines)


def _read_again(resets: Sequence[TaskReset]) -> list[str]:
    """For each other group that reads outputs which are produced again, a warning: to it, they are new records."""
    read = {
        (group, topic)
        for r in resets
        if any(place.again for place in r.inputs)
        for topic, groups in r.readers.items()
        for group in groups
    }
    return [
        f"warning: group {group} reads {topic}, and handles these outputs again"
        for group, topic in sorted(read)
    ]
