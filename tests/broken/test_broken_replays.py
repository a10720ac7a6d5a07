"""Broken on purpose: replays of dead letters and their marks."""

from __future__ import annotations

import pytest

import pipeline.core.dead_letters
import pipeline.core.records
import pipeline.ops.dead_letters.open_count
import pipeline.ops.dead_letters.purging
import pipeline.ops.dead_letters.records
import pipeline.ops.dead_letters.replaying
import pipeline.runtime.assignment.retried
import pipeline.runtime.commit.journal_writer
import pipeline.runtime.maintenance
import pipeline.runtime.reset
import pipeline.runtime.restore.genesis
import pipeline.runtime.task.dead_letters
import pipeline.runtime.task.task
from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "a replay has the key of what is at its place now",
        pipeline.ops.dead_letters.replaying.Replayer._replay,
        "            topic_id=letter.topic_id,\n",
        "",
        "tests/ops/dead_letters/test_replaying.py keeps_its_effect_key",
    ),
    Broken(
        "a letter of a replay takes the id that its topic has now",
        pipeline.runtime.task.dead_letters.DeadLetters.write,
        'getattr(record, "topic_id", "") or self',
        "self",
        "tests/ops/dead_letters/test_replaying.py keeps_its_effect_key",
    ),
    Broken(
        "marks of replayed letters are written in a transaction of their own",
        pipeline.ops.dead_letters.replaying.Replayer._send,
        "        engine.send([mark_output(mark) for mark in marks.values()])\n",
        "        engine.flush()\n"
        "        engine.commit()\n"
        "        engine.begin()\n"
        "        engine.send([mark_output(mark) for mark in marks.values()])\n",
        "tests/ops/dead_letters/test_replay_faults.py crash_at_any_call",
    ),
    Broken(
        "a doubtful replay is done again",
        pipeline.ops.dead_letters.replaying.Replayer._judge,
        "        found = self._marks.get(first)\n",
        "        found = before\n",
        "tests/ops/dead_letters/test_replay_faults.py settled_by_the_mark",
    ),
    Broken(
        "a group that is started over handles its old replays beside the input",
        pipeline.runtime.restore.genesis._ends,
        "if latest or is_replays(topic)",
        "if latest",
        "tests/ops/dead_letters/test_replays_input.py started_over",
    ),
    Broken(
        "offsets of a deleted topic of replays count in the one that replaced it",
        pipeline.core.dead_letters._replaced,
        "    return facts.absent and facts.topic_id != current.topic_id",
        "    return False",
        "tests/ops/dead_letters/test_replays_input.py from_its_first_record",
    ),
    Broken(
        "an owner without a topic of replays forgets which one was read before",
        pipeline.core.dead_letters.acquired_identity,
        "        if is_replays(topic) and topic not in inputs:",
        "        if False:",
        "tests/core/test_replays_input.py says_what_became",
    ),
    Broken(
        "each letter of a record is replayed",
        pipeline.ops.dead_letters.records.FailedRecord.add,
        "        if found.partition == self.newest[0] or time > (self.failed_ms, self.replay):",
        "        if time > (self.failed_ms, self.replay) and self.newest[0] < 0:",
        "tests/ops/dead_letters/test_failed_records.py replays_its_newest",
    ),
    Broken(
        "older letters of a replayed record stay without a mark",
        pipeline.ops.dead_letters.replaying.Replayer._marks_of,
        "            if place == letter.id or place not in self._marks\n",
        "            if place == letter.id\n",
        "tests/ops/dead_letters/test_failed_records.py reset_made_fail",
    ),
    Broken(
        "a discarded record is replayed",
        pipeline.ops.dead_letters.replaying.Replayer._chosen,
        "state is State.OPEN or self._again",
        "state is not State.REPLAYED or self._again",
        "tests/ops/dead_letters/test_discards.py until_someone_asks",
    ),
    Broken(
        "a purge deletes what is behind an open letter",
        pipeline.ops.dead_letters.purging._plan,
        "        before[partition] = min(before[partition], offset)\n",
        "        before[partition] = max(before[partition], offset)\n",
        "tests/ops/dead_letters/test_discards.py first_open_letter",
    ),
    Broken(
        "a purge deletes a letter whose replay waits",
        pipeline.ops.dead_letters.purging._plan,
        "    for record in (*still_open, *waiting):\n",
        "    for record in still_open:\n",
        "tests/ops/dead_letters/test_discards.py replay_waits",
    ),
    Broken(
        "a letter that a task counts is in the tally, too",
        pipeline.ops.dead_letters.open_count._is_later,
        "    return count is not None and record.number > count.at",
        "    return False",
        "tests/ops/dead_letters/test_open_count.py while_a_command_counts",
    ),
    Broken(
        "a letter is counted by its partition",
        pipeline.ops.dead_letters.open_count._is_later,
        "counts.get(record.partition % tasks)",
        "counts.get(record.partition)",
        "tests/ops/dead_letters/test_open_count.py of_all_partitions_of_a_task",
    ),
    Broken(
        "a replayed letter stays in the tally",
        pipeline.ops.dead_letters.replaying.Replayer._send,
        "self._count.output(sum(letter.id not in self._marks for letter in batch))",
        "self._count.output(0)",
        "tests/ops/dead_letters/test_open_count.py problem_until_they_are_handled",
    ),
    Broken(
        "a crash of the worker loses the count of its letters",
        pipeline.runtime.commit.journal_writer.JournalWriter._entry_of,
        "            letters=grown(head.entry.letters, commit.letters, commit.letters_written, now_ms),\n",
        "            letters=grown(commit.letters, commit.letters, commit.letters_written, now_ms),\n",
        "tests/ops/dead_letters/test_open_count.py problem_until_they_are_handled",
    ),
    Broken(
        "a record that was tried again stays in the status when it is done",
        pipeline.runtime.task.task.Task._process_some,
        "                self._backlog.settle(name)\n",
        "                pass\n",
        "tests/runtime/task/test_retries.py names_the_record",
    ),
    Broken(
        "each failed try writes a note",
        pipeline.runtime.assignment.retried.RetriedRecords.turn,
        "now_s - retried.since_s >= NOTED_AFTER_S",
        "now_s - retried.since_s >= 0",
        "tests/runtime/task/test_retries.py writes_no_note",
    ),
    Broken(
        "topics that were not requested count as deleted",
        pipeline.runtime.maintenance.Maintenance._explain,
        "self._environment.cluster.describe_by_most(sorted(set(_watched(run.plan))))",
        "self._environment.cluster.describe_by_most(list(run.plan.identity.inputs))",
        "tests/runtime/test_topics_gone.py retention_removed",
    ),
    Broken(
        "a copy of a record of the epoch is one of the present",
        pipeline.core.records.kept_timestamp,
        "    return timestamp_ms or EARLIEST_MS if timestamp_ms >= 0 else 0\n",
        "    return max(timestamp_ms, 0)\n",
        "tests/ops/migration/test_copying.py the_same_but_for_its_place",
    ),
    Broken(
        "a reset handles what waited to be replayed beside the input",
        pipeline.runtime.reset._input_resets,
        "        if is_replays(partition.topic):\n",
        "        if False:\n",
        "tests/ops/dead_letters/test_replays_input.py reset_forgets",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
