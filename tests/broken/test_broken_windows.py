"""Broken on purpose: event clocks and windows: what moves the clock, what is late, and when rows are removed."""

from __future__ import annotations

import pytest

import pipeline.api.indexed_rows
import pipeline.api.session_rows
import pipeline.api.window_rows
import pipeline.core.event_time
import pipeline.core.sessions
import pipeline.runtime.input_checks
import pipeline.runtime.task.due_steps
import pipeline.runtime.task.event_times
import pipeline.runtime.task.partition
import pipeline.runtime.task.processor
import pipeline.runtime.task.task
from tests.support.breaking import Broken, Copy, name_of

CLOCK = "tests/core/test_event_time.py"
CLOCKS = "tests/runtime/windows/test_clocks.py"
WINDOWS = "tests/runtime/windows/test_windows.py"
ERRORS = "tests/runtime/windows/test_close_errors.py"
SESSIONS = "tests/runtime/windows/test_sessions.py"

ROWS = [
    Broken(
        "the clock is the maximum of the newest times",
        pipeline.core.event_time.EventClock.begin,
        "self._held_ms = min(held, default=wall_ms)",
        "self._held_ms = wall_ms",
        f"{CLOCKS} is_behind_holds",
    ),
    Broken(
        "lateness is decided by a missing row",
        pipeline.api.window_rows.TaskWindow.rows,
        "end_ms > self._closed_ms():",
        "end_ms > self._closed_ms() or end_ms in self._buckets:",
        f"{WINDOWS} just_closed",
    ),
    Broken(
        "nothing is late",
        pipeline.api.window_rows.TaskWindow.rows,
        "end_ms > self._closed_ms():",
        "True:",
        f"{WINDOWS} across_a_crash",
    ),
    Broken(
        "the closed mark is not committed",
        pipeline.runtime.task.event_times.EventTimes.take_writes,
        "self.clock.state(closed)",
        "self.clock.state({})",
        f"{WINDOWS} grace_is_raised",
    ),
    Broken(
        "the clock is not committed",
        pipeline.runtime.task.partition.Partition.take_writes,
        "            writes.update(self.times.take_writes(marked))\n",
        "",
        f"{CLOCKS} the_clock_survives",
    ),
    Broken(
        "the clock passes the wall clock",
        pipeline.core.event_time.EventClock.observe,
        "if time_ms > wall_ms:",
        "if False:",
        f"{CLOCK} does_not_pass_the_wall_clock",
    ),
    Broken(
        "the clock jumps to the wall clock",
        pipeline.core.event_time.EventClock.checked,
        "reached = max(reached, min(reached + ran_ms, wall_ms))",
        "reached = wall_ms",
        f"{CLOCK} does_not_make_the_clock_jump",
    ),
    Broken(
        "a gap in the checks counts as idle time",
        pipeline.core.event_time.EventClock.checked,
        "if self._checked_s is None or self._is_gap(now_s):",
        "if self._checked_s is None:",
        f"{CLOCK} gap_in_the_checks",
    ),
    Broken(
        "an open transaction of a producer is not seen",
        pipeline.runtime.input_checks._check,
        """reader.stable_ends(wanted), reader.ends(wanted)
            seen = {
                each: _seen(each, position, stable_ends, ends, before, reader)
                for each, position in places.items()
            }
            proven = sorted({each[1] for each, found in seen.items() if found.at_end and each in doubted})
            highest = reader.highest_ends(proven, committed=False)
""",
        """reader.stable_ends(wanted), reader.stable_ends(wanted)
            seen = {
                each: _seen(each, position, stable_ends, ends, before, reader)
                for each, position in places.items()
            }
            proven = sorted({each[1] for each, found in seen.items() if found.at_end and each in doubted})
            highest = reader.highest_ends(proven)
""",
        f"{CLOCKS} open_transaction",
    ),
    Broken(
        "an end that a stale leader tells is believed",
        pipeline.runtime.input_checks._check,
        "highest.get(each[1], found.end) <= found.end",
        "True",
        f"{CLOCKS} stale_leader",
    ),
    Broken(
        "a replay moves the clock",
        pipeline.runtime.task.processor.Processor.process,
        'replayed=getattr(records[0], "replay", 0) > 0',
        "replayed=False",
        f"{ERRORS} does_not_move_the_clock",
    ),
    Broken(
        "a closed row is not removed",
        pipeline.api.window_rows.RuntimeWindow.take_writes,
        "        writes.update(self._deleted)\n",
        "",
        f"{WINDOWS} across_a_crash",
    ),
    Broken(
        "a row is removed before its function has succeeded",
        pipeline.api.window_rows.RuntimeWindow.due,
        """            yield CloseRecord(name, partition, end_ms, size_ms, full_key[skip:], data)
            self._deleted[full_key] = None
""",
        """            self._deleted[full_key] = None
            yield CloseRecord(name, partition, end_ms, size_ms, full_key[skip:], data)
""",
        f"{ERRORS} stops_its_partition",
    ),
    Broken(
        "due steps fall behind",
        pipeline.runtime.task.due_steps.Allowance.left,
        "if asked < self._least:",
        "if False:",
        f"{WINDOWS} keeps_pace",
    ),
    Broken(
        "a task that leaves fires due steps",
        pipeline.runtime.task.task.Task.advance,
        "if self._due and not self._leaving:",
        "if self._due:",
        f"{CLOCKS} that_leaves",
    ),
    Broken(
        "a task with due steps is idle",
        pipeline.runtime.task.task.Task.idle,
        "(self._due and not self._leaving)",
        "False",
        f"{ERRORS} retry_holds",
    ),
    Broken(
        "the clock moves before the record has succeeded",
        pipeline.runtime.task.processor.Processor._run_timed,
        "                    context.event_ms = time_ms = found\n",
        """                    context.event_ms = time_ms = found
                    newest_ms = times.observe(time_ms) if time_ms > newest_ms else newest_ms
""",
        f"{WINDOWS} clock_is_visible",
    ),
    Broken(
        "a closed session that is stored is joined",
        pipeline.core.sessions.place_of,
        "if near and due_ms(session, gap_ms) > closed_ms",
        "if near",
        f"{SESSIONS} still_stored",
    ),
    Broken(
        "a late event joins no open session",
        pipeline.core.sessions.place_of,
        "    if not joined:\n",
        "    if not joined or last + 1 <= closed_ms:\n",
        f"{SESSIONS} late_event_joins",
    ),
    Broken(
        "sessions that become one stay beside the new one",
        pipeline.api.session_rows.RuntimeSessions.assign,
        "content = (*place.others, session)",
        "content = (*place.others, *place.joined[1:], session)",
        f"{SESSIONS} between_two_sessions",
    ),
    Broken(
        "a session that ends before the others of its key keeps their entry",
        pipeline.api.indexed_rows.IndexedTable.write,
        "if first_ms < due_ms:",
        "if due_ms == NEVER_MS:",
        f"{SESSIONS} begin_a_session_before",
    ),
    Broken(
        "an entry that is too early closes the session",
        pipeline.api.session_rows.RuntimeSessions.due,
        "if due_ms(first, self._gap_ms) == entry_ms:",
        "if True:",
        f"{SESSIONS} across_a_crash",
    ),
    Broken(
        "a session is removed before its function has succeeded",
        pipeline.api.session_rows.RuntimeSessions.due,
        """                yield SessionRecord(name, self._partition, first.end_ms, size_ms, key, first.data)
                rest = tuple(each for each in sessions if each is not first)
""",
        """                rest = tuple(each for each in sessions if each is not first)
                table.settle(slot, rest or None, self._first_ms(rest))
                yield SessionRecord(name, self._partition, first.end_ms, size_ms, key, first.data)
                continue
""",
        f"{SESSIONS} raises_keeps",
    ),
    Broken(
        "what a step has settled is undone with the next step",
        pipeline.api.indexed_rows.IndexedTable.settle,
        "        self._undo.clear()\n",
        "",
        f"{SESSIONS} skipped_after",
    ),
    Broken(
        "a row that was read before another assignment overwrites it",
        pipeline.api.session_rows.SessionRow._place,
        "if slot[VALUE] is not self._seen:",
        "if False:",
        f"{SESSIONS} kept_and_assigned",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the clock does would be worth nothing."""
    copied.assert_noticed(broken)
