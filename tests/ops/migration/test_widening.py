"""From which time a record of a topic with more partitions is: every row of the table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.records import partition_of
from pipeline.ops.migration.copy_order import Era, era_of

KEYS = [b"key-%d" % number for number in range(100)]
MOVED = next(key for key in KEYS if partition_of(key, 2) != partition_of(key, 3))
STAYED = next(key for key in KEYS if partition_of(key, 2) == partition_of(key, 3))


@pytest.mark.parametrize(
    ("key", "partition", "before", "era"),
    [
        pytest.param(MOVED, 0, 3, Era.BEFORE, id="1: the count is what it was"),
        pytest.param(MOVED, 1, 3, Era.BEFORE, id="1: and somebody else placed it"),
        pytest.param(None, 2, 2, Era.BEFORE, id="2"),
        pytest.param(MOVED, partition_of(MOVED, 2), 2, Era.BEFORE, id="3: moved since"),
        pytest.param(STAYED, partition_of(STAYED, 2), 2, Era.BEFORE, id="3: not moved"),
        pytest.param(MOVED, partition_of(MOVED, 3), 2, Era.AFTER, id="4"),
        pytest.param(STAYED, (partition_of(STAYED, 3) + 1) % 3, 2, Era.UNKNOWN, id="5"),
    ],
)
def test_the_era_of_a_record(key: bytes | None, partition: int, before: int, era: Era) -> None:
    """Copied in the wrong pass, a record overtakes one of its own key."""
    assert era_of(key, partition, before, 3) is era


@given(key=st.binary(max_size=8), before=st.integers(1, 9), more=st.integers(0, 9))
def test_a_key_is_in_one_partition_in_each_era(key: bytes, before: int, more: int) -> None:
    """So order within partitions is order per key, once the eras are in order."""
    now = before + more
    eras = {number: era_of(key, number, before, now) for number in range(now)}
    if before == now:
        return
    assert list(eras.values()).count(Era.BEFORE) == 1
    assert list(eras.values()).count(Era.AFTER) == (partition_of(key, before) != partition_of(key, now))
