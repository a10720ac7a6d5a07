"""Broken on purpose: joins: what matches, how long an event waits, and that it is unmatched once."""

from __future__ import annotations

import pytest

import pipeline.api.context
import pipeline.api.join_rows
import pipeline.core.joins
import pipeline.runtime.task.partition
import pipeline.runtime.task.processor
from tests.support.breaking import Broken, Copy, name_of

JOINS = "tests/runtime/joins/test_joins.py"

ROWS = [
    Broken(
        "an event that has expired is matched",
        pipeline.core.joins.partners,
        "and each.due_ms > closed_ms",
        "",
        f"{JOINS} not_matched_while_it_is_stored",
    ),
    Broken(
        "a match does not mark the partner",
        pipeline.core.joins.marked,
        "matched=True",
        "matched=False",
        f"{JOINS} unmatched_once_across",
    ),
    Broken(
        "an event that has matched is not kept for others",
        pipeline.api.join_rows.RuntimeJoin.handle,
        "if not found or time_ms >= closed_ms:",
        "if not found:",
        f"{JOINS} whose_times_are_close",
    ),
    Broken(
        "a late event without a partner is dropped",
        pipeline.api.join_rows.RuntimeJoin.handle,
        "if not found or time_ms >= closed_ms:",
        "if time_ms >= closed_ms:",
        f"{JOINS} unmatched_at_once",
    ),
    Broken(
        "an event expires when its time is reached",
        pipeline.api.join_rows.RuntimeJoin._keep,
        "time_ms + 1,",
        "time_ms,",
        f"{JOINS} once_its_time_is_over",
    ),
    Broken(
        "an event that has matched is unmatched, too",
        pipeline.api.join_rows._Side.due,
        "if not each.matched or each.due_ms > closed_ms",
        "if True",
        f"{JOINS} seen_once",
    ),
    Broken(
        "the mark of a join is not committed",
        pipeline.runtime.task.partition.Partition.take_writes,
        "*self.joins.values(), *self.expiring]",
        "*self.expiring]",
        f"{JOINS} if_the_time_is_raised",
    ),
    Broken(
        "an unmatched event has the timestamp of its record",
        pipeline.runtime.task.processor.Processor._timed,
        "self._context.event_ms = time_of(step)",
        "pass",
        f"{JOINS} looks_like_the_event",
    ),
    Broken(
        "a pair has the time of the event that came last",
        pipeline.api.context.MatchContext.__init__,
        "self._event_ms = time_ms",
        "pass",
        f"{JOINS} later_time_of_a_pair",
    ),
    Broken(
        "an event that is one too many is forgotten",
        pipeline.core.joins.added,
        "if not (each.matched and id(each) in over)",
        "if id(each) not in over",
        f"{JOINS} capped_and_counted",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever a join does would be worth nothing."""
    copied.assert_noticed(broken)
