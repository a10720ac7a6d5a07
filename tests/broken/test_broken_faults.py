"""Broken on purpose: what Kafka, its topics and its clients do to a worker that looks away."""

from __future__ import annotations

import pytest

import pipeline.api.context
import pipeline.config.loading
import pipeline.config.sources
import pipeline.core.envelope
import pipeline.core.journal_format
import pipeline.core.recovery
import pipeline.kafka.admin
import pipeline.kafka.reachable
import pipeline.ops.apps
import pipeline.processes.system
import pipeline.runtime.commit.admin_entry
import pipeline.runtime.commit.commit_protocol
import pipeline.runtime.commit.journal_reader
import pipeline.runtime.journal_backend
import pipeline.runtime.plan
import pipeline.runtime.reset
import pipeline.runtime.restore.genesis
import pipeline.runtime.restore.restore
import pipeline.runtime.task.processor
import pipeline.runtime.task.refused_outputs
import pipeline.runtime.task.task
import pipeline.transactions.outcomes
from tests.support.breaking import Broken, Copy, name_of

WORKER = "tests/runtime/test_worker.py"
GONE = "tests/runtime/test_topics_gone.py"
JOURNAL = "tests/core/test_journal_format.py"
REFUSED = "tests/runtime/task/test_refused_outputs.py"
DESCRIPTORS = "tests/processes/test_descriptors.py"
REACHABLE = "tests/cli/test_reachable.py"

