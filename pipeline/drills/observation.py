"""Observes an app during a drill: `Observer`. It reads only Kafka, as `pipeline status` does.

`look` reads new journal entries of all tasks for the judge, and the status about once per second. An unreachable Kafka
is an observation, not an error.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from pipeline.core.journal_format import EntryKind, JournalEntry
from pipeline.core.membership import Member, decode_member
from pipeline.core.names import TaskId, workers_group
from pipeline.drills.judge import Judge, SeenEntry
from pipeline.drills.report import SteadyState
from pipeline.errors import PipelineError, TruncatedError, UnreachableError
from pipeline.ports import Clock, Cluster, JournalReader
from pipeline.runtime.commit.journal_reader import complete_entries, last_entry
from pipeline.runtime.status import AppStatus, TaskPhase, TaskStatus, read_status

__all__ = ["Observer", "Sample", "short"]

_READS_AT_ONCE = 8
_STATUS_S = 1.0
T = TypeVar("T")
_LIVE = {TaskPhase.LIVE, TaskPhase.MOVING}


def short(task: TaskId) -> str:
    """The task's name in a report: group/number."""
    return f"{task.group}/{task.number}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One status. `members`: the live processes by name."""

    at_ms: int
    status: AppStatus
    members: Mapping[str, Member]

    @property
    def lag(self) -> int:
        return sum(status.lag for status in self.status.tasks)

    @property
    def live(self) -> int:
        return sum(status.phase in _LIVE for status in self.status.tasks)

    @property
    def failed(self) -> int:
        return sum(status.phase is TaskPhase.FAILED for status in self.status.tasks)

    @property
    def open_letters(self) -> int:
        return sum(each.letters.open for each in self.status.letters)

    def of(self, task: TaskId) -> TaskStatus | None:
        return next((status for status in self.status.tasks if status.task == task), None)

    def that_read(self, groups: Collection[str], partition: int) -> list[TaskId]:
        """The task of each of these groups that reads a partition of its inputs."""
        return [
            status.task
            for status in self.status.tasks
            if status.task.group in groups and partition in status.partitions
        ]

    def all_live(self) -> bool:
        """Whether every task is live and no task is about to move."""
        return bool(self.status.tasks) and all(status.phase is TaskPhase.LIVE for status in self.status.tasks)


@dataclass
class _History:
    """What was seen of one task, in the order of its journal."""

    entries: list[SeenEntry] = field(default_factory=list)
    claimed_ms: dict[str, int] = field(default_factory=dict)  # by the process that claimed it
    lags: list[tuple[int, int]] = field(default_factory=list)  # (time, lag)
    skipped_ms: int = 0  # when entries were last found to be deleted unread


