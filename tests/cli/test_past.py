"""What people type for the past: a moment, a record, a group."""

from __future__ import annotations

import pytest

from examples.flights.app import app as flights
from pipeline import App, Context, Event
from pipeline.app import declared_app
from pipeline.cli.debug import _group, _place, _task
from pipeline.cli.past import moment_of
from pipeline.core.dead_letters import Origin
from pipeline.core.names import TaskChoice, TaskId, TopicPartition
from pipeline.errors import InputError
from pipeline.ops.history.past_states import AtEntry, AtTime


def test_a_number_is_an_entry_and_needs_its_task() -> None:
    """Each task counts its own entries, so a number without a task could mean any of them."""
    assert moment_of("57", TaskChoice(0)) == AtEntry(57)
    with pytest.raises(InputError, match="each task counts its own") as error:
        moment_of("57", None)
    assert "--task N" in (error.value.hint or "")


def test_a_time_needs_its_offset_from_utc() -> None:
    """A time of unknown zone would give the state of another hour."""
    text = "2026-01-31T00:00:00Z"
    assert moment_of(text, None) == AtTime(1_769_817_600_000, text)
    with pytest.raises(InputError, match="has no time zone"):
        moment_of("2026-01-31T00:00:00", None)
    with pytest.raises(InputError, match="is not an entry or a time"):
        moment_of("yesterday", None)


def test_a_record_is_typed_as_topic_partition_and_offset() -> None:
    """Topic names contain dots and dashes, but no slash."""
    assert _place("flights.x-y/0/17") == (TopicPartition("flights.x-y", 0), 17)
    for wrong in ("flights", "flights/0", "flights/0/x", "/0/1", "flights/-1/2", "flights[0]/17"):
        with pytest.raises(InputError, match="is not TOPIC/PARTITION/OFFSET"):
            _place(wrong)


def test_a_record_can_be_copied_from_the_list_of_dead_letters() -> None:
    """The list and the command must agree on how a record is written."""
    origin = Origin("flights.x-y", 1, 8)
    assert _place(str(origin)) == (TopicPartition("flights.x-y", 1), 8)


def test_a_partition_that_does_not_exist_names_those_that_do() -> None:
    """The usual mistake is a partition of another topic, or a digit too many."""
    tasks = [TaskId("flights", "main", number) for number in range(4)]
    assert _task(tasks, TopicPartition("flights", 3), len(tasks)) == tasks[3]
    assert _task(tasks[:2], TopicPartition("flights", 3), 4) == tasks[1]
    with pytest.raises(
        InputError, match="topic flights has no partition 9 that group flights/main reads"
    ) as error:
        _task(tasks, TopicPartition("flights", 9), len(tasks))
    assert error.value.hint == "its partitions are 0 to 3"
    with pytest.raises(InputError) as error:
        _task(tasks[:1], TopicPartition("flights", 1), 1)
    assert error.value.hint == "its only partition is 0"


def test_the_group_that_reads_the_topic_is_found() -> None:
    """With two groups on one topic, the user must choose, because their states differ."""
    found = declared_app(flights)
    assert _group(found, "flights-by-tail", None).name == "tails"
    assert _group(found, "flights.tails.replays", None).name == "tails"
    with pytest.raises(InputError, match="no handler of app flights reads topic other"):
        _group(found, "other", None)
    app = App("two")
    topic = app.topic("numbers", key=str, value=int)

    def keep(event: Event[str, int], ctx: Context) -> None:
        """Does nothing."""

    app.handler(topic)(keep)
    app.group("more").handler(topic)(keep)
    with pytest.raises(InputError, match="several groups of app two read topic numbers: main, more"):
        _group(declared_app(app), "numbers", None)
    assert _group(declared_app(app), "numbers", "more").name == "more"
    with pytest.raises(InputError, match="has no group of handlers other"):
        _group(declared_app(app), "numbers", "other")
