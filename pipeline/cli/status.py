"""`pipeline status`: who runs what, how far it is, and what is wrong."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.cli.options import JsonOption, KafkaOption, counted, kafka_settings, print_json, table_console
from pipeline.core.names import check_name
from pipeline.errors import InputError, UnreachableError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.runtime.status import AppStatus, Phase, TaskStatus, read_status

__all__ = ["status"]

_STYLES = {Phase.LIVE: "green", Phase.FAILED: "bold red", Phase.UNOWNED: "yellow"}


def status(
    app: Annotated[str, typer.Argument(metavar="APP", help="The app's name.")],
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(help="Seconds between looks.", min=0.2)] = 2.0,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Show tasks with their worker, phase, lag and last commit; the workers; and what is wrong, with what helps.

    Reads Kafka alone, so it works with every worker dead. Ends with 1 when something is wrong.
    """
    if ":" in app:
        raise InputError(f"{app!r} is no app's name", hint="give the app's name, not MODULE:APP")
    check_name("app", app)
    settings = kafka_settings(kafka)
    with closing(KafkaCluster(settings)) as cluster, closing(KafkaJournalReader(settings)) as reader:
        found = read_status(app, cluster, reader)
        if watch:
            _watch(app, cluster, reader, found, interval, json=json)
            return
        _print(found, json=json)
    if found.problems:
        raise typer.Exit(1)


def _print(found: AppStatus, *, json: bool) -> None:
    if json:
        print_json(_document(found))
    else:
        table_console().print(_shown(found))


def _watch(
    app: str,
    cluster: KafkaCluster,
    reader: KafkaJournalReader,
    found: AppStatus,
    interval: float,
    *,
    json: bool,
) -> None:
    """Until Ctrl-C. A Kafka that is away is said, and waited for."""
    console = Console(highlight=False)
    try:
        with Live(console=console, auto_refresh=False, screen=console.is_terminal and not json) as live:
            while True:
                if json or not console.is_terminal:
                    _print(found, json=json)
                else:
                    live.update(_shown(found), refresh=True)
                time.sleep(interval)
                try:
                    found = read_status(app, cluster, reader)
                except UnreachableError as error:
                    live.update(Text(f"{error.message}\nstill trying", style="red"), refresh=True)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _shown(found: AppStatus) -> RenderableType:
    parts: list[RenderableType] = [_tasks(found.tasks)]
    lag = sum(status.lag for status in found.tasks)
    live = sum(status.phase in {Phase.LIVE, Phase.MOVING} for status in found.tasks)
    workers = ", ".join(
        f"{worker.worker} ({counted(worker.tasks, 'task')}{', waiting' if worker.waiting else ''})"
        for worker in found.workers
    )
    parts.append(Text(f"\n{live} of {counted(len(found.tasks), 'task')} live, lag {lag:,}"))
    parts.append(Text(f"workers: {workers or 'none'}"))
    parts += [
        Text(f"problem: {problem.text}\n  -> {problem.hint}", style="red") for problem in found.problems
    ]
    return Group(*parts)


def _tasks(tasks: Sequence[TaskStatus]) -> Table:
    table = Table(
        "task",
        "worker",
        "phase",
        "lag",
        "entry",
        "last commit",
        "checkpoint",
        "restore",
        "positions",
        box=None,
    )
    now_ms = time.time_ns() // 1_000_000
    for status in tasks:
        worker = f"{status.worker} -> {status.next_worker}" if status.next_worker else status.worker
        table.add_row(
            str(status.task),
            worker or "-",
            Text(status.phase.value, style=_STYLES.get(status.phase, "")),
            f"{status.lag:,}",
            str(status.seq),
            _ago(now_ms - status.committed_ms) if status.committed_ms else "-",
            _ago(now_ms - status.checkpoint_ms) if status.checkpoint_ms else "-",
            f"~{status.restore_s:,.1f} s",
            ", ".join(f"{topic}@{position}" for topic, position in sorted(status.positions.items())),
        )
    return table


def _ago(milliseconds: int) -> str:
    seconds = max(0, milliseconds // 1000)
    return f"{seconds} s ago" if seconds < 120 else f"{timedelta(seconds=seconds)} ago"


def _document(found: AppStatus) -> dict[str, Any]:
    """One line for programs; names are stable."""
    return {
        "app": found.app,
        "tasks": [
            {
                "task": str(status.task),
                "group": status.task.group,
                "partition": status.task.partition,
                "phase": status.phase.value,
                "worker": status.worker,
                "next_worker": status.next_worker,
                "seq": status.seq,
                "lag": status.lag,
                "positions": dict(status.positions),
                "committed_ms": status.committed_ms,
                "problem": status.problem,
                "checkpoint_ms": status.checkpoint_ms,
                "checkpoint_bytes": status.checkpoint_bytes,
                "journal_bytes": status.journal_bytes,
                "restore_s": status.restore_s,
            }
            for status in found.tasks
        ],
        "workers": [
            {
                "worker": worker.worker,
                "process": worker.process,
                "weight": worker.weight,
                "tasks": worker.tasks,
                "waiting": worker.waiting,
            }
            for worker in found.workers
        ],
        "problems": [{"text": problem.text, "hint": problem.hint} for problem in found.problems],
    }
