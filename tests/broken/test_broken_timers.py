"""Broken on purpose: timers and `every`: the index of what is due, when records wait, and what a commit contains."""

from __future__ import annotations

import pytest

import pipeline.api.due_index
import pipeline.api.task_timers
import pipeline.runtime.task.due_steps
import pipeline.runtime.task.event_times
import pipeline.runtime.task.partition
import pipeline.runtime.task.task
import pipeline.runtime.task.ticks
from tests.support.breaking import Broken, Copy, name_of

INDEX = "tests/api/test_due_index.py"
TIMERS = "tests/runtime/timers/test_timers.py"
ERRORS = "tests/runtime/timers/test_timer_errors.py"
HISTORIES = "tests/runtime/timers/test_timer_histories.py"
TICKS = "tests/runtime/timers/test_ticks.py"

ROWS = [
    Broken(
        "an entry of an undone record is kept",
        pipeline.api.due_index.DueEntries.add,
        "        self._note(full_key)\n",
        "",
        f"{INDEX} an_undone_record",
    ),
    Broken(
        "entries that a commit in progress writes are not found",
        pipeline.api.due_index.DueEntries._read,
        "self._sealed if self._overlay.sealed else {}",
        "{}",
        f"{INDEX} commit_in_progress",
    ),
    Broken(
        "entries that are not read yet are believed to be in memory",
        pipeline.api.due_index.DueEntries._admit,
        "(self._end is None or full_key < self._end) and full_key not in self._live",
        "full_key not in self._live",
        f"{INDEX} few_entries",
    ),
    Broken(
        "the index is not committed",
        pipeline.runtime.task.partition.Partition.take_writes,
        "            writes.update(self.index.take_writes())\n",
        "            self.index.take_writes()\n",
        f"{TIMERS} survive_a_crash",
    ),
    Broken(
        "a due timer that another one sets does not wait for a commit",
        pipeline.api.task_timers.TaskTimers.__setitem__,
        "waits = due_ms <= clock.ms and self._context.firing",
        "waits = False",
        f"{TIMERS} sets_itself",
    ),
    Broken(
        "a timer that was moved to a later time fires at the earlier one",
        pipeline.api.task_timers.RuntimeTimers.due,
        "if due_ms > indexed_ms:",
        "if False:",
        f"{TIMERS} moved_and_cancelled",
    ),
    Broken(
        "a timer is removed although its partition stops",
        pipeline.api.task_timers.RuntimeTimers.due,
        "            del rows[key]\n            yield TimerRecord(name, partition, due_ms, encoded)\n",
        "            del rows[key]\n            undo.clear()\n"
        "            yield TimerRecord(name, partition, due_ms, encoded)\n",
        f"{ERRORS} stops_its_partition",
    ),
    Broken(
        "records do not wait for due timers",
        pipeline.runtime.task.event_times.UntilTimer.__iter__,
        "if clock.ms >= clock.next_timer_ms:",
        "if False:",
        f"{TIMERS} before_the_next_record_in_order",
    ),
    Broken(
        "due timers leave no room for the records of other partitions",
        pipeline.runtime.task.task.Task._step_room,
        "min(limit - self._open_records, max(1, limit // 2)) - self._open_steps",
        "limit - self._open_records - self._open_steps",
        f"{TIMERS} many_due_timers",
    ),
    Broken(
        "the failures of a timer count for the first one",
        pipeline.runtime.task.due_steps.DueSteps._fire,
        "failures = failures if _place(first) == queue.failed else 0",
        "pass",
        f"{ERRORS} does_not_take_its_failures",
    ),
    Broken(
        "timers that wait for a commit are forgotten",
        pipeline.runtime.task.task.Task._seal,
        "each.steps.plan()",
        "pass",
        f"{TIMERS} sets_itself",
    ),
    Broken(
        "the due times of every are not committed",
        pipeline.runtime.task.partition.Partition.take_writes,
        "            writes.update(self.ticks.take_writes())\n",
        "            pass\n",
        f"{TICKS} missed_times",
    ),
    Broken(
        "the wall clock of every goes back",
        pipeline.runtime.task.ticks.Ticks.__init__,
        "due[topic.tick_name] = min(due.get(topic.tick_name, first), first)",
        "due[topic.tick_name] = first",
        f"{TICKS} missed_times",
    ),
    Broken(
        "the first due time is only in memory",
        pipeline.runtime.task.ticks.Ticks.__init__,
        "self._new = {topic.tick_name for topic in topics} - due.keys()",
        "self._new = set[str]()",
        f"{TICKS} keeps_the_due_time",
    ),
    Broken(
        "a retry takes a later due time",
        pipeline.runtime.task.ticks.TickSource.due,
        "        self._failed = tick\n",
        "",
        f"{TICKS} keeps_its_due_time",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whenever a timer fires would be worth nothing."""
    copied.assert_noticed(broken)
