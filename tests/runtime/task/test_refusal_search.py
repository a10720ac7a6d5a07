"""The search for the record that Kafka refuses, on its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.names import TopicPartition
from pipeline.errors import FatalTaskError, RefusedError
from pipeline.ports import Output, Record
from pipeline.runtime.task.refused_outputs import RefusalSearch, Sealed
from pipeline.testing.memory_log import MemoryRecord

CONFIGURED = 1000
ERROR = RefusedError("refused", topic="out")


def _records(start: int, end: int) -> list[Record]:
    return [MemoryRecord(TopicPartition("in", 0), n, Output("in", b"k", b"v", 1)) for n in range(start, end)]


@given(st.integers(1, 300), st.sets(st.integers(0, 299)), st.integers(1, 50))
def test_the_search_finds_exactly_the_guilty_records(count: int, guilty: set[int], polled: int) -> None:
    """Each other record is in a commit that happened, and the number of refusals is bounded."""
    guilty = {each for each in guilty if each < count}
    narrowing = RefusalSearch(CONFIGURED)
    position, refusals, found = 0, 0, set()
    while position < count:
        sealed: list[Record] = []
        for at in range(position, count, polled):
            for part in narrowing.slices(_records(at, min(at + polled, count))):
                if len(sealed) < narrowing.limit:
                    sealed.extend(part)
        condemned = {
            run[0].offset() for run, why in narrowing.runs("in", sealed) if why is not None and len(run) == 1
        }
        after = {"in": sealed[-1].offset() + 1, "idle": 7}
        if any(record.offset() in guilty - condemned for record in sealed):
            refusals += 1
            assert refusals <= 10 * len(guilty)
            narrowing.refused("task", ERROR, Sealed(after, len(sealed), ("in", sealed[-1].offset())))
        else:
            found |= condemned
            position = after["in"]
            narrowing.committed(after)
    assert found == guilty
    assert (narrowing.active, narrowing.limit) == (False, CONFIGURED)


def test_a_refused_commit_without_records_stops_the_task() -> None:
    """There is no record whose policy could be applied."""
    with pytest.raises(FatalTaskError, match="task shop/main/0: refused"):
        RefusalSearch(CONFIGURED).refused("shop/main/0", ERROR, Sealed({"in": 5}))


def test_a_guilty_record_whose_commit_is_refused_again_stops_the_task() -> None:
    """Its dead letter is refused as well: looking further would never end."""
    narrowing = RefusalSearch(CONFIGURED)
    # The position of another input may move with it: past what is no record.
    narrowing.refused("shop/main/0", ERROR, Sealed({"in": 6, "idle": 9}, 1, ("in", 5)))
    with pytest.raises(
        FatalTaskError, match="in offset 5 can neither be processed nor become a dead letter: refused"
    ):
        narrowing.refused("shop/main/0", ERROR, Sealed({"in": 6, "idle": 9}, 1, ("in", 5)))


def test_records_are_not_looked_at_while_nothing_was_refused() -> None:
    """The path of every batch: it stays one run, and commits are as large as configured."""
    narrowing = RefusalSearch(CONFIGURED)
    narrowing.committed({"in": 5})
    records = _records(0, 10)
    assert [(run, why) for run, why in narrowing.runs("in", records)] == [(records, None)]
    assert (narrowing.active, narrowing.limit) == (False, CONFIGURED)


def test_a_reset_ends_the_search() -> None:
    """Else every record up to the guilty one, perhaps millions, would be a commit of its own."""
    narrowing = RefusalSearch(CONFIGURED)
    narrowing.begin({"in": 5})
    narrowing.refused("shop/main/0", ERROR, Sealed({"in": 6}, 1, ("in", 5)))
    narrowing.begin({"in": 5})
    assert (narrowing.active, narrowing.limit) == (True, 1)
    narrowing.begin({"in": 0})
    assert (narrowing.active, narrowing.limit) == (False, CONFIGURED)
    assert [why for _, why in narrowing.runs("in", _records(0, 6))] == [None]
