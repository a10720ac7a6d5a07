"""The last minutes of an app, from the ends of its journals: `Timeline`.

The first read of a journal is limited to its last entries, a later one to the entries since then. If an app writes more
than a read may have, the oldest of them are skipped: then their number is taken from the sequence numbers, and their
time is spread over the gap. So a read never costs more than `ENTRIES` entries and about `BYTES` bytes of all journals.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pipeline.core.checkpoint_refs import kept_checkpoints
from pipeline.core.journal_format import EntryKind, JournalEntry
from pipeline.core.names import TaskId
from pipeline.errors import PipelineError, UnreachableError
from pipeline.ops.overview import Clients
from pipeline.ops.overview.moves import Move, Moves, grouped
from pipeline.ports import JournalReader
from pipeline.runtime.commit.journal_reader import (
    OFFSETS_PER_ENTRY,
    complete_entries,
    last_entry,
    without_delta,
)
from pipeline.runtime.status.groups import task_ranges

__all__ = ["BUCKETS", "BUCKET_MS", "Timeline"]

ENTRIES = 4_000
BYTES = 8 << 20
BUCKET_MS = 10_000
BUCKETS = 90
_LEAST_ENTRIES = 10  # of each journal
_READS_AT_ONCE = 4
_LANES = 40  # with more tasks, one for each group
_EVENTS = 200
_KINDS: Mapping[
    EntryKind, tuple[str, str]
] = {  # and what an event of this kind means, if it is always the same
    EntryKind.GENESIS: ("genesis", "the first entry of the journal"),
    EntryKind.ACQUIRE: ("acquire", ""),
    EntryKind.CHECKPOINT: ("checkpoint", ""),
    EntryKind.RELEASE: ("release", ""),
    EntryKind.RESET: ("reset", "the state was emptied, and the positions were set"),
    EntryKind.RETIRE: ("retire", "another app has replaced this one"),
}


@dataclass
class _History:
    """What was read of one journal. `last`: its last entry. `since_ms`: from this time on, nothing is missing."""

    next_offset: int = 0
    last: JournalEntry | None = None
    since_ms: int = 0
    commits: Counter[int] = field(default_factory=Counter)  # by bucket
    records: Counter[int] = field(default_factory=Counter)
    events: deque[Move] = field(default_factory=lambda: deque(maxlen=_EVENTS))

    def take(self, task: TaskId, entry: JournalEntry) -> None:
        """Add the next entry; entries between the last one and this one were skipped."""
        before, body = self.last, entry.entry
        self.last = entry
        if before is None:
            self.since_ms = body.wall_ms
        entries = body.seq - before.entry.seq if before is not None else 1
        from_ms = before.entry.wall_ms if before is not None and entries > 1 else body.wall_ms
        if body.kind is EntryKind.COMMIT:
            self._spread(self.commits, entries, from_ms, body.wall_ms)
            if before is not None:
                self._spread(self.records, body.offsets_since(before.entry), from_ms, body.wall_ms)
            return
        kind, text = _KINDS[body.kind]
        if body.kind is EntryKind.CHECKPOINT:
            text = _checkpoint_text(entry)
        self.events.append(Move(body.wall_ms, kind, (task,), body.owner, "", text, body.seq))

    @staticmethod
    def _spread(counts: Counter[int], count: int, from_ms: int, to_ms: int) -> None:
        first, last = from_ms // BUCKET_MS, to_ms // BUCKET_MS
        buckets = max(1, last - max(first, last - BUCKETS))
        for index in range(buckets):
            counts[last - index] += count * (index + 1) // buckets - count * index // buckets

    def forget_before(self, bucket: int) -> None:
        for counts in (self.commits, self.records):
            for old in [each for each in counts if each < bucket]:
                del counts[old]


class Timeline:
    """Reads what is new at each call. Use from one thread at a time.

    Args:
        clients: For Kafka. Several threads use the reader.
        wall_ms: The clock.
    """

    def __init__(self, clients: Clients, wall_ms: Callable[[], int]) -> None:
        self._clients = clients
        self._wall_ms = wall_ms
        self._histories: dict[TaskId, _History] = {}

    def read(self, tasks: Sequence[TaskId], moves: Moves) -> dict[str, object]:
        """The document. `tasks`: those with a journal. Raises UnreachableError."""
        self._histories = {task: self._histories.get(task, _History()) for task in tasks}
        ends = self._clients.reader.stable_ends([task.journal for task in tasks]) if tasks else {}

        def follow(task: TaskId) -> None:
            self._follow(task, ends[task.journal])

        with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
            for _ in pool.map(follow, tasks):
                pass
        now_ms = self._wall_ms()
        last = now_ms // BUCKET_MS
        for history in self._histories.values():
            history.forget_before(last - BUCKETS)
        from_ms = (last - BUCKETS + 1) * BUCKET_MS
        events = grouped(each for each in self._events(moves) if each.at_ms >= from_ms)
        return {
            "now_ms": now_ms,
            "from_ms": from_ms,
            "bucket_ms": BUCKET_MS,
            "lanes": self._lanes(last),
            "events": [_document(event) for event in events[-_EVENTS:]],
        }

    def _follow(self, task: TaskId, end: int) -> None:
        """Read the new entries of a journal. If it cannot be read, `problems` has the reason."""
        history = self._histories[task]
        if end < history.next_offset:
            history = self._histories[task] = _History()  # the journal was created again
        if end <= history.next_offset:
            return
        reader, limit = self._clients.reader, max(_LEAST_ENTRIES, ENTRIES // len(self._histories))
        try:
            if history.last is None:
                start = self._first_start(task, end, limit, reader)
            else:
                limit = min(limit, self._fitting(history.last))
                start = max(history.next_offset, end - OFFSETS_PER_ENTRY * limit)
            for entry in complete_entries(task, reader, start, end):
                history.take(task, without_delta(entry))
        except UnreachableError:
            raise
        except PipelineError:
            self._histories[task] = _History()
            return
        history.next_offset = end

    def _first_start(self, task: TaskId, end: int, limit: int, reader: JournalReader) -> int:
        bounds = reader.bounds(task.journal)
        last = last_entry(task.journal, reader, bounds)
        if last is None:
            return end
        limit = min(limit, self._fitting(last))
        return max(bounds.start, end - OFFSETS_PER_ENTRY * limit)

    def _fitting(self, last: JournalEntry) -> int:
        """How many entries of this journal are within its part of `BYTES`, by their mean size."""
        mean = max(1, last.journal_bytes // last.entry.seq)
        return max(_LEAST_ENTRIES, BYTES // len(self._histories) // mean)

    def _events(self, moves: Moves) -> list[Move]:
        """Those of the journals, and of the workers' notes what journals do not have. Notes know why."""
        noted = {(move.tasks[0], move.seq): move for move in moves.events if move.kind == "acquire"}
        found = []
        for history in self._histories.values():
            for event in history.events:
                note = noted.pop((event.tasks[0], event.seq), None) if event.kind == "acquire" else None
                if note is None:
                    found.append(event)
                else:
                    tasks, worker = event.tasks, event.worker
                    found.append(
                        Move(event.at_ms, "acquire", tasks, worker, note.before, note.why, event.seq)
                    )
        released = {(event.tasks[0], event.worker) for event in found if event.kind == "release"}
        for move in moves.events:
            known = {
                "acquire": (move.tasks[0], move.seq) not in noted,
                "release": (move.tasks[0], move.worker) in released,
            }
            if not known.get(move.kind, False):
                found.append(move)
        return found

    def _lanes(self, last: int) -> list[dict[str, object]]:
        """A lane for each task, or for each group if there are many tasks."""
        single = len(self._histories) <= _LANES
        lanes: dict[tuple[str, int | None], list[_History]] = {}
        for task, history in sorted(self._histories.items()):
            lanes.setdefault((task.group, task.number if single else None), []).append(history)
        buckets = range(last - BUCKETS + 1, last + 1)
        return [
            {
                "group": group,
                "task": number,
                "task_count": len(histories),
                "since_ms": max((each.since_ms for each in histories), default=0),
                "commits": [sum(each.commits[bucket] for each in histories) for bucket in buckets],
                "records": [sum(each.records[bucket] for each in histories) for bucket in buckets],
            }
            for (group, number), histories in lanes.items()
        ]


def _checkpoint_text(entry: JournalEntry) -> str:
    kept = kept_checkpoints(entry)
    return f"{kept[0].size:,} bytes, up to entry {kept[0].seq:,}" if kept else ""


def _document(move: Move) -> dict[str, object]:
    return {
        "at_ms": move.at_ms,
        "kind": move.kind,
        "tasks": task_ranges(move.tasks),
        "task_count": len(move.tasks),
        "lanes": sorted({f"{task.group}/{task.number}" for task in move.tasks})[:_LANES],
        "worker": move.worker,
        "before": move.before,
        "text": move.why,
    }
