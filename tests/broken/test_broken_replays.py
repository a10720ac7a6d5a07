"""Broken on purpose: replays of dead letters and their marks."""

from __future__ import annotations

import pytest

from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "a replay has the key of what is at its place now",
        "ops/dead_letters/replaying.py",
        "            topic_id=letter.topic_id,\n",
        "",
        "tests/ops/dead_letters/test_replaying.py keeps_its_effect_key",
    ),
    Broken(
        "a letter of a replay takes the id that its topic has now",
        "runtime/task/dead_letters.py",
        'getattr(record, "topic_id", "") or self',
        "self",
        "tests/ops/dead_letters/test_replaying.py keeps_its_effect_key",
    ),
    Broken(
        "marks of replayed letters are written in a transaction of their own",
        "ops/dead_letters/replaying.py",
        "        engine.send([mark_output(mark) for mark in marks.values()])\n",
        "        engine.flush()\n"
        "        engine.commit()\n"
        "        engine.begin()\n"
        "        engine.send([mark_output(mark) for mark in marks.values()])\n",
        "tests/ops/dead_letters/test_replay_faults.py crash_at_any_call",
    ),
    Broken(
        "a doubtful replay is done again",
        "ops/dead_letters/replaying.py",
        "        found = self._marks.get(first)\n",
        "        found = before\n",
        "tests/ops/dead_letters/test_replay_faults.py settled_by_the_mark",
    ),
    Broken(
        "a group that is started over handles its old replays beside the input",
        "runtime/restore/genesis.py",
        "(latest or is_replays(topic)) and",
        "latest and",
        "tests/ops/dead_letters/test_replays_input.py started_over",
    ),
    Broken(
        "offsets of a deleted topic of replays count in the one that replaced it",
        "core/replays_input.py",
        "    return facts.absent and facts.topic_id != current.topic_id",
        "    return False",
        "tests/ops/dead_letters/test_replays_input.py from_its_first_record",
    ),
    Broken(
        "an owner without a topic of replays forgets which one was read before",
        "core/replays_input.py",
        "        if is_replays(topic) and topic not in inputs:",
        "        if False:",
        "tests/core/test_replays_input.py says_what_became",
    ),
    Broken(
        "each letter of a record is replayed",
        "ops/dead_letters/records.py",
        "        if found.partition == self.newest[0] or time > (self.failed_ms, self.replay):",
        "        if time > (self.failed_ms, self.replay) and self.newest[0] < 0:",
        "tests/ops/dead_letters/test_failed_records.py replays_its_newest",
    ),
    Broken(
        "older letters of a replayed record stay without a mark",
        "ops/dead_letters/replaying.py",
        "            if place == letter.id or place not in self._marks\n",
        "            if place == letter.id\n",
        "tests/ops/dead_letters/test_failed_records.py reset_made_fail",
    ),
    Broken(
        "a discarded record is replayed",
        "ops/dead_letters/replaying.py",
        "state is State.OPEN or self._again",
        "state is not State.REPLAYED or self._again",
        "tests/ops/dead_letters/test_discards.py until_someone_asks",
    ),
    Broken(
        "a purge deletes what is behind an open letter",
        "ops/dead_letters/purging.py",
        "        before[partition] = min(before[partition], offset)\n",
        "        before[partition] = max(before[partition], offset)\n",
        "tests/ops/dead_letters/test_discards.py first_open_letter",
    ),
    Broken(
        "a letter that a task counts is in the tally, too",
        "ops/dead_letters/open_count.py",
        "    return count is not None and record.number > count.at",
        "    return False",
        "tests/ops/dead_letters/test_open_count.py while_a_command_counts",
    ),
    Broken(
        "a replayed letter stays in the tally",
        "ops/dead_letters/replaying.py",
        "self._count.output(sum(letter.id not in self._marks for letter in batch))",
        "self._count.output(0)",
        "tests/ops/dead_letters/test_open_count.py problem_until_they_are_handled",
    ),
    Broken(
        "a crash of the worker loses the count of its letters",
        "runtime/commit/journal_writer.py",
        "            letters=grown(head.entry.letters, commit.letters, commit.letters_written, now_ms),\n",
        "            letters=grown(commit.letters, commit.letters, commit.letters_written, now_ms),\n",
        "tests/ops/dead_letters/test_open_count.py problem_until_they_are_handled",
    ),
    Broken(
        "a record that was tried again stays in the status when it is done",
        "runtime/task/task.py",
        "                self._backlog.settle(topic)\n",
        "                pass\n",
        "tests/runtime/task/test_retries.py names_the_record",
    ),
    Broken(
        "each failed try writes a note",
        "runtime/assignment/retried.py",
        "now_s - retried.since_s >= TOLD_AFTER_S",
        "now_s - retried.since_s >= 0",
        "tests/runtime/task/test_retries.py writes_no_note",
    ),
    Broken(
        "topics that nobody has asked for pass for deleted ones",
        "runtime/maintenance.py",
        "self._environment.cluster.describe_by_most(sorted(set(_watched(run.plan))))",
        "self._environment.cluster.describe_by_most(list(run.plan.identity.inputs))",
        "tests/runtime/test_topics_gone.py retention_removed",
    ),
    Broken(
        "a copy of a record of the epoch is one of the present",
        "core/records.py",
        "    return timestamp_ms or EARLIEST_MS if timestamp_ms >= 0 else 0\n",
        "    return max(timestamp_ms, 0)\n",
        "tests/ops/migration/test_copying.py the_same_but_for_its_place",
    ),
    Broken(
        "a reset handles what waited to be replayed beside the input",
        "runtime/reset.py",
        "        if is_replays(partition.topic):\n",
        "        if False:\n",
        "tests/ops/dead_letters/test_replays_input.py reset_forgets",
    ),
]


@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