ROWS = [
    Broken(
        "a group is forgotten under its workers",
        pipeline.ops.apps.traces_of,
        "    if members:\n",
        "    if False:\n",
        "tests/ops/test_forgetting.py under_its_workers",
    ),
    Broken(
        "a forgotten group keeps the positions by which a lost journal is known",
        pipeline.ops.apps.forget_group,
        "    cluster.forget(group.consumer_group)\n",
        "",
        "tests/ops/test_forgetting.py from_the_beginning",
    ),
    Broken(
        "the soft limit on open files is left as it is",
        pipeline.processes.system.raise_limit,
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))\n",
        "",
        f"{DESCRIPTORS} soft_limit_is_raised",
    ),
    Broken(
        "a worker starts that may not open the files of its tasks",
        pipeline.processes.system.require_descriptors,
        "    if needed <= limit:\n",
        "    if True:\n",
        f"{DESCRIPTORS} too_low",
    ),
    Broken(
        "connections to brokers are left out of the count of files",
        pipeline.processes.system,
        "_PER_BROKER = 3\n",
        "_PER_BROKER = 0\n",
        f"{DESCRIPTORS} covers_what_was_measured",
    ),
    Broken(
        "a start ends at once where Kafka comes a little later",
        pipeline.kafka.reachable.wait_for_answer,
        "            if deadline.has_passed() or wait.should_stop():\n",
        "            if True:\n",
        f"{REACHABLE} comes_in_time",
    ),
    Broken(
        "a start that waits for Kafka does not hear that it is to end",
        pipeline.kafka.reachable.wait_for_answer,
        " or wait.should_stop():\n",
        ":\n",
        f"{REACHABLE} ends_with_its_time_or_with_the_program",
    ),
    Broken(
        "what nothing answers behind an open port passes for a Kafka",
        pipeline.kafka.admin.AdminRequests._check_reachable,
        "        if self._wait_at_start.seconds > 0:\n",
        "        if False:\n",
        f"{REACHABLE} is_silent",
    ),
    Broken(
        "a variable that nothing reads is ignored",
        pipeline.config.loading.load_settings_over,
        "    refuse_unknown_variables(environ, _variables(environ))\n",
        "",
        "tests/test_config.py misspelt_variable",
    ),
    Broken(
        "a quoted number passes for a number",
        pipeline.config.sources.checked,
        "    return _converted(kind, name, value, strict=True)\n",
        "    return _converted(kind, name, value, strict=False)\n",
        "tests/test_config.py quoted_number",
    ),
    Broken(
        "the constraints of settings hold only for files and variables",
        pipeline.config.WorkerSettings.__post_init__,
        '        check_fields(self, "worker")\n',
        "",
        "tests/test_config.py settings_of_a_program",
    ),
    Broken(
        "no renewal after an abort",
        pipeline.transactions.outcomes.commit_until_settled,
        "        settled = _renew(policy, attempts)  # 4\n",
        "        settled = _renew(policy, attempts) if isinstance(failure, UnknownOutcomeError) else None\n"
        "        engine._fence_due = False\n",
        "tests/runtime/commit/test_commit_protocol.py every_abort",
    ),
    Broken(
        "a refused commit is published again",
        pipeline.runtime.commit.commit_protocol._Publication.not_committed,
        "        if isinstance(error, RefusedError):\n",
        "        if False:\n",
        f"{REFUSED} found_and_gets_its_policy",
    ),
    Broken(
        "a refused commit is given up before it is known that it has not happened",
        pipeline.transactions.outcomes.commit_until_settled,
        "        settled = _renew(policy, attempts)  # 4\n",
        "        settled = _renew(policy, attempts if type(failure) is AbortableError else ())\n",
        "tests/runtime/commit/test_commit_protocol.py refused",
    ),
    Broken(
        "commits do not get smaller when one is refused",
        pipeline.runtime.task.refused_outputs.RefusalSearch.refused,
        "            self.limit = max(1, min(count, self.limit) // 2)\n",
        "            self.limit = count\n",
        "tests/runtime/task/test_refusal_search.py exactly_the_guilty",
    ),
    Broken(
        "a search for a refused record outlives a reset",
        pipeline.runtime.task.refused_outputs.RefusalSearch.begin,
        "        if _below(positions, self._at):\n",
        "        if False:\n",
        "tests/runtime/task/test_refusal_search.py reset",
    ),
    Broken(
        "the search continues when a dead letter is refused",
        pipeline.runtime.task.refused_outputs.RefusalSearch.refused,
        "        if place in self._guilty:\n",
        "        if False:\n",
        "tests/runtime/task/test_refusal_search.py refused_again",
    ),
    Broken(
        "the records of a refused commit are searched with the settings of the start",
        pipeline.runtime.journal_backend.JournalBackend.begin_restore,
        "            if refused:\n                self._update_limits()\n",
        "",
        f"{REFUSED} told_where_it_is_sent",
    ),
    Broken(
        "a guilty record is given to its handlers again",
        pipeline.runtime.task.task.Task._handle,
        "            if refused is not None:\n",
        "            if False:\n",
        f"{REFUSED} under_stop",
    ),
    Broken(
        "an output of another time is sent",
        pipeline.api.context.Context.send,
        "        if timestamp_ms > accepted.surely_ms:\n",
        "        if False:\n",
        f"{REFUSED} told_where_it_is_sent",
    ),
    Broken(
        "an output without a key is sent to a compacted topic",
        pipeline.api.context.Context.send,
        "        if key_data is None and accepted.compacted:\n",
        "        if False:\n",
        f"{REFUSED} told_where_it_is_sent",
    ),
    Broken(
        "a record that raises keeps what it sent",
        pipeline.runtime.task.processor.Processor._take_back,
        "        del self._context.outputs[mark:]\n",
        "",
        "tests/runtime/task/test_processor.py taken_back_from_all",
    ),
    Broken(
        "where to begin is resolved at each start",
        pipeline.runtime.restore.restore._Restore._begun,
        "            if name not in applied.positions or acquired.inputs[place.topic].replaced\n",
        "",
        f"{WORKER} latest_is_resolved_once",
    ),
    Broken(
        "the end for committed readers passes for the journal's end",
        pipeline.runtime.commit.journal_reader.settled_end,
        "            if bounds.stable_end >= bounds.end:\n                return bounds.end\n",
        "            if True:\n                return bounds.stable_end\n",
        "tests/runtime/commit/test_journal_end.py",
    ),
    Broken(
        "a transaction that hangs is not fenced once more",
        pipeline.runtime.commit.journal_reader.settled_end,
        "        if attempt == 0:\n            fence()\n",
        "",
        "tests/runtime/commit/test_journal_end.py fenced_once_more",
    ),
    Broken(
        "the checksum of a chunk is ignored",
        pipeline.core.envelope.BinaryEnvelope.open,
        "        if data[start + 1 + self.fields : self.header_size] != "
        "self.checksum.of(self.covered(fields), body):\n",
        "        if False:\n",
        f"{JOURNAL} every_byte",
    ),
    Broken(
        "an entry that ends in the middle is left out",
        pipeline.core.journal_format.assemble,
        "    if current is not None:\n        raise _bad(where, last_offset",
        "    if False:\n        raise _bad(where, last_offset",
        f"{JOURNAL} last_chunk_is_missing",
    ),
    Broken(
        "a chunk of another entry is taken for the next one",
        pipeline.core.journal_format.assemble,
        "        elif current != belongs_to or index != len(parts) or offset != last_offset + 1:\n",
        "        elif False:\n",
        f"{JOURNAL} apart_from",
    ),
    Broken(
        "an input that gets partitions under a running worker goes unnoticed",
        pipeline.runtime.plan.inputs_changed,
        "        if current.partitions != facts.partitions:\n            return TopicChange(\n",
        "        if False:\n            return TopicChange(\n",
        f"{GONE} gets_partitions",
    ),
    Broken(
        "an input that got partitions between two starts goes unnoticed",
        pipeline.core.recovery.check_identity,
        "        if current.partitions != facts.partitions:\n",
        "        if False:\n",
        "tests/core/test_identity.py other_ground",
    ),
    Broken(
        "an output that gets partitions under a running worker goes unnoticed",
        pipeline.runtime.plan.outputs_changed,
        "        if before is not None and current is not None and current.partitions != before:\n",
        "        if False:\n",
        f"{GONE} gets_partitions",
    ),
    Broken(
        "an output that is deleted under a running worker goes unnoticed",
        pipeline.runtime.plan.outputs_changed,
        "        if before is not None and current is None:\n",
        "        if False:\n",
        f"{GONE} output_topic_that_is_deleted",
    ),
    Broken(
        "a journal that is deleted under a running worker goes unnoticed",
        pipeline.runtime.plan.journal_changed,
        "    if not before or (current is not None and current.topic_id == before):\n",
        "    if True:\n",
        f"{GONE} journal_that_is_deleted",
    ),
    Broken(
        "a journal that is deleted before the first check goes unnoticed",
        pipeline.runtime.journal_backend.JournalBackend.begin,
        "        self._journal_id = journal.topic_id\n",
        "",
        f"{GONE} journal_that_is_deleted",
    ),
    Broken(
        "a journal with another retention is accepted",
        pipeline.runtime.restore.genesis._check_journal,
        "        if actual != wanted:\n",
        "        if False:\n",
        "tests/runtime/test_refused_starts.py another_retention",
    ),
    Broken(
        "another cluster is taken for the one that the task belongs to",
        pipeline.core.recovery.check_identity,
        "    if before.cluster_id != now.cluster_id:\n",
        "    if False:\n",
        "tests/core/test_identity.py other_ground",
    ),
    Broken(
        "a changed schema is read as the old one",
        pipeline.core.recovery._check_tables,
        "        if now[table] == fingerprint:\n            continue\n",
        "        if True:\n            continue\n",
        "tests/runtime/test_refused_starts.py changed_table_schema",
    ),
    Broken(
        "a table that is gone is forgotten",
        pipeline.core.recovery._check_tables,
        "        if table not in now:\n            raise ConfigError(",
        "        if table not in now:\n            continue\n            raise ConfigError(",
        "tests/core/test_identity.py other_ground",
    ),
    Broken(
        "each task of a group begins in a transaction of its own",
        pipeline.runtime.restore.genesis._Genesis.transact,
        "                    engine.append(task.journal, chunks)\n",
        "                    engine.append(task.journal, chunks)\n"
        "                    engine.flush()\n"
        "                    engine.commit()\n"
        "                    engine.begin()\n",
        "tests/runtime/restore/test_genesis.py every_task_or_for_none",
    ),
    Broken(
        "what another first start has written meanwhile is not looked at",
        pipeline.runtime.restore.genesis._Genesis.settle,
        "        if _plan(self._where, tasks, environment, ends, known) is GenesisPlan.PRESENT:  # 4\n"
        "            return True\n",
        "",
        "tests/runtime/restore/test_genesis.py just_before_its_fence",
    ),
    Broken(
        "a reset does not fence the owner of the task",
        pipeline.runtime.commit.admin_entry.append_entry,
        "                publisher.fence()  # 1\n",
        "                publisher._fence.engine._id = f'reset-{task.transactional_id}'\n"
        "                publisher.fence()\n",
        "tests/runtime/test_reset.py",
    ),
    Broken(
        "a reset counts from positions in a topic that no longer exists",
        pipeline.runtime.reset._entered,
        "            same = was.topic_id == now.topic_id\n",
        "            same = True\n",
        "tests/runtime/test_reset.py old_topic",
    ),
    Broken(
        "a reset is planned from a place that the input does not hold",
        pipeline.runtime.reset._input_resets,
        "        if not first <= chosen <= end:\n",
        "        if False:\n",
        "tests/runtime/test_reset.py place_that_is_none",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever happens to Kafka would be worth nothing."""
    copied.assert_noticed(broken)
