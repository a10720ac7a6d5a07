"""Broken on purpose: reads that are believed although no write behind the same fence has proven them."""

from __future__ import annotations

import pytest

import pipeline.core.recovery
import pipeline.kafka.journal
import pipeline.kafka.topics
import pipeline.ops.dead_letters.replaying
import pipeline.ops.loading.loader
import pipeline.ops.migration.copying
import pipeline.runtime.commit.admin_entry
import pipeline.runtime.commit.journal_writer
import pipeline.runtime.maintenance
import pipeline.runtime.restore.genesis
import pipeline.runtime.restore.restore
import pipeline.runtime.restore.retirement
import pipeline.transactions.proof
from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "the first entry after a fence is committed without a proof",
        pipeline.runtime.commit.journal_writer.JournalWriter.commit,
        "        if self._end_read is not None:\n",
        "        if False:\n",
        "tests/runtime/restore/test_stale_reads.py never_forks",
    ),
    Broken(
        "a fleet believes what a stale leader answers",
        pipeline.runtime.commit.journal_writer.JournalWriter.commit,
        "        if self._end_read is not None:\n",
        "        if False:\n",
        "tests/runtime/assignment/test_random_fleet.py stale_leader",
    ),
    Broken(
        "what was committed behind the end that was read is ignored",
        pipeline.transactions.proof.prove_read,
        "    if unseen:\n",
        "    if False:\n",
        "tests/runtime/restore/test_stale_reads.py never_forks",
    ),
    Broken(
        "a proof may outlast its transaction",
        pipeline.runtime.commit.journal_writer.JournalWriter._prove,
        "began_s + self._settings",
        "started + self._settings",
        "tests/runtime/commit/test_proof_timeout.py",
    ),
    Broken(
        "an outage is reported as a stale leader",
        pipeline.transactions.proof._holds_records,
        "        if unanswered is not None:\n",
        "        if False:\n",
        "tests/transactions/test_proof.py outage_ends",
    ),
    Broken(
        "a gap is taken for empty before any reader has seen it",
        pipeline.transactions.proof._holds_records,
        "                if seen >= end:\n"
        "                    return next(iter(reader.read(partition, start, end)), None) is not None\n",
        "                return next(iter(reader.read(partition, start, min(seen, end))), None) is not None\n",
        "tests/runtime/restore/test_stale_reads.py two_stale_readers",
    ),
    Broken(
        "a lost tail is believed without a barrier",
        pipeline.runtime.restore.restore._Restore._read,
        "        except (UnprovenError, FatalTaskError) as error:\n            if self._proven:\n",
        "        except (UnprovenError, FatalTaskError) as error:\n            if True:\n",
        "tests/runtime/restore/test_stale_reads.py never_forks",
    ),
    Broken(
        "a lost last entry is forgotten behind the barrier that proves it",
        pipeline.core.recovery.tail_is_lost,
        "    return behind or local.next_offset > journal.stable_end\n",
        "    return local.next_offset > journal.stable_end\n",
        "tests/runtime/restore/test_journal_loss.py refused_at_every_start",
    ),
    Broken(
        "a genesis is written by an old answer that there is none",
        pipeline.runtime.restore.genesis._read_plan,
        "            if stable_end <= ends.get(task.journal, -1):\n",
        "            if False:\n",
        "tests/runtime/restore/test_stale_reads.py first_read",
    ),
    Broken(
        "a load continues from an old position",
        pipeline.ops.loading.loader.Loader._recall,
        "            at_least=self._transactions.known_ends.get(LOADS, 0),\n",
        "",
        "tests/ops/test_stale_reads.py finished_load",
    ),
    Broken(
        "a replay believes old marks",
        pipeline.ops.dead_letters.replaying.Replayer._recall,
        "        known_end = self._transactions.known_ends.get(marks_place(self._group), 0)\n"
        "        self._marks = read_marks(self._group, self._letters.topic_id, self._environment, known_end)\n",
        "        broker = self._environment.cluster._broker\n"
        "        environment = replace(self._environment, journals=lambda: MemoryJournalReader(broker))\n"
        "        from pipeline.testing.memory_clients import MemoryJournalReader\n"
        "        self._marks = read_marks(self._group, self._letters.topic_id, environment)\n",
        "tests/ops/test_stale_reads.py letter_that_was_replayed",
    ),
    Broken(
        "nothing is to do according to an old entry",
        pipeline.runtime.commit.admin_entry.append_entry,
        "                publisher.barrier()  # 2\n",
        "",
        "tests/ops/test_stale_reads.py revived_is_retired",
    ),
    Broken(
        "an app is refused by an old entry that retired it",
        pipeline.runtime.restore.retirement,
        "_READS = 3\n",
        "_READS = 1\n",
        "tests/ops/test_stale_reads.py revived_app_starts",
    ),
    Broken(
        "a copy ends where a stale leader ends",
        pipeline.ops.migration.copying._Run._ends,
        "        return self._reader.highest_ends(self._copy.partitions)\n",
        "        return self._reader.stable_ends(self._copy.partitions)\n",
        "tests/ops/test_stale_reads.py copy_continues",
    ),
    Broken(
        "an input that ends too early stops its task at once",
        pipeline.runtime.maintenance.Maintenance._explain,
        "        if not isinstance(error, OutOfRangeError) or self._starts_behind(partition, position):\n",
        "        if True:\n",
        "tests/runtime/restore/test_stale_reads.py never_forks",
    ),
    Broken(
        "an end counts whatever the number of brokers that answer",
        pipeline.kafka.journal.KafkaJournalReader.highest_ends,
        "if 2 * len(answers) <= len(servers):",
        "if not answers:",
        "tests/kafka/test_majority.py needs_the_answers",
    ),
    Broken(
        "the highest end counts, of whatever leader",
        pipeline.kafka.journal.KafkaJournalReader.highest_ends,
        "max(ends[place] for ends in answers).offset",
        "max(ends[place].offset for ends in answers)",
        "tests/kafka/test_majority.py newest_leader",
    ),
    Broken(
        "a topic is as some broker describes it",
        pipeline.kafka.topics.KafkaTopics.describe_by_most,
        "if 2 * most <= len(servers):",
        "if not most:",
        "tests/kafka/test_majority.py needs_most",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """A rule that no test misses could be dropped by mistake."""
    copied.assert_noticed(broken)
