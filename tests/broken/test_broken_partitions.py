"""Broken on purpose: tasks of several partitions: their rows, positions, resets and errors."""

from __future__ import annotations

import pytest

import pipeline.core.commit_pace
import pipeline.core.inputs
import pipeline.core.journal_format
import pipeline.rocksdb.store
import pipeline.runtime.commit.commit_rate
import pipeline.runtime.reset
import pipeline.runtime.restore.restore
import pipeline.runtime.task.task
from tests.support.breaking import Broken, Copy, name_of

COUNTS = "tests/runtime/test_task_counts.py"
PARTITIONS = "tests/runtime/test_partitions_of_a_task.py"
RESETS = "tests/runtime/test_partial_reset.py"
STORES = "tests/contracts/test_store_contract.py"
RATE = "tests/runtime/commit/test_commit_rate.py"
FORMAT = "tests/core/test_entry_body.py"

ROWS = [
    Broken(
        "a commit contains only the positions of the partitions that it has records of",
        pipeline.runtime.task.task.Task._seal,
        "EntryKind.COMMIT,\n            dict(self._positions),",
        "EntryKind.COMMIT, {name: self._positions[name] for name in self._moved},",
        f"{COUNTS} one_history",
    ),
    Broken(
        "a commit contains only the rows of the last partition",
        pipeline.runtime.task.task.Task._seal,
        "for each in self._touched.values():",
        "for each in [self._current]:",
        f"{COUNTS} one_history",
    ),
    Broken(
        "handlers see the rows of the partition before",
        pipeline.runtime.task.task.Task._use,
        "if partition is not self._current:",
        "if self._current is None:",
        f"{COUNTS} one_history",
    ),
    Broken(
        "all partitions share rows",
        pipeline.core.inputs.row_prefix,
        'partition.to_bytes(2, "big")',
        'b"\\0\\0"',
        f"{COUNTS} one_history",
    ),
    Broken(
        "records behind one that stops its partition are processed",
        pipeline.runtime.task.task.Task.offer,
        "if self._leaving or (self.stopped and self._by_name[name].number in self.stopped):",
        "if self._leaving:",
        f"{PARTITIONS} the_other_topics",
    ),
    Broken(
        "waiting records of a stopped partition are processed",
        pipeline.runtime.task.task.Task._stop,
        "        self._backlog.drop(partition.names)\n",
        "        self._hurry = True\n",
        f"{PARTITIONS} behind_one_that_stops",
    ),
    Broken(
        "a record that stops its partition stops the task",
        pipeline.runtime.task.task.Task.poison,
        "if len(self.stopped) == len(self._partitions) else None",
        "if self.stopped else None",
        f"{PARTITIONS} stops_only_its_partition",
    ),
    Broken(
        "an idle end is committed without the positions of other partitions",
        pipeline.runtime.task.task.Task.advance,
        "positions={**at, **passed}",
        "positions=passed",
        f"{PARTITIONS} idle_end_of_one",
    ),
    Broken(
        "a reset of one partition deletes no rows",
        pipeline.runtime.restore.restore.apply_entries,
        "store.clear(encode_position(applied), [row_prefix(each) for each in partitions or ()])",
        "store.apply({}, encode_position(applied))",
        f"{RESETS} only_its_partition",
    ),
    Broken(
        "a reset of one partition deletes all rows",
        pipeline.runtime.restore.restore.apply_entries,
        ", [row_prefix(each) for each in partitions or ()])",
        ")",
        f"{RESETS} only_its_partition",
    ),
    Broken(
        "a reset of one partition deletes the rows of another",
        pipeline.runtime.restore.restore.apply_entries,
        "[row_prefix(each) for each in partitions or ()]",
        "[row_prefix(each - 2) for each in partitions or ()]",
        f"{RESETS} only_its_partition",
    ),
    Broken(
        "rows that were replayed before a reset of one partition are lost",
        pipeline.runtime.restore.restore.apply_entries,
        "if partitions is not None and before is not None and writes:",
        "if False:",
        f"{RESETS} kept_in_one_replay",
    ),
    Broken(
        "rows before a reset of one partition are written with the position of the reset",
        pipeline.runtime.restore.restore.apply_entries,
        "store.apply(writes, encode_position(before))",
        "store.apply(writes, encode_position(applied))",
        f"{RESETS} crash_between",
    ),
    Broken(
        "a range of rows ends at the end of the store",
        pipeline.rocksdb.store.RocksStore.clear,
        "batch.delete_range(prefix, _after(prefix))",
        "batch.delete_range(prefix, _LAST_TABLE)",
        f"{STORES} part_of_a_store",
    ),
    Broken(
        "a reset of one partition moves the positions of all",
        pipeline.runtime.reset._reset_partition,
        "{**known, **moved}",
        "{**dict.fromkeys(known, 0), **moved}",
        f"{RESETS} only_its_partition",
    ),
    Broken(
        "a reset of one partition lets the positions of others fall",
        pipeline.core.journal_format._without_reset,
        "if ordinal_of(name) not in reset}",
        "if False}",
        f"{FORMAT} positions_of_reset",
    ),
    Broken(
        "a commit of several partitions costs one token",
        pipeline.core.commit_pace.due_cost,
        "min(cost, float(max(1, inputs)))",
        "1.0",
        f"{RATE} pays_for_those",
    ),
    Broken(
        "a commit of several partitions does not pay",
        pipeline.runtime.commit.commit_rate.CommitRate.began,
        "        self._all.take(task, extra)\n",
        "",
        f"{RATE} pays_for_those",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
