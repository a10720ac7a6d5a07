"""Broken on purpose: sinks: positions, epochs and commits in doubt."""

from __future__ import annotations

import pytest

import pipeline.core.sink_positions
import pipeline.databases.postgres.session
import pipeline.databases.sql
import pipeline.runtime.sinks.rows
import pipeline.runtime.sinks.task
import pipeline.runtime.sinks.writer
import pipeline.runtime.status.reading
import pipeline.runtime.task_lifecycle
import pipeline.testing.databases
from tests.support.breaking import Broken, Copy, name_of

SINKS = "tests/runtime/sinks/test_sinks.py"
POSITIONS = "tests/runtime/sinks/test_sink_positions.py"
TASKS = "tests/sinks/test_tasks_of_sinks.py"
SESSIONS = "tests/sinks/test_session_contract.py"

ROWS = [
    Broken(
        "two sinks of one table are written sink by sink",
        pipeline.runtime.sinks.rows.writes_of,
        "    if len({*tables}) == len(tables):\n",
        "    if True:\n",
        f"{SINKS} two_sinks_of_one_table",
    ),
    Broken(
        "tasks of a group of sinks that has not begun are taken",
        pipeline.runtime.task_lifecycle.TaskLifecycle._roles,
        "busy = [*self._restoring, *self._fenced, *self._deferred_starts.tasks]",
        "busy = [*self._restoring, *self._fenced]",
        "tests/sinks/test_fleet.py cannot_reach",
    ),
    Broken(
        "a sink's epoch is not compared",
        pipeline.databases.sql.SqlSession.move,
        "AND epoch = {m} ",
        "AND epoch >= 0 * {m} ",
        f"{SESSIONS} only_the_holder",
    ),
    Broken(
        "a sink's position is not compared",
        pipeline.databases.sql.SqlSession.move,
        "AND next_offset = {m}",
        "AND next_offset >= 0 * {m}",
        f"{SESSIONS} only_the_holder",
    ),
    Broken(
        "a sink writes though the fence has said no",
        pipeline.runtime.sinks.writer.SinkWriter.write,
        "            if not session.move(hold, after):  # 3\n",
        "            if session.move(hold, after) is None:\n",
        f"{SINKS} fenced_owner",
    ),
    Broken(
        "a sink writes its rows before the fence",
        pipeline.runtime.sinks.writer.SinkWriter.write,
        "            if not session.move(hold, after):  # 3\n",
        "            session.write(writes)\n            if not session.move(hold, after):\n",
        f"{SINKS} fenced_owner",
    ),
    Broken(
        "a sink's doubtful commit is taken for done",
        pipeline.runtime.sinks.writer.SinkWriter._settle,
        "        return outcome is CommitOutcome.COMMITTED\n",
        "        return True\n",
        f"{SINKS} outcome_is_unknown",
    ),
    Broken(
        "a sink's doubtful commit is done again",
        pipeline.runtime.sinks.writer.SinkWriter._settle,
        "        return outcome is CommitOutcome.COMMITTED\n",
        "        return False\n",
        f"{SINKS} outcome_is_unknown",
    ),
    Broken(
        "a sink's doubtful commit is forgotten",
        pipeline.runtime.sinks.writer.SinkWriter._commit,
        "            self._in_doubt = dict(after)\n",
        "            self._moved(after)\n",
        f"{SINKS} outcome_is_unknown",
    ),
    Broken(
        "a sink's owner does not raise the epoch beyond what was heard of",
        pipeline.core.sink_positions.next_epoch,
        "    return max([noted, ",
        "    return max([0, ",
        f"{POSITIONS} brings_an_epoch_back",
    ),
    Broken(
        "a claim raises the epoch of one row",
        pipeline.runtime.sinks.writer.claim,
        "for row in rows]\n",
        "for row in rows[:1]]\n",
        f"{TASKS} raises_the_epoch",
    ),
    Broken(
        "a claim locks the rows of one partition",
        pipeline.testing.databases.MemorySession.lock,
        "partition % tasks == task.number",
        "partition == task.number",
        f"{SESSIONS} locks_the_rows_of_all",
    ),
    Broken(
        "claims of sink tasks lock rows in another order than commits",
        pipeline.databases.postgres.session.PostgresSession,
        "ORDER = 'topic COLLATE \"C\", partition_no'",
        "ORDER = 'topic COLLATE \"C\", partition_no DESC'",
        f"{SESSIONS} waits_for_a_row",
    ),
    Broken(
        "commits of sink tasks lock rows in any order",
        pipeline.core.sink_positions.Hold.moves,
        "found = sorted(",
        "found = list(",
        f"{SESSIONS} waits_for_a_row",
    ),
    Broken(
        "a batch of a sink that moves no position is written without a fence",
        pipeline.core.sink_positions.Hold.moves,
        "        if not found:\n",
        "        if False:\n",
        f"{SESSIONS} move_of_no_position",
    ),
    Broken(
        "a batch of a sink is written though the row of one partition has another owner",
        pipeline.testing.databases.MemorySession.move,
        "                    return False\n",
        "                    continue\n",
        f"{SESSIONS} only_positions_that_move",
    ),
    Broken(
        "a refused record of a sink discards the batches of other partitions",
        pipeline.runtime.sinks.task.SinkTask._discard_from,
        "deque(without(self._sealed, partition, applied, self._names))",
        "deque()",
        f"{TASKS} stops_only_its_partition",
    ),
    Broken(
        "records after a refused one of a sink are written",
        pipeline.runtime.sinks.rows.without,
        "[i for i in batch.items if i.record.partition() != partition]",
        "batch.items",
        f"{TASKS} stops_only_its_partition",
    ),
    Broken(
        "status shows sink tasks of an earlier number of tasks",
        pipeline.runtime.status.reading._of_sinks,
        "newer.seq > owner.seq",
        "newer.seq < 0",
        f"{TASKS} tasks_of_the_last_start",
    ),
    Broken(
        "a sink group that lost its positions is taken for a new one",
        pipeline.core.sink_positions.plan_positions,
        "    if not rows and traces:\n",
        "    if False:\n",
        f"{POSITIONS} positions_that_are_gone",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
