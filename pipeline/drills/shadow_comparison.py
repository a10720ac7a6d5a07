"""Compares a shadow app that has reached its ends with the live app, and adds what differs to the report of a drill.

`compare_topics`: each output topic with its shadow. `compare_rows`: the rows of a task with the live rows at the end of
its replay, which the driller restored before the shadow app began.

`first_offset` finds where a row first differs. A journal has the value of a row after each commit that wrote it, but
not within a commit. So the value is known at the positions between two commits that wrote it. The first difference lies
between the last position at which both values are known and equal, and the first one at which both are known and
differ. The shadow app commits at positions of the live app, so this interval is at most a commit of the shadow app.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pipeline.core.entry_body import format_of
from pipeline.core.inputs import topic_of
from pipeline.core.journal_format import Identity
from pipeline.core.names import TaskId, TopicPartition
from pipeline.core.position import decode_position
from pipeline.core.suggestions import counted
from pipeline.drills.drill import Run
from pipeline.drills.observation import short
from pipeline.drills.report import Effect
from pipeline.drills.row_differences import Row, RowDifference, different_rows, rows_of, table_of
from pipeline.drills.shadow_outputs import OutputDifference, compare_outputs
from pipeline.drills.shadow_spec import ENDS, STATES, ShadowSpec, ShadowTask
from pipeline.ops.history.row_changes import RowHistory, row_histories
from pipeline.ops.reading import committed_records
from pipeline.ports import Record, TopicInfo
from pipeline.rocksdb.rocks import RocksStores
from pipeline.rocksdb.store import RocksView
from pipeline.runtime.environment import Environment

__all__ = ["OffsetRange", "OutputEnds", "compare_rows", "compare_topics", "first_offset"]

READER = "pipeline.shadow-replay"  # the client requires a group; nothing is ever committed to it
_CACHE_BYTES = 8 << 20
_SHOWN = 3  # rows per task, and keys per topic
_RUNBOOK = "pipeline runbook shadow-replay-differs"


@dataclass(frozen=True, slots=True)
class OutputEnds:
    """The two ends of each output partition."""

    certain: Mapping[TopicPartition, int]
    possible: Mapping[TopicPartition, int]


def compare_topics(
    run: Run,
    spec: ShadowSpec,
    ends: OutputEnds,
    topics: Mapping[str, TopicInfo],
    environment: Environment,
) -> int:
    """Compare each output topic. Returns their number."""
    count = 0
    inputs = {topic_of(name) for task in spec.tasks for name in task.end}
    partial = run.scene.options.task is not None
    for name, info in topics.items():
        shadow = environment.cluster.describe([spec.outputs[name]])[spec.outputs[name]]
        if name in inputs and not any(True for _ in _records(shadow, {}, environment)):
            continue  # an input that no handler writes to
        if "compact" in info.config.get("cleanup.policy", ""):
            run.notes.append(f"outputs of {name} were not compared: Kafka compacts this topic")
            continue
        if partial:
            run.notes.append(f"outputs of {name} were not compared: --task replays only a part of them")
            continue
        count += 1
        whole_topic = all(
            run.scene.reader.bounds(TopicPartition(name, n)).start == 0 for n in range(info.partitions)
        )
        result = compare_outputs(
            _records(info, ends.possible, environment),
            _records(shadow, {}, environment),
            ends.certain,
            whole_replay=not any(task.seq for task in spec.tasks),
            whole_topic=whole_topic,
        )
        run.outputs_compared += result.compared
        verdict = (
            "equal" if not result.differences else f"DIFFERENT for {counted(len(result.differences), 'key')}"
        )
        run.act(f"topic {name}: {counted(result.compared, 'output')} of the replay, {verdict}", fault=False)
        if result.unordered:
            run.notes.append(
                f"topic {name}: {counted(result.unordered, 'key')} null or of several partitions: the order of their "
                "outputs was not compared"
            )
        first = sorted(result.differences, key=lambda each: each.live or (0, 1 << 62))[:_SHOWN]
        for number, each in enumerate(first, 1):
            more = len(result.differences) - len(first) if number == len(first) else 0
            run.effects.append(_output_effect(each, info, shadow, more, environment))
    return count


def compare_rows(run: Run, spec: ShadowSpec, task: ShadowTask, environment: Environment) -> None:
    live, own = task.task(spec.live), task.task(spec.shadow)
    ends, states = (
        RocksStores(Path(spec.place) / name, _CACHE_BYTES).open_read_only(each)
        for name, each in ((ENDS, live), (STATES, own))
    )
    with closing(ends), closing(states):
        tables = sorted(_identity(ends, live).tables)
        differences = different_rows(_rows(ends, live), _rows(states, own))
        shown = list(islice(differences, _SHOWN))
        more = sum(1 for _ in differences)
    run.compared += 1
    run.equal += not shown
    count = len(shown) + more
    verdict = "equal" if not count else f"{counted(count, 'row')} DIFFERENT"
    run.act(f"task {short(live)} at entry {task.end_seq}: {verdict}", fault=False)
    for number, row in enumerate(shown, 1):
        rest = more if number == len(shown) else 0
        target = run.scene.options.target
        run.effects.append(_row_effect(row, spec, task, tables, rest, target, environment))


def _identity(state: RocksView, task: TaskId) -> Identity:
    return decode_position(state.position() or b"", str(task)).identity


def _rows(state: RocksView, task: TaskId) -> Iterator[Row]:
    """The rows of tables. Those of dedup tables contain times of the process, and begin with a zero byte."""
    rows = rows_of(state.scan(b""), format_of(_identity(state, task)), task.number)
    return (row for row in rows if row[0].key[:1] != b"\0")


def _records(
    info: TopicInfo, ends: Mapping[TopicPartition, int], environment: Environment
) -> Iterator[Record]:
    """The committed records of a topic, up to these ends, partition by partition."""
    with closing(environment.journals()) as reader:
        for number in range(info.partitions):
            end = ends.get(TopicPartition(info.name, number))
            within = {number: range(end if end is not None else 1 << 62)}
            with closing(environment.sources.open(READER)) as source:
                yield from committed_records(info, reader, source, environment.clock, within)


def _record_at(info: TopicInfo, place: tuple[int, int] | None, environment: Environment) -> Record | None:
    if place is None:
        return None
    partition, offset = place
    with closing(environment.journals()) as reader, closing(environment.sources.open(READER)) as source:
        within = {partition: range(offset, offset + 1)}
        return next(iter(committed_records(info, reader, source, environment.clock, within)), None)


def _output_effect(
    found: OutputDifference, live: TopicInfo, shadow: TopicInfo, more: int, environment: Environment
) -> Effect:
    place = found.live or found.shadow or (0, 0)
    text = found.describe(
        _record_at(live, found.live, environment), _record_at(shadow, found.shadow, environment)
    )
    where = "" if found.live is not None else " (offset of the shadow topic)"
    rest = f"; and {counted(more, 'more key')}" if more else ""
    return Effect(
        kind="output",
        task="",
        topic=f"{live.name}[{place[0]}]",
        offset=place[1],
        journal_offset=-1,
        text=f"{text}{where}{rest}; {_RUNBOOK}",
    )


def _row_effect(
    row: RowDifference,
    spec: ShadowSpec,
    task: ShadowTask,
    tables: Sequence[str],
    more: int,
    target: str,
    environment: Environment,
) -> Effect:
    live, own = task.task(spec.live), task.task(spec.shadow)
    topic, offset, where = "", None, "several inputs, so the offset is unknown"
    partition, key = row.place
    names = [name for name in task.end if task.inputs.place(name).partition == partition]
    if len(names) == 1:
        (name,) = names
        table = table_of(key, tables)
        (ours,), (theirs,) = (
            row_histories(each, table, key, environment, only=partition) for each in (live, own)
        )
        found = first_offset(ours, theirs, name, task.start[name], task.end[name])
        offset, topic = found.first, task.inputs.label(name, task.end)
        debug = f"pipeline debug {target} {topic_of(name)}/{partition}/{offset}"
        where = f"first different in offsets {found.first} to {found.last} of {topic}: {debug}"
    rest = f"; and {counted(more, 'more row')} of this task" if more else ""
    return Effect(
        kind="state",
        task=short(live),
        topic=topic,
        offset=offset,
        journal_offset=-1,
        text=f"{row.describe(tables, several=task.several)}; {where}{rest}; {_RUNBOOK}",
    )


class OffsetRange(NamedTuple):
    """The input records of which one causes the first difference: offsets from `first` to `last`."""

    first: int
    last: int


class _Known(NamedTuple):
    """The row has this value at each position from `start` to `end`."""

    start: int
    end: int
    value: bytes | None


def first_offset(live: RowHistory, shadow: RowHistory, name: str, start: int, end: int) -> OffsetRange:
    """The range of the first difference of a row between the positions `start` and `end` of its only input `name`."""
    equal, different = start, end
    ours, theirs = _known(live, name, start, end), list(_known(shadow, name, start, end))
    at = 0
    for mine in ours:
        while at < len(theirs) and theirs[at].end < mine.start:
            at += 1
        for other in theirs[at:]:
            if other.start > mine.end:
                break
            low, high = max(mine.start, other.start), min(mine.end, other.end)
            if mine.value != other.value:
                different = min(different, low)
                break
            equal = high
        if different < end:
            break
    writes = [first for first, last in _writes(live, name) if last > equal and first < different]
    writes += [first for first, last in _writes(shadow, name) if last > equal and first < different]
    first = max(equal, min(writes, default=equal))
    return OffsetRange(first, max(first, different - 1))


def _writes(history: RowHistory, name: str) -> Iterator[tuple[int, int]]:
    """(first position, next position) of each commit that changed the row."""
    for change in history.changes:
        after = change.entry.entry.positions.get(name, 0)
        before = change.before.get(name, after) if change.before is not None else after
        yield before, after


def _known(history: RowHistory, name: str, start: int, end: int) -> Iterator[_Known]:
    """The values of the row that are known, by position, up to `end`."""
    began, value = start, None
    for change, (before, after) in zip(history.changes, _writes(history, name), strict=True):
        if after <= start:
            value = change.new.data
            continue
        if before >= began:
            yield _Known(began, min(before, end), value)
        began, value = after, change.new.data
        if began >= end:
            break
    if began <= end:
        yield _Known(began, end, value)