class Observer:
    """Use from one thread.

    Args:
        app: the app's name.
        cluster: the cluster.
        reader: reads journals.
        clock: the clock of this process.
    """

    def __init__(self, app: str, cluster: Cluster, reader: JournalReader, clock: Clock) -> None:
        self._app = app
        self._cluster = cluster
        self._reader = reader
        self._clock = clock
        self._next_status_s = 0.0
        self._histories: dict[TaskId, _History] = defaultdict(_History)
        self._tasks: Sequence[TaskId] = ()
        self.judge = Judge()
        self.samples: list[Sample] = []
        self.unreachable_ms: list[int] = []
        self._looks: list[tuple[int, float]] = []  # (time, seconds) of each look
        self.gaps: list[str] = []  # entries that were deleted before they were read, in words
        self.problems: dict[str, int] = {}  # what could not be read, and when this was first seen

    def begin(self) -> Sample:
        """Read the status, and follow the journals from their last entries on. Raises PipelineError."""
        first = self._read()
        tasks = [status.task for status in first.status.tasks if not status.database]
        count = Counter(task.group for task in tasks)
        for task, (before, end) in self._each(tasks, self._last).items():
            self.judge.begin(task, before, end, count[task.group])
            self._histories[task].entries.clear()
        self._tasks = tasks
        return first

    def look(self, *, status: bool = False) -> Sample:
        """Read what is new. `status`: read the status now, even if it was just read. Returns the last sample."""
        began_s = self._clock.monotonic_s()
        try:
            self._follow()
            if status or self._clock.monotonic_s() >= self._next_status_s:
                self._read()
                self._next_status_s = self._clock.monotonic_s() + _STATUS_S
        except UnreachableError:
            self.unreachable_ms.append(self._clock.wall_ms())
        except PipelineError as error:
            self.problems.setdefault(error.message, self._clock.wall_ms())
        self._looks.append((self._clock.wall_ms(), self._clock.monotonic_s() - began_s))
        return self.samples[-1]

    def slowest_look_s(self, since_ms: int, until_ms: int) -> float:
        """The longest time that the driller itself waited for answers of Kafka in this period.

        It shares the machine and the brokers with the workers, so this time is not due to them.
        """
        return max((seconds for at, seconds in self._looks if since_ms <= at <= until_ms), default=0.0)

    def entries(self, task: TaskId, since_ms: int = 0) -> Sequence[SeenEntry]:
        """The entries of a task that were committed at this time or later, as far as they were followed."""
        return [entry for entry in self._histories[task].entries if entry.wall_ms >= since_ms]

    def has_skipped(self, task: TaskId, since_ms: int) -> bool:
        """Whether entries of a task were deleted unread, at this time or later."""
        return self._histories[task].skipped_ms >= since_ms

    def claimed_ms(self, task: TaskId, since_ms: int) -> int | None:
        """When another process was first seen to claim the task, at this time or later."""
        return min((at for at in self._histories[task].claimed_ms.values() if at >= since_ms), default=None)

    def missed_ms(self, process: str, since_ms: int) -> int | None:
        """When a process was first seen not to be a worker any more, at this time or later."""
        for sample in self.samples:
            if sample.at_ms >= since_ms and all(each.process != process for each in sample.status.workers):
                return sample.at_ms
        return None

    def caught_up_ms(self, task: TaskId, since_ms: int, lag: int) -> int | None:
        """When the lag of a task was first seen to be at most `lag`, at this time or later."""
        return next((at for at, seen in self._histories[task].lags if at >= since_ms and seen <= lag), None)

    def idle_ms(self, task: TaskId, since_ms: int) -> int | None:
        """When a task was first seen live without lag, at this time or later."""
        for sample in self.samples:
            status = sample.of(task) if sample.at_ms >= since_ms else None
            if status is not None and status.lag == 0 and status.phase in _LIVE:
                return sample.at_ms
        return None

    def pause_s(self, task: TaskId, since_ms: int, until_ms: int) -> float:
        """The longest time between two commits of a task in this period. 0 if it commits nothing in it.

        A time at which the task was seen without lag does not count: it had nothing to commit.
        """
        times = [entry.wall_ms for entry in self._histories[task].entries if entry.kind is EntryKind.COMMIT]
        before = [at for at in times if at < since_ms][-1:]
        inside = [at for at in times if since_ms <= at <= until_ms]
        if not inside:
            return 0.0
        points = [*before, *inside]
        idle = [at for at, lag in self._histories[task].lags if lag == 0]
        pauses = (
            end - max([start, *(at for at in idle if start < at < end)]) for start, end in pairwise(points)
        )
        return max(pauses, default=0) / 1000

    def steady_state(self, since_ms: int) -> SteadyState:
        """What was observed since a time."""
        last = self.samples[-1]
        now_ms = self._clock.wall_ms()
        seconds = max(0.001, (now_ms - since_ms) / 1000)
        seen = [each for task in self._tasks for each in self.entries(task, since_ms)]
        commits = sum(each.kind is EntryKind.COMMIT for each in seen)
        records = self.judge.verdict().input_offsets  # from the last entries before the observation on
        return SteadyState(
            observed_s=round(seconds, 1),
            workers=[worker.worker for worker in last.status.workers],
            tasks=len(last.status.tasks),
            tasks_live=last.live,
            commits_per_s=round(commits / seconds, 1),
            records_per_s=round(records / seconds, 1),
            lag=last.lag,
            longest_pause_s=max(
                (round(self.pause_s(task, since_ms, now_ms), 3) for task in self._tasks), default=0.0
            ),
            open_dead_letters=last.open_letters,
        )

    @property
    def tasks(self) -> Sequence[TaskId]:
        """The tasks whose journals are followed."""
        return self._tasks

    def _last(self, task: TaskId) -> tuple[JournalEntry | None, int]:
        bounds = self._reader.bounds(task.journal)
        return last_entry(task.journal, self._reader, bounds), bounds.stable_end

    def _follow(self) -> None:
        ends = self._reader.stable_ends([task.journal for task in self._tasks])
        grown = [task for task in self._tasks if ends.get(task.journal, 0) > self.judge.next_offset(task)]

        def read(task: TaskId) -> list[tuple[int, bytes]] | None:
            try:
                return list(self._reader.read(task.journal, self.judge.next_offset(task), ends[task.journal]))
            except TruncatedError:
                return None

        for task, chunks in self._each(grown, read).items():
            if chunks is None:
                self._skip(task)
            else:
                self._histories[task].entries += self.judge.add(task, chunks, ends[task.journal])

    def _skip(self, task: TaskId) -> None:
        """Continue at the start of a journal that was truncated while the driller could not read it."""
        bounds = self._reader.bounds(task.journal)
        first = next(complete_entries(task, self._reader, bounds.start, bounds.stable_end), None)
        if first is None:
            return  # at the next look
        self.gaps.append(
            f"the journal of task {short(task)} was truncated while the drill could not read it: the entries from "
            f"offset {self.judge.next_offset(task)} to {first.offset} were not checked"
        )
        self.judge.resume(task, first)
        self._histories[task].skipped_ms = self._clock.wall_ms()

    def _read(self) -> Sample:
        status = read_status(self._app, self._cluster, self._reader, self._clock.wall_ms())
        decoded = map(decode_member, self._cluster.member_ids(workers_group(self._app)))
        members = {member.process: member for member in decoded if member is not None}
        at_ms = self._clock.wall_ms()
        for each in status.tasks:
            history = self._histories[each.task]
            history.lags.append((at_ms, each.lag))
            if each.next_worker:
                history.claimed_ms.setdefault(f"{each.next_worker}@{each.seq}", at_ms)
        self.samples.append(Sample(at_ms, status, members))
        return self.samples[-1]

    def _each(self, tasks: Sequence[TaskId], read: Callable[[TaskId], T]) -> dict[TaskId, T]:
        with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
            return dict(zip(tasks, pool.map(read, tasks), strict=True))
