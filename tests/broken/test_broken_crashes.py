"""Broken on purpose: how a record is found that crashes its process, and what outlives a process."""

from __future__ import annotations

import pytest

import pipeline.cli.main
import pipeline.core.crashes
import pipeline.forks
import pipeline.runtime.assignment.ownership
import pipeline.runtime.commit.commit_protocol
import pipeline.runtime.crashes
import pipeline.runtime.task.record_errors
import pipeline.runtime.task.task
import pipeline.runtime.worker
from tests.support.breaking import Broken, Copy, name_of

CRASHES = "tests/runtime/task/test_native_crashes.py"

ROWS = [
    Broken(
        "a process that was killed counts as one that crashed",
        pipeline.core.crashes.read_trace,
        "    if reason is None:\n        return None\n",
        '    if reason is None:\n        return CrashTrace("killed", None, "")\n',
        f"{CRASHES} kills_never",
    ),
    Broken(
        "a crash of a foreign thread skips the record",
        pipeline.core.crashes.conduct,
        "    return Conduct.APPLY_POLICY if suspect.proven else Conduct.STOP\n",
        "    return Conduct.APPLY_POLICY\n",
        f"{CRASHES} foreign_thread",
    ),
    Broken(
        "two crashes condemn a record",
        pipeline.core.crashes.conduct,
        "    if suspect.crashes == CAUTIOUS_AFTER or suspect.span",
        "    if suspect.span",
        "tests/core/test_crashes.py treated",
    ),
    Broken(
        "a suspicion replaces the one before",
        pipeline.core.crashes.judge,
        "    return [*kept, Suspect(crash.span, 1, crash.here)]\n",
        "    return [Suspect(crash.span, 1, crash.here)]\n",
        f"{CRASHES} both_found",
    ),
    Broken(
        "suspected records are handled together",
        pipeline.runtime.crashes.InputCrashes.parts,
        "            normal = conduct(suspect_at(suspects, record.offset())) is Conduct.NORMAL\n",
        "            normal = True\n",
        f"{CRASHES} fourth_start",
    ),
    Broken(
        "the end of a process is counted at each start",
        pipeline.runtime.crashes.Crashes._record_ending,
        "            self._counted = ending.process\n",
        "",
        f"{CRASHES} counts_a_crash_once",
    ),
    Broken(
        "a suspicion ends before the commit",
        pipeline.runtime.worker.Worker._advance,
        "task.crashes.passed(task.applied.positions)",
        "task.crashes.passed(task.positions)",
        f"{CRASHES} committed",
    ),
    Broken(
        "what is suspected is told when the records have been handled",
        pipeline.runtime.assignment.ownership.Ownership.suspect,
        "            if suspected.suspects:\n                self._watch.write_notes()\n",
        "",
        f"{CRASHES} takes_only_its_last",
    ),
    Broken(
        "what another worker has found is not heard",
        pipeline.runtime.crashes.Crashes.of,
        "            self._merge(own, others.suspected(partition))\n",
        "            self._found = None\n",
        f"{CRASHES} continues_the_count",
    ),
    Broken(
        "a record that crashes is retried",
        pipeline.runtime.task.record_errors.RecordErrors.retry,
        "isinstance(error, UnreadableHeadersError | NativeCrash | RefusedOutputError)",
        "isinstance(error, UnreadableHeadersError | RefusedOutputError)",
        f"{CRASHES} fix_passes",
    ),
    Broken(
        "a record that stops its task is never tried again",
        pipeline.runtime.task.task.Task._handle_cautiously,
        "                self.crashes.try_again(name, part[0])\n",
        "",
        f"{CRASHES} fix_passes",
    ),
    Broken(
        "a forked child keeps the state directory locked",
        pipeline.forks._forked,
        "        held.close()\n",
        "        held.fd = -1\n",
        "tests/rocksdb/test_forks.py",
    ),
    Broken(
        "a stopping worker gives up at the first refusal",
        pipeline.runtime.commit.commit_protocol._Publication.not_committed,
        "        if self._failed_while_stopping > 1:\n",
        "        if self._failed_while_stopping > 0:\n",
        "tests/runtime/commit/test_commit_protocol.py publishes_a_refused",
    ),
    Broken(
        "a command that leaves threads behind ends with 0",
        pipeline.cli.main._end,
        "    os._exit(code)\n",
        "    os._exit(0)\n",
        "tests/cli/test_ending.py",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
