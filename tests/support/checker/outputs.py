"""Inputs, outputs, dead letters and tables against the journal of their task: `Promise`, `Results`, `verify_task`."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.support.checker.journals import Journal, Segment
from tests.support.checker.log import Incarnation, Place, Record
from tests.support.checker.tracing import Trace, event_id_of, letter_of, replay_of, trace_of

__all__ = ["Promise", "Results", "verify_task"]

_SHOWN = 5


@dataclass(frozen=True)
class Promise:
    """For each record of `topic`, the handler of `group` writes one traced record to `output`, or a dead letter.

    `group`: `app.group`. `ids`: whether a record whose event id was handled before is dropped; None: it may be. `row`:
    whether the value is also the row of the same key in a table of the group. `skips`: records may be skipped, so that
    nothing is missing.
    """

    group: str
    topic: str
    output: str
    ids: bool | None = None
    row: bool = False
    skips: bool = False


class _Output:
    """A traced record: its input, its key and its value."""

    __slots__ = ("key", "offset", "value")

    def __init__(self, offset: int, record: Record) -> None:
        self.offset = offset
        self.key = record.key
        self.value = record.value


class _Replay(NamedTuple):
    """A record of the replays topic, which replays `trace`."""

    partition: int
    topic_id: str
    offset: int
    trace: Trace


@dataclass
class Results:
    """The results by input: traced outputs, dead letters and replays."""

    outputs: dict[Promise, dict[int, dict[int, list[_Output]]]] = field(default_factory=dict)
    letters: dict[str, list[Trace]] = field(default_factory=lambda: defaultdict(list))
    replays: dict[str, list[_Replay]] = field(default_factory=lambda: defaultdict(list))
    problems: list[str] = field(default_factory=list)
    _partitions: dict[tuple[str, bytes | None], int] = field(default_factory=dict)

    def add(self, place: Place, topic_id: str, records: Sequence[Record]) -> None:
        """Add the committed records of a partition."""
        if place.topic.endswith(".dead-letters"):
            group = place.topic.removesuffix(".dead-letters")
            self.letters[group].extend(t for r in records if (t := letter_of(group, r)) is not None)
        elif place.topic.endswith(".replays"):
            group = place.topic.removesuffix(".replays")
            for record in records:
                trace = replay_of(group, record)
                if trace is not None:
                    self.replays[group].append(_Replay(place.partition, topic_id, record.offset, trace))
        else:
            for record in records:
                trace = trace_of(record)
                if trace is not None:
                    self._add_output(place, trace, record)

    def _add_output(self, place: Place, trace: Trace, record: Record) -> None:
        promise = Promise(trace.group, trace.topic, place.topic)
        by_task = self.outputs.setdefault(promise, {})
        by_task.setdefault(trace.partition, {}).setdefault(place.partition, []).append(
            _Output(trace.offset, record)
        )
        if record.key is not None:
            other = self._partitions.setdefault((place.topic, record.key), place.partition)
            if other != place.partition:
                self.problems.append(f"{place}: key {record.key!r} is in partition {other}, too")


def verify_task(
    promise: Promise,
    journal: Journal,
    inputs: Sequence[Incarnation],
    results: Results,
    *,
    hidden: bool,
    number: int,
) -> list[str]:
    """Check that each input below the position has exactly the promised result, in order, and no other input.

    `inputs`: those of the partition `number`. `hidden`: outputs may be committed but not visible yet.
    """
    return _Comparison(promise, journal, inputs, results, hidden=hidden, number=number).problems()


class _Comparison:
    def __init__(
        self,
        promise: Promise,
        journal: Journal,
        inputs: Sequence[Incarnation],
        results: Results,
        *,
        hidden: bool,
        number: int,
    ) -> None:
        self._number = number
        self._segments = journal.segments.get(journal.name(Place(promise.topic, number)) or "", [])
        anonymous = Promise(promise.group, promise.topic, promise.output)
        found = results.outputs.get(anonymous, {}).get(number, {})
        self._promise = promise
        self._journal = journal
        self._inputs = inputs
        self._hidden = hidden
        self._queues = [deque(outputs) for outputs in found.values()]
        self._letters = Counter(
            (letter.topic_id, letter.offset)
            for letter in results.letters.get(promise.group, ())
            if (letter.topic, letter.partition) == (promise.topic, number)
        )
        self._all_letters = self._letters.copy()
        replays = journal.name(Place(f"{promise.group}.replays", number))
        read = journal.segments.get(replays or "", ())
        self._replayed = Counter(
            replay.trace.offset
            for replay in results.replays.get(promise.group, ())
            if replay.partition == number
            and replay.trace.topic == promise.topic
            and any(
                each.topic_id == replay.topic_id and (each.start or 0) <= replay.offset < each.end
                for each in read
            )
        )
        first = min((incarnation.first for incarnation in inputs), default=0)
        deleted = {o.offset for queue in self._queues for o in queue if o.offset < first}
        deleted.update(offset for _, offset in self._letters if offset < first)
        segments = len(self._segments)
        # The inputs whose outputs need not be in the order of the inputs that the checker has read.
        self._unordered = self._replayed + Counter(dict.fromkeys(deleted, segments))
        self._rows: dict[bytes, bytes | None] = {}
        self._missing: list[int] = []

    def problems(self) -> list[str]:
        """The errors, as text."""
        segments = self._segments
        if not self._inputs or any(self._input_of(segment) is None for segment in segments):
            return []  # of a topic that was deleted before the checker read it
        for segment in segments:
            self._rows.clear()
            self._follow(segment)
        end = segments[-1].end if segments else 0
        found = [*self._missing_problems(), *self._left_problems(end), *self._row_problems()]
        number, promise = self._number, self._promise
        return [f"{promise.group}/{number}, {promise.topic} to {promise.output}: {what}" for what in found]

    def _follow(self, segment: Segment) -> None:
        """Remove the results of the inputs between two resets, in the order of the inputs."""
        handled: set[bytes] = set()
        inputs = self._input_of(segment)
        topic_id = inputs.topic_id if inputs is not None else ""
        for record in self._records(segment):
            event_id = event_id_of(record)
            again = event_id is not None and event_id in handled
            if again and self._promise.ids:
                continue  # an output of it is left over
            if self._always_letter(record.offset, topic_id):
                self._take_letter(record.offset, topic_id)
            elif self._take_output(record.offset):
                if event_id is not None:
                    handled.add(event_id)
            elif self._take_letter(record.offset, topic_id) or (again and self._promise.ids is not False):
                continue
            else:
                self._missing.append(record.offset)

    def _records(self, segment: Segment) -> Iterator[Record]:
        """The input records that the task has read in a segment, without those that were deleted unread."""
        inputs = self._input_of(segment)
        if inputs is None:
            return
        start = inputs.first if segment.start is None else segment.start
        yield from (record for record in inputs.records if start <= record.offset < segment.end)

    def _input_of(self, segment: Segment) -> Incarnation | None:
        """The input's incarnation. If no entry has the topic's id yet, it is the current topic."""
        if not segment.topic_id:
            return self._inputs[-1]
        return next((inputs for inputs in self._inputs if inputs.topic_id == segment.topic_id), None)

    def _always_letter(self, offset: int, topic_id: str) -> bool:
        """Whether an input became a dead letter every time.

        An output for its offset then belongs to the recreated topic.
        """
        if not topic_id:
            return False
        times = sum(
            each.topic_id in {topic_id, ""} and (each.start or 0) <= offset < each.end
            for each in self._segments
        )
        return self._all_letters[topic_id, offset] >= times

    def _take_letter(self, offset: int, topic_id: str) -> bool:
        for place in ((topic_id, offset), ("", offset)):
            if self._letters[place] > 0:
                self._letters[place] -= 1
                return True
        return False

    def _take_output(self, offset: int) -> bool:
        for queue in self._queues:
            while queue and queue[0].offset != offset and self._unordered[queue[0].offset] > 0:
                self._note_row(queue[0])
                self._unordered[queue.popleft().offset] -= 1
            if queue and queue[0].offset == offset:
                self._note_row(queue.popleft())
                return True
        return False

    def _note_row(self, output: _Output) -> None:
        if output.key is not None:
            self._rows[output.key] = output.value

    def _missing_problems(self) -> Iterator[str]:
        if self._missing and not (self._hidden or self._promise.skips):
            yield f"inputs {_some(self._missing)} are below the position and have no output, or not in their order"

    def _left_problems(self, end: int) -> Iterator[str]:
        """Outputs and dead letters without an input: of replays, or surplus ones."""
        left: Counter[int] = Counter()
        for (_, offset), count in self._letters.items():
            left[offset] += count
        for queue in self._queues:
            left.update(output.offset for output in queue)
            for output in queue:
                self._note_row(output)
        left -= self._unordered
        beyond = sorted(at for at in left if at >= end)
        if beyond:
            yield f"inputs {_some(beyond)} are at or beyond the position {end} and have an output"
        known = {record.offset for inputs in self._inputs for record in inputs.records}
        unread = sorted(at for at in left if at < end and at not in known)
        if unread:
            yield f"inputs {_some(unread)} do not exist or were aborted, and have an output"
        twice = sorted(at for at in left if at < end and at in known)
        if twice:
            yield f"inputs {_some(twice)} have more outputs than they should, or not in their order"

    def _row_problems(self) -> Iterator[str]:
        """Check for each key that the value of its last output is in a row whose key ends with it."""
        if not self._promise.row or self._journal.gaps or self._hidden or self._missing:
            return
        by_prefix: dict[bytes, dict[bytes, bytes]] = defaultdict(dict)
        rows = b"\x01" + self._number.to_bytes(2, "big") if self._journal.tasks else b""
        for key, value in self._journal.rows.items():
            if key.startswith(rows):
                own = key[len(rows) :]
                by_prefix[own[:_PREFIX_BYTES]][own[_PREFIX_BYTES:]] = value
        due = {key: value for key, value in self._rows.items() if value is not None}
        if due and not any(due == rows for rows in by_prefix.values()):
            yield f"no table of the {len(by_prefix)} in the journal holds the last values of {len(due)} keys"


_PREFIX_BYTES = 4


def _some(offsets: Sequence[int]) -> str:
    more = ", ..." if len(offsets) > _SHOWN else ""
    return f"{', '.join(map(str, offsets[:_SHOWN]))}{more}"
