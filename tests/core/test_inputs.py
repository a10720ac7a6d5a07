"""The inputs of a task and the keys of their rows, for any number of tasks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.entry_body import split_row
from pipeline.core.inputs import (
    MAX_PARTITIONS,
    TaskInputs,
    default_tasks,
    ordinal_of,
    packed,
    row_prefix,
    topic_of,
    unpacked,
)
from pipeline.core.names import TopicPartition
from pipeline.errors import InvariantError


@given(st.integers(1, 40), st.data())
def test_each_partition_belongs_to_exactly_one_task(partitions: int, data: st.DataObject) -> None:
    """A partition of two tasks would be processed twice; one of no task would never be processed."""
    tasks = data.draw(st.integers(1, partitions))
    read = [place for t in range(tasks) for place in TaskInputs(t, tasks).all({"in": partitions}).values()]
    assert sorted(read) == [TopicPartition("in", partition) for partition in range(partitions)]


@given(st.integers(1, 40), st.data())
def test_a_name_and_a_place_are_one_to_one(partitions: int, data: st.DataObject) -> None:
    """Positions are kept by name and used by place."""
    tasks = data.draw(st.integers(1, partitions))
    inputs = TaskInputs(data.draw(st.integers(0, tasks - 1)), tasks)
    found = inputs.all({"in": partitions, "other": partitions})
    for ordinal, partition in enumerate(inputs.partitions(partitions)):
        name = inputs.name(TopicPartition("in", partition))
        assert inputs.place(name) == found[name] == TopicPartition("in", partition)
        assert (topic_of(name), ordinal_of(name)) == ("in", ordinal)
    assert inputs.places(dict.fromkeys(found, 7)) == dict.fromkeys(found.values(), 7)


@pytest.mark.parametrize("tasks", [0, 8])
def test_a_task_with_one_partition_names_topics(tasks: int) -> None:
    """So all positions of earlier releases keep their names."""
    inputs = TaskInputs(3, tasks)
    assert inputs.all({"in": 8}) == {"in": TopicPartition("in", 3)}
    assert inputs.place("in") == TopicPartition("in", 3)


@pytest.mark.parametrize(("tasks", "partition"), [(4, 2), (4, 5), (0, 7)])
def test_a_partition_of_another_task_has_no_name(tasks: int, partition: int) -> None:
    """A wrong name would move the position of another partition."""
    with pytest.raises(InvariantError, match="does not read"):
        TaskInputs(3, tasks).name(TopicPartition("in", partition))


def test_positions_of_a_copy_keep_their_names() -> None:
    """A copy of a topic has a position for each partition and pass, which are no inputs of a task."""
    name = "old[3]/before"
    assert (topic_of(name), ordinal_of(name)) == (name, 0)
    assert TaskInputs(0, 1).place(name) == TopicPartition(name, 0)


@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 2**62), min_size=1), max_size=3))
def test_positions_are_packed_and_unpacked_unchanged(stored: dict[str, list[int]]) -> None:
    """The journal stores a list for each topic."""
    assert packed(unpacked(stored)) == stored


def test_positions_with_a_gap_are_not_written() -> None:
    """The next offset would be taken for that of another partition."""
    with pytest.raises(InvariantError, match="no position of input 'in/1'"):
        packed({"in": 1, "in/2": 3})


@given(st.integers(0, MAX_PARTITIONS - 1), st.binary(min_size=1, max_size=9))
def test_a_row_key_holds_its_partition(partition: int, key: bytes) -> None:
    """A state can be split by partition because all rows of one are a range of keys."""
    full = row_prefix(partition) + key
    assert split_row(full, 2, 0) == (partition, key)
    assert split_row(key, 1, 5) == (5, key)
    assert (
        full < row_prefix(partition + 1) if partition + 1 < MAX_PARTITIONS else full > row_prefix(partition)
    )


@pytest.mark.parametrize("partition", [-1, MAX_PARTITIONS])
def test_a_partition_beyond_two_bytes_has_no_rows(partition: int) -> None:
    """Its rows would be among those of another partition."""
    with pytest.raises(InvariantError, match="has no rows"):
        row_prefix(partition)


def test_a_new_group_has_at_most_32_tasks_by_default() -> None:
    """Threads, descriptors and memory grow with the tasks, not with the partitions."""
    assert [default_tasks(count) for count in (1, 31, 32, 33, 1000)] == [1, 31, 32, 32, 32]
