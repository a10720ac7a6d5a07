"""Broken on purpose: dedup tables: ids, their clock and their expiries."""

from __future__ import annotations

import pytest

import pipeline.core.dedup
import pipeline.runtime.task.dedup
import pipeline.runtime.task.partition
import pipeline.runtime.task.processor
import pipeline.runtime.task.task
from tests.support.breaking import Broken, Copy, name_of

DEDUP = "tests/runtime/task/test_dedup.py"
DEDUP_TABLE = "tests/runtime/task/test_dedup_table.py"

ROWS = [
    Broken(
        "ids are no part of the commit of their records",
        pipeline.runtime.task.partition.Partition.take_writes,
        "            writes.update(ids.take_writes())\n",
        "            ids.take_writes()\n",
        f"{DEDUP} across_a_crash",
    ),
    Broken(
        "the id of a rejected record is remembered",
        pipeline.runtime.task.processor.Processor._run_records,
        "                    self._seen.disown()\n",
        "                    pass\n",
        f"{DEDUP} leaves_no_id_behind",
    ),
    Broken(
        "a duplicate of what is being committed passes",
        pipeline.runtime.task.dedup.DedupTable._found,
        "        if sealed := self._overlay.sealed:\n",
        "        if sealed := {}:\n",
        f"{DEDUP} commit_is_under_way",
    ),
    Broken(
        "an id that came again goes with its old expiry",
        pipeline.core.dedup.forgotten,
        "        if seen is not None and is_over(clock_ms, unpack_clock(seen), ttl_ms):\n",
        "        if seen is not None:\n",
        f"{DEDUP_TABLE} never_forgets",
    ),
    Broken(
        "that ids came again after their time is not committed",
        pipeline.runtime.task.dedup.DedupTable.take_writes,
        "pack_state(self._clock_ms, self._again_ms)",
        "pack_state(self._clock_ms, -1)",
        f"{DEDUP_TABLE} never_forgets",
    ),
    Broken(
        "the clock of a dedup table is not committed",
        pipeline.runtime.task.dedup.DedupTable.take_writes,
        "        writes[clock_key(self._topic.name, self._rows)] = pack_state(self._clock_ms, self._again_ms)\n",
        "",
        f"{DEDUP} turn_the_clock_back",
    ),
    Broken(
        "the clock of a dedup table follows a timestamp from the far future",
        pipeline.core.dedup.advance,
        "wall_ms if timestamp_ms < 0 else min(timestamp_ms, wall_ms)",
        "wall_ms if timestamp_ms < 0 else timestamp_ms",
        f"{DEDUP} far_future",
    ),
    Broken(
        "one expiry takes the place of another",
        pipeline.core.dedup.expiries,
        "        yield prefix + part[-1][1] + digests[-1],",
        "        yield prefix + part[-1][1] + digests[0],",
        f"{DEDUP_TABLE} gone_after",
    ),
    Broken(
        "the look for expiries begins behind some of them",
        pipeline.runtime.task.dedup.DedupTable._forget,
        "unpack_clock(next(iter(self._open.values()))) if self._open else self._clock_ms",
        "self._clock_ms",
        f"{DEDUP_TABLE} gone_after",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
