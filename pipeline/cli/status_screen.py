"""The screen of `pipeline status`: problems first, then one line for each group, or for each task.

On a terminal, the screen is never taller than `height`: it first shortens problems to one or two lines each, then
leaves lines out and says how many. Without a terminal, and with all tasks, it is complete.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from pipeline.cli.rendering import Cell, Column, table_text
from pipeline.core.recovery_time import MEMBER_SESSION_S
from pipeline.core.suggestions import counted
from pipeline.runtime.status import (
    AppStatus,
    GroupStatus,
    ProblemCause,
    TaskPhase,
    TaskStatus,
    WorkerStatus,
    group_statuses,
    problem_causes,
    spare_workers,
)
from pipeline.runtime.status.app_status import GroupLetters

__all__ = ["Space", "screen"]

_STYLES = {TaskPhase.LIVE: "green", TaskPhase.FAILED: "bold red", TaskPhase.UNOWNED: "yellow"}
# A task that has committed nothing for this long processes nothing now.
_ACTIVE_MS = 10_000
_FEWEST_GROUPS = 3
_FEWEST_PROBLEMS = 3
_UNLIMITED = 1_000_000


@dataclass(frozen=True, slots=True)
class Space:
    """The columns and lines of a terminal. None: as many as needed."""

    width: int | None = None
    height: int | None = None


def screen(found: AppStatus, now_ms: int, space: Space, *, tasks: bool = False) -> Text:
    """The lines of the screen, without a newline after the last one. `tasks`: a line for each task."""
    height = _UNLIMITED if tasks or space.height is None else space.height
    causes = problem_causes(found.problems)
    head = [Text(f"{found.app} at {datetime.fromtimestamp(now_ms // 1000, UTC):%H:%M:%S} UTC")]
    problems = _problems(causes, space.width)
    table = _tasks(found.tasks, now_ms, space.width) if tasks else _groups(found, now_ms, space.width)
    foot = _wrapped(_totals(found, now_ms), space.width)
    if len(head) + len(problems) + 1 + len(table) + 1 + len(foot) > height:
        foot = [_cut(line, space.width) for line in _totals(found, now_ms)]
        room = height - len(head) - 1 - 1 - len(foot)
        of_problems = max(_FEWEST_PROBLEMS, room - min(len(table), 1 + _FEWEST_GROUPS))
        problems = _short_problems(causes, of_problems, space.width)
        table = _fitting(table, max(2, room - len(problems)), "group", titles=1)
    lines = [*head, *problems, Text(), *table, Text(), *foot]
    if len(lines) > height:
        lines = [
            *lines[: max(0, height - 1)],
            Text(f"... and {counted(len(lines) - height + 1, 'more line')}: --tasks"),
        ]
    return Text("\n", no_wrap=True, overflow="ignore").join(lines)


def _problems(causes: Sequence[ProblemCause], width: int | None) -> list[Text]:
    """Each cause with its next step, wrapped to the width."""
    if not causes:
        return [Text("no problems", style="green")]
    lines = []
    for cause in causes:
        lines += _wrapped([Text(f"problem: {cause.text}", style="red")], width, indent=2)
        lines += _wrapped([Text(f"  -> {cause.first.hint}", style="red")], width, indent=5)
    return lines


def _short_problems(causes: Sequence[ProblemCause], room: int, width: int | None) -> list[Text]:
    """A line for each cause, and one for its next step if there is room for all; each is cut."""
    if not causes:
        return [Text("no problems", style="green")]
    texts = [_cut(Text(f"problem: {_first_line(cause.text)}", style="red"), width) for cause in causes]
    hints = [_cut(Text(f"  -> {_first_line(cause.first.hint)}", style="red"), width) for cause in causes]
    if len(texts) + len(hints) <= room:
        return [line for pair in zip(texts, hints, strict=True) for line in pair]
    return _fitting(texts, room, "problem")


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _fitting(lines: Sequence[Text], room: int, what: str, *, titles: int = 0) -> list[Text]:
    """The lines if they fit in `room`, or as many as fit and the number of the others."""
    if len(lines) <= room:
        return list(lines)
    shown = max(0, room - 1 - titles)
    rest = len(lines) - titles - shown
    return [*lines[: titles + shown], Text(f"... and {counted(rest, f'more {what}')}: --tasks")]


def _only(worker: WorkerStatus, groups: Collection[str]) -> str:
    """The groups of a worker that does not run all of them."""
    own = sorted(groups & worker.rings.keys())
    return "" if len(own) == len(groups) or not worker.rings else f" of {', '.join(own) or 'no group'}"


def _totals(found: AppStatus, now_ms: int) -> list[Text]:
    lag = sum(status.lag for status in found.tasks)
    live = sum(status.phase in {TaskPhase.LIVE, TaskPhase.MOVING} for status in found.tasks)
    groups = {status.task.group for status in found.tasks}
    workers = ", ".join(
        f"{worker.worker} ({counted(worker.tasks, 'task')}{_only(worker, groups)}"
        f"{', waiting' if worker.waiting else ''})"
        for worker in found.workers
    )
    lines = [
        Text(f"{live:,} of {counted(len(found.tasks), 'task')} live, lag {lag:,}"),
        Text(f"workers: {workers or 'none'}"),
    ]
    if spare := spare_workers(found):
        lines.append(Text(f"warning: {spare}", style="yellow"))
    unwatched = [worker.worker for worker in found.workers if not worker.watched]
    if unwatched and len(found.workers) > 1:
        seconds = f"{MEMBER_SESSION_S:.0f} s"
        lines.append(Text(f"not watched, so Kafka detects their end after {seconds}: {', '.join(unwatched)}"))
    for each in found.letters:
        lines += [Text(line) for line in _letters_lines(each, now_ms)]
    return lines


def _letters_lines(each: GroupLetters, now_ms: int) -> list[str]:
    """The dead letters of a group; nothing if it has none that are open or recent."""
    letters = each.letters
    if letters.whole and not letters.open and round(letters.recent) == 0:
        return []
    line = f"dead letters of group {each.group.group}: {letters.open:,} open"
    if letters.last_ms:
        line += f", {round(letters.recent):,} in the last minute, the last {_ago(now_ms - letters.last_ms)}"
    if letters.whole:
        return [line]
    note = "  dead letters of earlier releases are counted after the next replay or discard. List them with "
    return [line, f"{note}pipeline deadletters list"]


# Each column with its heading in a narrow terminal.
_GROUP_COLUMNS = (
    (Column("group", shortens=True), "group"),
    (Column("phases", shortens=True), "phases"),
    (Column("lag", number=True), "lag"),
    (Column("max lag", number=True), "max"),
    (Column("records/s", number=True), "rec/s"),
    (Column("oldest commit", number=True), "commit"),
    (Column("dead letters", number=True), "dead"),
    (Column("retried", number=True), "retry"),
    (Column("slowest restore", number=True), "restore"),
)
# If the short headings do not suffice, these columns are left out, one after the other.
_LEFT_OUT = ("records/s", "max lag")


def _groups(found: AppStatus, now_ms: int, width: int | None) -> list[Text]:
    if not found.tasks:
        return [Text("no tasks")]
    rows = [_group_row(each, now_ms) for each in group_statuses(found, now_ms - _ACTIVE_MS)]
    table = table_text([column for column, _ in _GROUP_COLUMNS], rows)
    for count in range(len(_LEFT_OUT) + 1):
        if width is None or _width(table) <= width:
            break
        kept = [at for at, (column, _) in enumerate(_GROUP_COLUMNS) if column.title not in _LEFT_OUT[:count]]
        columns = [replace(_GROUP_COLUMNS[at][0], title=_GROUP_COLUMNS[at][1]) for at in kept]
        last = count == len(_LEFT_OUT)
        table = table_text(columns, [[row[at] for at in kept] for row in rows], width if last else None)
    return [_cut(line, width) for line in table.split("\n")]


def _width(table: Text) -> int:
    return max(line.cell_len for line in table.split("\n"))


def _group_row(each: GroupStatus, now_ms: int) -> list[Cell]:
    phases = Text(", ").join(
        Text(f"{count:,} {phase.value}", style=_STYLES.get(phase, "")) for phase, count in each.phases.items()
    )
    return [
        each.group,
        phases,
        each.lag,
        each.max_lag,
        f"{each.records_per_s:,.1f}" if each.records_per_s is not None else None,
        _ago(now_ms - each.oldest_commit_ms) if each.oldest_commit_ms else None,
        each.open_letters,
        each.retried,
        f"~{each.restore_s:,.1f} s" if each.restore_s else None,
    ]


_SHOWN_PARTITIONS = 6
_TASK_COLUMNS = (
    Column("task"),
    Column("partitions", shortens=True),
    Column("worker", shortens=True),
    Column("phase"),
    Column("lag", number=True),
    Column("entry", number=True),
    Column("last entry", number=True),
    Column("clock behind", number=True),
    Column("checkpoint", number=True),
    Column("restore", number=True),
)
_CLOCK = 7


def _tasks(tasks: Sequence[TaskStatus], now_ms: int, width: int | None) -> list[Text]:
    rows: list[list[Cell]] = [
        [
            f"{status.task.group}/{status.task.number}",
            _partitions(status.partitions),
            (f"{status.worker} -> {status.next_worker}" if status.next_worker else status.worker) or None,
            Text(status.phase.value, style=_STYLES.get(status.phase, "")),
            status.lag,
            status.seq,
            _ago(now_ms - status.entry_ms) if status.entry_ms else None,
            f"{status.clock_behind_s:,.1f} s" if status.clock_behind_s is not None else None,
            _ago(now_ms - status.checkpoint_ms) if status.checkpoint_ms else None,
            f"~{status.restore_s:,.1f} s" if status.restore_s else None,
        ]
        for status in tasks
    ]
    columns = list(_TASK_COLUMNS)
    if all(status.clock_ms is None for status in tasks):
        columns.pop(_CLOCK)
        rows = [[*row[:_CLOCK], *row[_CLOCK + 1 :]] for row in rows]
    if all(len(status.partitions) <= 1 for status in tasks):  # its number is that of the task
        columns.pop(1)
        rows = [[row[0], *row[2:]] for row in rows]
    return list(table_text(columns, rows, width).split("\n"))


def _partitions(numbers: Sequence[int]) -> str | None:
    """The partitions of a task. Of a long list, those between are left out: all are at the same distance."""
    if len(numbers) <= _SHOWN_PARTITIONS:
        return ", ".join(map(str, numbers)) or None
    first, second, *_, last = numbers
    return f"{first}, {second}, ... {last} ({len(numbers)})"


def _wrapped(lines: Sequence[Text], width: int | None, indent: int = 0) -> list[Text]:
    """The lines, wrapped to the width. Continuations are indented."""
    found = []
    for line in lines:
        for paragraph in line.split("\n"):
            if width is None or paragraph.cell_len <= width:
                found.append(paragraph)
                continue
            console = Console(width=width)
            first, *_ = paragraph.wrap(console, width)
            rest = paragraph[len(first.plain) :]
            rest.plain = rest.plain.lstrip()
            first.rstrip()
            found.append(first)
            found += [Text(" " * indent) + part for part in rest.wrap(console, max(1, width - indent))]
    return found


def _cut(line: Text, width: int | None) -> Text:
    """The line, with an ellipsis if it is longer than the width."""
    if width is not None:
        line = line.copy()
        line.truncate(width, overflow="ellipsis")
    return line


def _ago(milliseconds: int) -> str:
    seconds = max(0, milliseconds // 1000)
    if seconds < 120:
        return f"{seconds} s ago"
    return f"{seconds // 60} min ago" if seconds < 7_200 else f"{seconds // 3_600} h ago"
