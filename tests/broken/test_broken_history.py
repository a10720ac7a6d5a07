"""Broken on purpose: what commands say about the past of an app."""

from __future__ import annotations

import pytest

import pipeline.ops.history.committed_outputs
import pipeline.ops.history.debugging
import pipeline.ops.history.past_states
import pipeline.ops.history.record_commits
import pipeline.ops.history.row_changes
import pipeline.runtime.restore.restore
from tests.support.breaking import Broken, Copy, name_of

STATES = "tests/ops/history/test_past_states.py"
ROW = "tests/ops/history/test_row_changes.py"
DEBUG = "tests/ops/history/test_debugging.py"
SEVERAL = "tests/ops/history/test_several_partitions.py"

ROWS = [
    Broken(
        "a past state contains later entries",
        pipeline.ops.history.past_states._up_to,
        "        if not at.contains(entry.entry.seq, entry.entry.wall_ms):\n            return\n",
        "",
        f"{STATES} before_the_next_commit",
    ),
    Broken(
        "a past state starts from a later checkpoint",
        pipeline.ops.history.past_states._start,
        "if found.found is None or not at.contains(found.ref.seq, found.found.entry.wall_ms):",
        "if found.found is None:",
        f"{STATES} equals_a_fold",
    ),
    Broken(
        "a state that is too old is replaced by the oldest",
        pipeline.ops.history.past_states._restore,
        "    if not at.contains(oldest.entry.seq, oldest.entry.wall_ms):\n",
        "    if False:\n",
        f"{STATES} names_the_oldest",
    ),
    Broken(
        "the newest state passes for an entry that does not exist yet",
        pipeline.ops.history.past_states._restore,
        "        if isinstance(at, AtEntry) and applied.seq < at.seq:\n",
        "        if False:\n",
        f"{STATES} does_not_exist_yet",
    ),
    Broken(
        "a hash of a state ignores its values",
        pipeline.ops.history.past_states.state_hash,
        "        digest.update(value)\n",
        "",
        f"{STATES} if_a_row_differs",
    ),
    Broken(
        "a hash of a state does not tell keys from values",
        pipeline.ops.history.past_states.state_hash,
        'digest.update(len(key).to_bytes(4, "big") + key + len(value).to_bytes(8, "big"))',
        "digest.update(key)",
        f"{STATES} if_a_row_differs",
    ),
    Broken(
        "the end of the journal is that of any broker",
        pipeline.ops.history.past_states.journal_end,
        "    return reader.highest_ends([task.journal])[task.journal]\n",
        "    return reader.bounds(task.journal).stable_end\n",
        f"{STATES} stale_leader",
    ),
    Broken(
        "a past state keeps the rows from before a reset",
        pipeline.runtime.restore.restore.apply_entries,
        "            store.clear(encode_position(applied), [row_prefix(each) for each in partitions or ()])\n",
        "            pass\n",
        f"{STATES} after_a_reset",
    ),
    Broken(
        "a reset is not in the history of a row",
        pipeline.ops.history.row_changes._after,
        "    if entry.entry.kind is EntryKind.RESET and current is not None and current.data is not None:\n",
        "    if False:\n",
        f"{ROW} reset_is_a_change",
    ),
    Broken(
        "a reset of one partition ends the rows of the others",
        pipeline.ops.history.row_changes._after,
        "if reset is None or number in reset",
        "if True",
        f"{SEVERAL} ends_only_its_rows",
    ),
    Broken(
        "a change of a row names the inputs of other partitions",
        pipeline.ops.history.row_changes.RowHistory.moved,
        "if place.partition == self.partition and name in before and after > before[name]:",
        "if name in before and after > before[name]:",
        f"{SEVERAL} a_history_of_its_own",
    ),
    Broken(
        "the rows of a record are those of another partition",
        pipeline.ops.history.debugging._Run.__init__,
        "row_prefix(of_record) if",
        "row_prefix(task.number) if",
        f"{SEVERAL} of_any_partition",
    ),
    Broken(
        "an unknown value passes for a missing row",
        pipeline.ops.history.row_changes._read,
        "known = StoredValue(None) if body.kind is EntryKind.GENESIS else None",
        "known = StoredValue(None)",
        f"{ROW} begins_with_an_unknown",
    ),
    Broken(
        "a record belongs to the commit before its own",
        pipeline.ops.history.record_commits._moves_past,
        "    return before <= offset < entry",
        "    return before < offset <= entry",
        f"{DEBUG} as_it_was_committed",
    ),
    Broken(
        "a record is run on the state after its commit",
        pipeline.ops.history.debugging.debug_record,
        "AtEntry(prepared.commit.before.entry.seq)",
        "AtEntry(prepared.commit.entry.entry.seq)",
        f"{DEBUG} as_it_was_committed",
    ),
    Broken(
        "the records before it in the commit are not run",
        pipeline.ops.history.debugging.debug_record,
        "        for record in prepared.records.before:\n            run.advance(record)\n",
        "",
        f"{DEBUG} last_record_of_a_commit",
    ),
    Broken(
        "an output with another value passes for the committed one",
        pipeline.ops.history.committed_outputs.find_output,
        "equal = record.value() == output.value and ",
        "equal = ",
        f"{DEBUG} as_it_was_committed",
    ),
    Broken(
        "the records of a commit are run although some are deleted",
        pipeline.ops.history.record_commits._read,
        "        if bounds.start > offsets.start:\n",
        "        if False:\n",
        f"{DEBUG} deleted_input",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """An operator acts on what these commands say, so a test must notice each wrong answer."""
    copied.assert_noticed(broken)
