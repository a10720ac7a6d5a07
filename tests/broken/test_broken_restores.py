"""Broken on purpose: what a start, a restore and a reset find in journals."""

from __future__ import annotations

import pytest

import pipeline.core.journal_format
import pipeline.core.recovery
import pipeline.runtime.idle_positions
import pipeline.runtime.journal_backend
import pipeline.runtime.maintenance
import pipeline.runtime.plan
import pipeline.runtime.restore.genesis
import pipeline.runtime.restore.restore
import pipeline.runtime.task.task
from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "a task that is retired is run",
        pipeline.runtime.restore.restore._Restore._check,
        "            if head.entry.kind is EntryKind.RETIRE:",
        "            if False:",
        "tests/ops/migration/test_migration.py under_a_worker",
    ),
    Broken(
        "a worker of an app that is retired starts",
        pipeline.runtime.journal_backend.JournalBackend.begin,
        "        refuse_retired(plan.id, self._environment)\n",
        "",
        "tests/ops/migration/test_migration.py retirement_that_was_killed",
    ),
    Broken(
        "the chain of a local state is ignored",
        pipeline.core.recovery.plan_restore,
        "found.entry.seq == local.seq and found.chain == local.chain",
        "found.entry.seq == local.seq",
        "tests/runtime/restore/test_local_damage.py another_history",
    ),
    Broken(
        "a local state beyond the journal's end is accepted",
        pipeline.core.recovery.plan_restore,
        "        elif tail_is_lost(local, cluster_id, journal):",
        "        elif False:",
        "tests/runtime/restore/test_journal_loss.py lost_its_tail",
    ),
    Broken(
        "an app that lost its journal is taken for a new one",
        pipeline.runtime.restore.genesis._traces,
        "    return traces\n",
        "    return []\n",
        "tests/runtime/restore/test_journal_loss.py journal_topic_that_is_gone",
    ),
    Broken(
        "a topic recreated under a running worker goes unnoticed",
        pipeline.runtime.plan.inputs_changed,
        "        if current.topic_id != facts.topic_id:",
        "        if False:",
        "tests/runtime/restore/test_journal_loss.py created_again",
    ),
    Broken(
        "positions of the restored entry are ignored",
        pipeline.runtime.restore.restore._Restore._acquire,
        "positions = {**applied.positions, **",
        "positions = {**dict.fromkeys(applied.positions, 0), **",
        "tests/runtime/commit/test_crash_at_every_step.py each_commit_step",
    ),
    Broken(
        "a read at the start of the journal ends one entry early",
        pipeline.runtime.restore.restore._apply_entries,
        "read_entries(task, reader, plan.offset, end, head)",
        "read_entries(task, reader, plan.offset, end - 2, head)",
        "tests/runtime/commit/test_crash_at_every_step.py each_commit_step",
    ),
    Broken(
        "positions are taken from the consumer group's offsets",
        pipeline.runtime.restore.restore._Restore._acquire,
        "positions = {**applied.positions, **",
        "positions = {\n"
        "                **applied.positions,\n"
        "                **{\n"
        "                    place.topic: position\n"
        "                    for place, position in (\n"
        "                        environment.cluster.committed(task.group_id.consumer_group).items())\n"
        "                    if place.partition == task.number\n"
        "                },\n"
        "                **",
        "tests/runtime/restore/test_restore.py consumer_group",
    ),
    Broken(
        "the seq of an entry is ignored when a journal is read",
        pipeline.core.journal_format._verify,
        "        if seq != previous.entry.seq + 1:\n",
        "        if False:\n",
        "tests/core/test_journal_format.py gap_between",
    ),
    Broken(
        "the chain of an entry is ignored when a journal is read",
        pipeline.core.journal_format._verify,
        "        if chain != _next_chain(previous.chain, body):\n",
        "        if False:\n",
        "tests/core/test_journal_format.py another_history",
    ),
    Broken(
        "positions that fall are ignored when a journal is read",
        pipeline.core.journal_format.check_positions,
        "        if after.get(name, -1) < position:\n",
        "        if False:\n",
        "tests/core/test_journal_format.py fall_or_vanish",
    ),
    Broken(
        "a group whose journal is empty is taken for a new one whatever it left elsewhere",
        pipeline.core.recovery.plan_genesis,
        "    if with_genesis == 0 and written == 0:\n        if not traces:\n",
        "    if with_genesis == 0 and written == 0:\n        if True:\n",
        "tests/core/test_genesis_plan.py row_5",
    ),
    Broken(
        "a reset keeps the rows of before",
        pipeline.runtime.restore.restore.apply_entries,
        "            store.clear(encode_position(applied), [row_prefix(each) for each in partitions or ()])\n",
        "            pass\n",
        "tests/runtime/test_reset.py wherever_its_state_is",
    ),
    Broken(
        "an idle task does not look whether it was fenced",
        pipeline.runtime.maintenance.Maintenance.turn,
        "            self._begin_owner_checks()\n",
        "            pass\n",
        "tests/runtime/test_reset.py begins_at_an_offset",
    ),
    Broken(
        "a quiet task passes over records that wait for it",
        pipeline.runtime.idle_positions._is_empty,
        "return end > position and next(iter(reader.read(place, position, end)), None) is None",
        "return end > position",
        "tests/runtime/test_idle_positions.py waits_for_its_task",
    ),
    Broken(
        "a quiet task passes over what it has not come to",
        pipeline.runtime.idle_positions.IdlePositions._is_still_idle,
        "and task.positions[name] == position",
        "",
        "tests/runtime/test_idle_positions.py went_on_while",
    ),
    Broken(
        "a position that is passed over turns a later one back",
        pipeline.runtime.task.task.Task.advance,
        "name: max(at[name], position) for",
        "name: position for",
        "tests/runtime/test_idle_positions.py turn_positions_back",
    ),
    Broken(
        "upgraded rows are not committed with the acquire entry",
        pipeline.runtime.restore.restore._Restore._acquire,
        "Commit(EntryKind.ACQUIRE, positions, rows, identity=acquired, extra=extra)",
        "Commit(EntryKind.ACQUIRE, positions, identity=acquired, extra=extra)",
        "tests/runtime/restore/test_upgrade.py every_row",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
