"""`pipeline status`: the tasks of an app, its workers, and its problems."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pipeline.cli.journals import AppArgument, app_named
from pipeline.cli.options import (
    CommandWait,
    JsonOption,
    KafkaOption,
    counted,
    print_json,
    print_message,
    quiet_kafka_settings,
    table_console,
)
from pipeline.cli.tables import Cell, Column, table_text
from pipeline.errors import UnreachableError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.runtime.status import AppStatus, TaskPhase, TaskStatus, read_status, status_document
from pipeline.runtime.status.dead_letter_tallies import GroupLetters

__all__ = ["status"]

_STYLES = {TaskPhase.LIVE: "green", TaskPhase.FAILED: "bold red", TaskPhase.UNOWNED: "yellow"}


def status(
    app: AppArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option(help="Seconds between two readings, with --watch.", min=0.2)
    ] = 2.0,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Show the tasks of an app, its workers, its dead letters, and its problems with the next step for each.

    Reads only Kafka, so it also works while no worker runs. A killed worker counts as live for 10 s. If there is a
    problem, the exit code is 1.
    """
    app_named(app)  # an error in the argument is reported before the cluster is asked
    settings = quiet_kafka_settings(kafka)
    with (
        closing(KafkaCluster(settings, CommandWait(settings))) as cluster,
        closing(KafkaJournalReader(settings)) as reader,
    ):
        found = _read(app, cluster, reader)
        if watch:
            _watch(app, cluster, reader, found, interval, json=json)
            return
        _print(found, json=json)
    if found.problems:
        raise typer.Exit(1)


def _print(found: AppStatus, *, json: bool) -> None:
    if json:
        print_json(status_document(found))
    else:
        console = table_console()
        console.print(_view(found, console.width if console.is_terminal else None), crop=False)


def _watch(
    app: str,
    cluster: KafkaCluster,
    reader: KafkaJournalReader,
    found: AppStatus,
    interval: float,
    *,
    json: bool,
) -> None:
    """Repeat until Ctrl-C. While Kafka is unreachable, report this and retry."""
    console = Console(highlight=False)
    live = (
        Live(console=console, auto_refresh=False, screen=True) if console.is_terminal and not json else None
    )
    try:
        with live if live is not None else nullcontext():
            while True:
                if live is not None:
                    live.update(_view(found, console.width), refresh=True)
                else:
                    _print(found, json=json)
                time.sleep(interval)
                found = _read_with_retry(app, cluster, reader, live, interval)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _read_with_retry(
    app: str, cluster: KafkaCluster, reader: KafkaJournalReader, live: Live | None, interval: float
) -> AppStatus:
    """Read the status, and retry until Kafka answers. The previous status is not shown: it may be outdated."""
    since = datetime.now(UTC).strftime("%H:%M:%S")
    while True:
        try:
            return _read(app, cluster, reader)
        except UnreachableError as error:
            text = f"{app}: Kafka has been unreachable since {since} UTC\n{error.message}\nretrying"
            if live is not None:
                live.update(Text(text, style="red"), refresh=True)
            else:
                print_message(text)
            time.sleep(interval)


def _read(app: str, cluster: KafkaCluster, reader: KafkaJournalReader) -> AppStatus:
    """`app`: as it was given. If it is MODULE:APP, the next steps name it, so that they can be copied."""
    found = read_status(app_named(app), cluster, reader, time.time_ns() // 1_000_000)
    if ":" not in app:
        return found
    problems = [replace(each, hint=each.hint.replace("MODULE:APP", app)) for each in found.problems]
    return replace(found, problems=problems)


def _view(found: AppStatus, width: int | None) -> Group:
    now = datetime.now(UTC).strftime("%H:%M:%S")
    parts = [Text(f"{found.app} at {now} UTC\n"), _tasks(found.tasks, width)]
    lag = sum(status.lag for status in found.tasks)
    live = sum(status.phase in {TaskPhase.LIVE, TaskPhase.MOVING} for status in found.tasks)
    workers = ", ".join(
        f"{worker.worker} ({counted(worker.tasks, 'task')}{', waiting' if worker.waiting else ''})"
        for worker in found.workers
    )
    parts.append(Text(f"\n{live} of {counted(len(found.tasks), 'task')} live, lag {lag:,}"))
    parts.append(Text(f"workers: {workers or 'none'}"))
    now_ms = time.time_ns() // 1_000_000
    parts += [Text(_letters_line(each, now_ms)) for each in found.letters]
    parts += [
        Text(f"problem: {problem.text}\n  -> {problem.hint}", style="red") for problem in found.problems
    ]
    return Group(*parts)


def _letters_line(each: GroupLetters, now_ms: int) -> str:
    letters = each.letters
    line = f"dead letters of group {each.group.group}: {letters.open:,} open"
    if letters.last_ms:
        line += f", {round(letters.recent):,} in the last minute, the last {_ago(now_ms - letters.last_ms)}"
    if not letters.whole:
        line += (
            "\n  dead letters of earlier releases are counted after the next replay or discard. List them with "
            "pipeline deadletters list"
        )
    return line


_COLUMNS = (
    Column("task"),
    Column("worker", shortens=True),
    Column("phase"),
    Column("lag", number=True),
    Column("entry", number=True),
    Column("last entry", number=True),
    Column("checkpoint", number=True),
    Column("restore", number=True),
)


def _tasks(tasks: Sequence[TaskStatus], width: int | None) -> Text:
    now_ms = time.time_ns() // 1_000_000
    rows: list[list[Cell]] = [
        [
            f"{status.task.group}/{status.task.partition}",
            (f"{status.worker} -> {status.next_worker}" if status.next_worker else status.worker) or None,
            Text(status.phase.value, style=_STYLES.get(status.phase, "")),
            status.lag,
            status.seq,
            _ago(now_ms - status.entry_ms) if status.entry_ms else None,
            _ago(now_ms - status.checkpoint_ms) if status.checkpoint_ms else None,
            f"~{status.restore_s:,.1f} s" if status.restore_s else None,
        ]
        for status in tasks
    ]
    return table_text(_COLUMNS, rows, width)


def _ago(milliseconds: int) -> str:
    seconds = max(0, milliseconds // 1000)
    if seconds < 120:
        return f"{seconds} s ago"
    return f"{seconds // 60} min ago" if seconds < 7_200 else f"{seconds // 3_600} h ago"
