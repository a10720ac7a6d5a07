"""Broken on purpose: the commit protocol, its fence and its sealed overlays."""

from __future__ import annotations

import pytest

import pipeline.api.table
import pipeline.core.recovery
import pipeline.kafka.producer
import pipeline.runtime.commit.commit_protocol
import pipeline.runtime.commit.journal_writer
import pipeline.runtime.commit.task_fence
import pipeline.runtime.group_run
import pipeline.runtime.task.task
import pipeline.transactions.engine
import pipeline.transactions.outcomes
from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "apply before the commit",
        pipeline.runtime.commit.commit_protocol.Publisher._publish,
        "        entry = commit_until_settled(self._fence.engine, publication)  # 1 to 6\n"
        "        return self._apply(commit, entry)\n",
        "        make = self._writer._entry_of\n"
        "        def early(commit, nonce):\n"
        "            (entry, chunks, chain), head = make(commit, nonce), self._writer.head\n"
        "            at, size = head.next_offset + 1, sum(map(len, chunks))\n"
        "            self._apply(commit, JournalEntry(entry, at, at + len(chunks), chain, size))\n"
        "            self._writer.head = head\n"
        "            return entry, chunks, chain\n"
        "        self._writer._entry_of = early\n"
        "        entry = commit_until_settled(self._fence.engine, publication)\n"
        "        self._writer._entry_of = make\n"
        "        self._writer.head = without_delta(entry)\n"
        "        return self.applied\n",
        "tests/runtime/commit/test_crash_at_every_step.py each_commit_step",
    ),
    Broken(
        "no renewal after a doubtful commit: do it again",
        pipeline.transactions.outcomes.commit_until_settled,
        "        settled = _renew(policy, attempts)  # 4\n",
        "        settled = _renew(policy, attempts) if isinstance(failure, AbortableError) else policy.fence()\n",
        "tests/runtime/commit/test_doubtful_commits.py unknown_outcome",
    ),
    Broken(
        "no renewal after a doubtful commit: take it for done",
        pipeline.core.recovery.resolve_outcome,
        "    if len(found) == 1:\n        return CommitOutcome.ABORTED, head\n",
        "    if len(found) == 1:\n        return CommitOutcome.COMMITTED, head\n",
        "tests/runtime/commit/test_doubtful_commits.py unknown_outcome",
    ),
    Broken(
        "the nonce is ignored",
        pipeline.core.recovery.resolve_outcome,
        "found[1].entry.nonce in nonces",
        "nonces",
        "tests/runtime/commit/test_doubtful_commits.py in_between",
    ),
    Broken(
        "the journal's new entries are ignored after a renewal",
        pipeline.core.recovery.resolve_outcome,
        "    return CommitOutcome.SUPERSEDED, found[-1]\n",
        "    return CommitOutcome.ABORTED, head\n",
        "tests/runtime/commit/test_doubtful_commits.py between_a_doubtful",
    ),
    Broken(
        "the low offset of an entry after a lost tail is ignored",
        pipeline.runtime.commit.journal_writer.JournalWriter._check_offset,
        "        if offset <= head.next_offset:",
        "        if False:",
        "tests/runtime/restore/test_journal_loss.py under_a_running_worker_stops",
    ),
    Broken(
        "a slow commit does not renew the producer",
        pipeline.transactions.engine,
        "RENEW_SHARE = 0.7",
        "RENEW_SHARE = 1e9",
        "tests/runtime/commit/test_commit_protocol.py silent_retry",
    ),
    Broken(
        "a transaction begins without the fence that is due",
        pipeline.transactions.engine.TransactionEngine.begin,
        "        if self._fence_due:\n",
        "        if False:\n",
        "tests/transactions/test_engine.py after_a_failure",
    ),
    Broken(
        "a slow abort of a barrier is taken for a clean end",
        pipeline.transactions.engine.TransactionEngine.barrier,
        "        self._fence_due = self._end(producer.abort, None) >= self._slow_s\n",
        "        self._end(producer.abort, None)\n        self._fence_due = False\n",
        "tests/transactions/test_engine.py slow_barrier",
    ),
    Broken(
        "a renewal looks for the last attempt only",
        pipeline.transactions.outcomes.commit_until_settled,
        "        settled = _renew(policy, attempts)  # 4\n",
        "        settled = _renew(policy, attempts[-1:])\n",
        "tests/transactions/test_outcomes.py before_the_last_one",
    ),
    Broken(
        "a failed transaction is left open until the fence",
        pipeline.transactions.outcomes.commit_until_settled,
        "            unclean = engine.abort()  # 3\n",
        "            unclean = None\n",
        "tests/runtime/commit/test_commit_protocol.py before_anybody_waits",
    ),
    Broken(
        "a producer that was closed while idle is opened again without a read of the journal",
        pipeline.runtime.commit.commit_protocol._Publication.__init__,
        "        self.settle = writer.settle\n",
        "        self.settle = lambda nonces: writer.settle(nonces) if nonces else None\n",
        "tests/runtime/test_idle_producers.py taken_after_the_look",
    ),
    Broken(
        "a producer that was closed while idle is opened again without a look for another owner",
        pipeline.runtime.commit.commit_protocol.Publisher._publish,
        "            self._writer.look_for_owner()\n",
        "            pass\n",
        "tests/runtime/test_idle_producers.py not_taken_back",
    ),
    Broken(
        "a commit begins while the producer of its task is being closed",
        pipeline.runtime.task.task.Task.advance,
        "        free = self._under_way is None and self._closing is None\n",
        "        free = self._under_way is None\n",
        "tests/runtime/test_idle_producers.py waits_until",
    ),
    Broken(
        "a producer is closed while it is in use",
        pipeline.runtime.task.task.Task.close_producer,
        "        if not self.idle:\n",
        "        if False:\n",
        "tests/runtime/test_idle_producers.py in_use",
    ),
    Broken(
        "no fence: every start has a transactional id of its own",
        pipeline.runtime.commit.task_fence.TaskFence.__init__,
        "            task.transactional_id, environment.producers",
        '            f"{task.transactional_id}.{environment.random.token(4).hex()}", environment.producers',
        "tests/runtime/assignment/test_fleet.py wakes_up",
    ),
    Broken(
        "a batch that was consumed before an abort is kept",
        pipeline.runtime.group_run.GroupRun._stop_reading,
        "            self.source.unassign(self._places[number].values())\n",
        "            kept, assign, names = dict(task.positions), self.source.assign, self._names\n"
        "            self.source.unassign(self._places[number].values())\n"
        "            self.source.assign = lambda places: assign({tp: kept[names[tp]] for tp in places})\n",
        "tests/runtime/commit/test_doubtful_commits.py fence_in_the_middle",
    ),
    Broken(
        "what a dropped task has written is kept",
        pipeline.runtime.task.task.Task.__init__,
        "        self._overlay = TaskOverlay()\n",
        '        self._overlay = vars(environment.cluster).setdefault("kept", TaskOverlay())\n',
        "tests/runtime/commit/test_doubtful_commits.py fence_in_the_middle",
    ),
    Broken(
        "a record that the client had no room for is taken for sent",
        pipeline.kafka.producer.KafkaTransactionalProducer.send,
        "                    self._send_when_there_is_room(output)\n",
        "                    pass\n",
        "tests/contracts/test_short_counts.py finds_the_queue_full",
    ),
    Broken(
        "a flush that leaves records behind is taken for success",
        pipeline.kafka.producer.KafkaTransactionalProducer.flush,
        "        if left or delivered != self._chunks:\n",
        "        if False:\n",
        "tests/contracts/test_short_counts.py leaves_records_behind",
    ),
    Broken(
        "a later position reaches a sealed commit",
        pipeline.runtime.task.task.Task._seal,
        "            dict(self._positions),\n            delta,\n",
        "            self._positions,\n            delta,\n",
        "tests/runtime/task/test_task.py after_the_seal",
    ),
    Broken(
        "a later output reaches a sealed commit",
        pipeline.runtime.task.task.Task._seal,
        "outputs = self.context.take_outputs()",
        "outputs = self.context.outputs",
        "tests/runtime/task/test_task.py after_the_seal",
    ),
    Broken(
        "a row that is read ahead misses a sealed write",
        pipeline.api.table.TaskTable._load,
        "                if slot[FULL_KEY] in self._overlay.sealed:\n",
        "                if False:\n",
        "tests/runtime/task/test_prefetch.py newest_value",
    ),
    Broken(
        "a later write reaches a sealed commit",
        pipeline.api.table.TaskTable.__setitem__,
        "        slot[VALUE] = decoded if self._fresh is None else data\n        slot[DATA] = data\n",
        "        slot[VALUE] = decoded if self._fresh is None else data\n"
        "        slot[DATA] = data\n"
        "        if slot[FULL_KEY] in self._overlay.sealed:\n"
        "            self._overlay.sealed[slot[FULL_KEY]] = data\n",
        "tests/api/test_table.py sealed_overlay",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
