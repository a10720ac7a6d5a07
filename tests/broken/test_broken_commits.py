"""Broken on purpose: the commit protocol, its fence and its sealed overlays."""

from __future__ import annotations

import pytest

from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "apply before the commit",
        "runtime/commit/publisher.py",
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
        "tests/runtime/test_worker.py crash_at_each_commit_step",
    ),
    Broken(
        "no renewal after a doubtful commit: do it again",
        "transactions/outcomes.py",
        "        settled = _renew(policy, attempts)  # 4\n",
        "        settled = _renew(policy, attempts) if isinstance(failure, AbortableError) else policy.fence()\n",
        "tests/runtime/commit/test_doubtful_commits.py unknown_outcome",
    ),
    Broken(
        "no renewal after a doubtful commit: take it for done",
        "core/recovery.py",
        "    if len(found) == 1:\n        return CommitOutcome.ABORTED, head\n",
        "    if len(found) == 1:\n        return CommitOutcome.COMMITTED, head\n",
        "tests/runtime/commit/test_doubtful_commits.py unknown_outcome",
    ),
    Broken(
        "the nonce is ignored",
        "core/recovery.py",
        "found[1].entry.nonce in nonces",
        "nonces",
        "tests/runtime/commit/test_doubtful_commits.py in_between",
    ),
    Broken(
        "the journal's new entries are ignored after a renewal",
        "core/recovery.py",
        "    return CommitOutcome.SUPERSEDED, found[-1]\n",
        "    return CommitOutcome.ABORTED, head\n",
        "tests/runtime/commit/test_doubtful_commits.py between_a_doubtful",
    ),
    Broken(
        "the low offset of an entry after a lost tail is ignored",
        "runtime/commit/journal_writer.py",
        "        if offset <= head.next_offset:",
        "        if False:",
        "tests/runtime/restore/test_journal_loss.py under_a_running_worker_stops",
    ),
    Broken(
        "a slow commit does not renew the producer",
        "transactions/engine.py",
        "RENEW_SHARE = 0.7",
        "RENEW_SHARE = 1e9",
        "tests/runtime/commit/test_publisher.py silent_retry",
    ),
    Broken(
        "a transaction begins without the fence that is due",
        "transactions/engine.py",
        "        if self._fence_due:\n",
        "        if False:\n",
        "tests/transactions/test_engine.py after_a_failure",
    ),
    Broken(
        "a slow abort of a barrier is taken for a clean end",
        "transactions/engine.py",
        "        self._fence_due = self._end(producer.abort, None) >= self._slow_s\n",
        "        self._end(producer.abort, None)\n        self._fence_due = False\n",
        "tests/transactions/test_engine.py slow_barrier",
    ),
    Broken(
        "a renewal looks for the last attempt only",
        "transactions/outcomes.py",
        "        settled = _renew(policy, attempts)  # 4\n",
        "        settled = _renew(policy, attempts[-1:])\n",
        "tests/transactions/test_outcomes.py before_the_last_one",
    ),
    Broken(
        "a failed transaction is left open until the fence",
        "transactions/outcomes.py",
        "            unclean = engine.abort()  # 3\n",
        "            unclean = None\n",
        "tests/runtime/commit/test_publisher.py before_anybody_waits",
    ),
    Broken(
        "no fence: every start has a transactional id of its own",
        "runtime/commit/task_fence.py",
        "            task.transactional_id, environment.producers",
        '            f"{task.transactional_id}.{environment.random.token(4).hex()}", environment.producers',
        "tests/runtime/assignment/test_fleet.py wakes_up",
    ),
    Broken(
        "a batch that was consumed before an abort is kept",
        "runtime/group_run.py",
        "            self.source.unassign(self.plan.partitions_of(partition))\n",
        "            kept, assign = dict(task.positions), self.source.assign\n"
        "            self.source.unassign(self.plan.partitions_of(partition))\n"
        "            self.source.assign = lambda places: assign({tp: kept[tp.topic] for tp in places})\n",
        "tests/runtime/commit/test_doubtful_commits.py fence_in_the_middle",
    ),
    Broken(
        "what a dropped task has written is kept",
        "runtime/task/task.py",
        "        self._overlay = TaskOverlay()\n",
        '        self._overlay = vars(environment.cluster).setdefault("kept", TaskOverlay())\n',
        "tests/runtime/commit/test_doubtful_commits.py fence_in_the_middle",
    ),
    Broken(
        "a record that the client had no room for is taken for sent",
        "kafka/producer.py",
        "                    self._send_when_there_is_room(output)\n",
        "                    pass\n",
        "tests/contracts/test_short_counts.py finds_the_queue_full",
    ),
    Broken(
        "a flush that leaves records behind is taken for success",
        "kafka/producer.py",
        "        if left or delivered != self._chunks:\n",
        "        if False:\n",
        "tests/contracts/test_short_counts.py leaves_records_behind",
    ),
    Broken(
        "a later position reaches a sealed commit",
        "runtime/task/task.py",
        "            dict(self._positions),\n            delta,\n",
        "            self._positions,\n            delta,\n",
        "tests/runtime/task/test_task.py after_the_seal",
    ),
    Broken(
        "a later output reaches a sealed commit",
        "runtime/task/task.py",
        "outputs = self.context.take_outputs()",
        "outputs = self.context.outputs",
        "tests/runtime/task/test_task.py after_the_seal",
    ),
    Broken(
        "a later write reaches a sealed commit",
        "api/table.py",
        "        slot[_VALUE] = decoded if self._fresh is None else data\n        slot[_DATA] = data\n",
        "        slot[_VALUE] = decoded if self._fresh is None else data\n"
        "        slot[_DATA] = data\n"
        "        if slot[_FULL_KEY] in self._overlay.sealed:\n"
        "            self._overlay.sealed[slot[_FULL_KEY]] = data\n",
        "tests/api/test_table.py sealed_overlay",
    ),
]


@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
