"""The rows of one partition number in a task: `Partition`, and `PartitionMaker`, which makes those of a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.api.context import RuntimeContext
from pipeline.api.declarations import DeclaredTable
from pipeline.api.due_index import DueIndex
from pipeline.api.event import event_type
from pipeline.api.expiring_rows import ExpiringTable, RuntimeExpiringTable, expiring_topic
from pipeline.api.histories import DeclaredHistory
from pipeline.api.history_rows import RuntimeHistory
from pipeline.api.indexed_rows import RowPlace
from pipeline.api.join_rows import RuntimeJoin
from pipeline.api.joins import DeclaredJoin
from pipeline.api.session_rows import RuntimeSessions
from pipeline.api.table import ReadableStore, RuntimeTable, TaskOverlay
from pipeline.api.task_timers import RuntimeTimers
from pipeline.api.timers import DeclaredTimers
from pipeline.api.window_rows import AnyWindow, RuntimeWindow
from pipeline.api.windows import AlignedWindow, DeclaredWindow, SessionWindow
from pipeline.core.event_time import ClockState, EventClock, clock_key, unpack_state
from pipeline.core.expiry import mark_at
from pipeline.core.inputs import row_prefix
from pipeline.core.names import TaskId
from pipeline.ports import Clock
from pipeline.runtime.plan import GroupPlan
from pipeline.runtime.task.cache import Cached
from pipeline.runtime.task.dedup import DedupTable, dedup_tables
from pipeline.runtime.task.due_steps import DueSource, DueSteps
from pipeline.runtime.task.event_times import EventTimes, Marked
from pipeline.runtime.task.prefetch import Prefetch
from pipeline.runtime.task.ticks import Ticks, ticks_key

__all__ = ["Partition", "PartitionMaker"]


@dataclass(frozen=True, slots=True)
class Partition:
    """The rows of one partition number, and the names of its inputs.

    `index`, `times`: None in a group without a clock. `steps`: None if nothing can be due. `ticks`: None without
    `every`. `windows`: also the buckets of histories.
    """

    number: int
    names: frozenset[str]
    tables: Mapping[DeclaredTable[Any, Any], RuntimeTable[Any, Any]]
    windows: Mapping[DeclaredWindow[Any, Any], AnyWindow]
    dedup: Mapping[str, DedupTable]
    ahead: Mapping[str, Prefetch]
    index: DueIndex | None = None
    times: EventTimes | None = None
    steps: DueSteps | None = None
    histories: Mapping[DeclaredHistory[Any, Any], RuntimeHistory[Any, Any]] = field(default_factory=dict)
    joins: Mapping[DeclaredJoin[Any, Any, Any], RuntimeJoin] = field(default_factory=dict)
    timers: Mapping[DeclaredTimers[Any], RuntimeTimers[Any]] = field(default_factory=dict)
    ticks: Ticks | None = None

    @property
    def cached(self) -> Iterator[Cached]:
        """What takes part in the budget of the cache."""
        yield from self.tables.values()
        yield from self.windows.values()
        for timers in self.timers.values():
            yield timers.rows
        for join in self.joins.values():
            yield from join.tables

    @property
    def expiring(self) -> list[RuntimeExpiringTable[Any, Any]]:
        """The tables with a time-to-live."""
        return [table for table in self.tables.values() if isinstance(table, RuntimeExpiringTable)]

    @property
    def changes(self) -> int:
        """The number of rows that the open commit writes and that become due."""
        return self.steps.changes if self.steps is not None else 0

    @property
    def late_events(self) -> int:
        """How often an event was late for a window or a history."""
        late = [window.late_events for window in self.windows.values()]
        return sum(late) + sum(history.late_events for history in self.histories.values())

    @property
    def removed_events(self) -> int:
        """How often an event of a join waited no longer because its key had too many."""
        return sum(join.removed for join in self.joins.values())

    @property
    def removed_values(self) -> int:
        """How often a value of a history was removed because its key had too many."""
        return sum(history.removed_values for history in self.histories.values())

    def take_writes(self) -> dict[bytes, bytes | None]:
        """The writes of the commit that is being sealed."""
        writes: dict[bytes, bytes | None] = {}
        for table in self.tables.values():
            writes.update(table.take_writes())
        for ids in self.dedup.values():
            writes.update(ids.take_writes())
        for timers in self.timers.values():
            writes.update(timers.rows.take_writes())
        if self.ticks is not None:
            writes.update(self.ticks.take_writes())
        if self.index is not None:
            writes.update(self.index.take_writes())
        if self.times is not None:
            for window in self.windows.values():
                writes.update(window.take_writes())
            for join in self.joins.values():
                for rows in join.tables:
                    writes.update(rows.take_writes())
            marked: list[Marked] = [*self.windows.values(), *self.joins.values(), *self.expiring]
            writes.update(self.times.take_writes(marked))
        return writes


@dataclass(frozen=True, slots=True)
class PartitionMaker:
    """Makes the partitions of a task. `own_rows`: the keys of rows begin with the partition, as in format 2."""

    task: TaskId
    plan: GroupPlan
    store: ReadableStore
    overlay: TaskOverlay
    context: RuntimeContext
    clock: Clock
    idle_s: float
    own_rows: bool

    def made(self) -> list[Partition]:
        """All partitions of the task. Raises CorruptStateError."""
        names: dict[int, set[str]] = {}
        for name, place in self.plan.inputs_of(self.task.number).items():
            names.setdefault(place.partition, set()).add(name)
        return [self.one(number, frozenset(own)) for number, own in names.items()]

    def one(self, number: int, names: frozenset[str]) -> Partition:
        """One partition. `names`: its inputs."""
        rows = row_prefix(number) if self.own_rows else b""
        group, store, overlay = self.plan.group, self.store, self.overlay
        stored, place = ClockState(), None
        if group.keeps_clock:
            stored = unpack_state(store.get(clock_key(rows)), f"task {self.task}, partition {number}")
            clock = EventClock([topic.name for topic in group.inputs], stored, self.idle_s)
            place = RowPlace(store, overlay, DueIndex(store, overlay, rows), clock, number, rows)
        tables = {
            definition: self._table(definition, rows, stored, place)
            for definition in group.tables.values()
            if definition.is_table
        }
        dedup = dedup_tables(group, store, overlay, self.context, self.clock, rows)
        ticks = self._ticks(number, rows) if group.ticks else None
        if place is None:
            ahead = {topic.name: Prefetch(topic, tables.values()) for topic in group.inputs}
            steps = None
            if ticks is not None:
                steps = DueSteps(EventClock((), ClockState()), self.clock, {}, (), (), ticks)
            return Partition(number, names, tables, {}, dedup, ahead, steps=steps, ticks=ticks)
        windows: dict[DeclaredWindow[Any, Any], AnyWindow] = {}
        for window in group.windows.values():
            mark_ms = stored.closed.get(window.name, 0)
            if isinstance(window, SessionWindow):
                windows[window] = RuntimeSessions(window, place, self.context, mark_ms)
            elif isinstance(window, AlignedWindow):
                windows[window] = RuntimeWindow(window, place, self.context, mark_ms)
        histories = {}
        for history in group.histories.values():
            buckets = RuntimeWindow(history.buckets, place, self.context, stored.closed.get(history.name, 0))
            windows[history.buckets] = buckets
            histories[history] = RuntimeHistory(history, buckets, self.context)
        event_types = {
            topic.name: event_type(
                self.task.app, self.task.group, self.plan.identity.inputs[topic.name].topic_id
            )
            for topic in group.inputs
        }
        joins = {
            join: RuntimeJoin(
                join,
                place,
                self.context,
                stored.closed.get(join.name, 0),
                group.matches.get(join.name),
                event_types,
            )
            for join in group.joins.values()
        }
        timers = {each: RuntimeTimers(each, place, self.context) for each in group.timer_sets.values()}
        ahead = {
            topic.name: Prefetch(topic, [*tables.values(), *(each.rows for each in timers.values())])
            for topic in group.inputs
        }
        fires = {each.fires.name for each in timers}
        sources: dict[str, DueSource] = {each.fires.name: runtime for each, runtime in timers.items()}
        sources.update({window.closes.name: runtime for window, runtime in windows.items()})
        for join in joins.values():
            sources.update(join.sources)
        sources.update(
            (expiring_topic(table.definition.name), table)
            for table in tables.values()
            if isinstance(table, RuntimeExpiringTable)
        )
        times = EventTimes(place.clock, stored, self.clock, self.plan.ahead_ms, rows)
        steps = DueSteps(place.clock, self.clock, sources, group.steps.keys(), fires, ticks)
        opened = (histories, joins, timers)
        return Partition(
            number, names, tables, windows, dedup, ahead, place.index, times, steps, *opened, ticks
        )

    def _ticks(self, number: int, rows: bytes) -> Ticks:
        stored = self.store.get(ticks_key(rows))
        return Ticks(self.plan.group.ticks.values(), stored, self.clock, number, rows)

    def _table(
        self, definition: DeclaredTable[Any, Any], rows: bytes, stored: ClockState, place: RowPlace | None
    ) -> RuntimeTable[Any, Any]:
        """`place`: None in a group without a clock, which has no table with a time-to-live."""
        if place is None or not isinstance(definition, ExpiringTable):
            return RuntimeTable(definition, self.store, self.overlay, rows)
        mark_ms = mark_at(stored, definition.name, definition.ttl_ms)
        return RuntimeExpiringTable(definition, place, self.context, mark_ms)
