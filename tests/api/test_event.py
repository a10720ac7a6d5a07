"""What a handler is given: one Event, or a Batch of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.api.event import Batch, Event, RuntimeBatch, event_type
from pipeline.core.names import TopicPartition
from pipeline.ports import Output
from pipeline.testing.memory_log import MemoryRecord


def record(offset: int = 7, *, headers: Sequence[tuple[str, bytes]] = (), topic: str = "in") -> MemoryRecord:
    output = Output(topic, b"k", b"v", 1_700_000_000_000 + offset, headers)
    return MemoryRecord(TopicPartition(topic, 3), offset, output)


def event(message: Any) -> Event[str, int]:
    return Event("k", 1, message)


class Untimed:
    """A record as a client gives it that has no timestamp."""

    def timestamp(self) -> tuple[int, int]:
        return (0, -1)


def test_an_event_tells_where_it_comes_from() -> None:
    """Errors, effects and audits name the record."""
    made = event(record())
    assert (made.topic, made.partition, made.offset) == ("in", 3, 7)
    assert made.timestamp_ms == 1_700_000_000_007


def test_a_record_without_a_timestamp_says_so() -> None:
    """-1 is no time in 1969."""
    assert event(Untimed()).timestamp_ms == -1


def test_headers_keep_order_and_repetition() -> None:
    """Kafka allows a header twice; tracing tools use it."""
    headers = [("a", b"1"), ("b", b""), ("a", b"2")]
    assert list(event(record(headers=headers)).headers) == headers
    assert event(record()).headers == ()


def test_the_event_id_is_the_one_its_producer_gave() -> None:
    """Duplicates are recognised by it; none is made up."""
    assert event(record(headers=[("x", b"1"), ("event-id", b"42")])).id == b"42"
    assert event(record(headers=[("x", b"1")])).id is None
    assert event(record()).id is None


HANDLED = ("shop", "main", "topic-id-1")


def handled(
    message: Any, app: str = "shop", group: str = "main", topic_id: str = "topic-id-1"
) -> Event[str, int]:
    """An event as a handler of the group gets it."""
    return event_type(app, group, topic_id)("k", 1, message)


def test_an_effect_key_is_the_same_in_every_replay() -> None:
    """The payment provider refuses the second charge by it: it depends on the record's place and the group alone."""
    assert handled(record()).effect_key() == handled(record(headers=[("a", b"")])).effect_key(0)
    assert handled(record()).effect_key() == "c28079382caaa5dbbff032d10ffc3c3d"


def test_effect_keys_differ_by_record_and_by_number() -> None:
    """Two effects that shared a key would be one effect."""
    places = [handled(record()), handled(record(8)), handled(record(topic="in2"))]
    keys = [place.effect_key(n) for place in places for n in (0, 1)]
    assert len(set(keys)) == len(keys)


def test_effect_keys_differ_by_app_group_and_incarnation_of_the_topic() -> None:
    """Two groups do different things about one record; a recreated topic has other records at the same places."""
    owners = [
        handled(record()),
        handled(record(), app="shop2"),
        handled(record(), group="mail"),
        handled(record(), topic_id="topic-id-2"),
        event(record()),
    ]
    assert len({owner.effect_key() for owner in owners}) == len(owners)


def test_a_handlers_event_is_an_event_like_any_other() -> None:
    """What it knows of its group costs no record anything, and shows nowhere else."""
    made = handled(record())
    assert isinstance(made, Event)
    assert (type(made).__name__, made.key, made.value, made.offset) == ("Event", "k", 1, 7)
    assert type(made) is type(handled(record(8)))
    with pytest.raises(AttributeError):
        made.key = "other"  # type: ignore[misc]


def test_events_of_a_batch_have_the_effect_keys_of_their_records() -> None:
    """However they are reached."""
    made: Batch[str, int] = RuntimeBatch(
        [record(n) for n in range(3)], ["k"] * 3, [1] * 3, event_type(*HANDLED)
    )
    expected = [handled(record(n)).effect_key() for n in range(3)]
    assert [e.effect_key() for e in made] == expected
    assert [made[n].effect_key() for n in range(3)] == [e.effect_key() for e in made[0:3]] == expected


def test_an_event_does_not_change() -> None:
    """Several handlers of a topic are given the same one."""
    with pytest.raises(AttributeError):
        event(record()).key = "other"  # type: ignore[misc]


def test_events_can_be_kept_in_sets() -> None:
    """Two events are equal when they are the same object; values need not be hashable."""
    made: Event[str, list[int]] = Event("k", [1], record())
    other: Event[str, list[int]] = Event("k", [1], record())
    assert len({made, other, made}) == 2


# Batch


def batch(count: int) -> Batch[str, int]:
    return RuntimeBatch(
        [record(n) for n in range(count)], [f"k{n}" for n in range(count)], list(range(count))
    )


def test_a_batch_is_the_sequence_of_its_events() -> None:
    """The same handler logic must work event by event."""
    made = batch(4)
    assert len(made) == 4
    assert [(e.key, e.value, e.offset) for e in made] == [
        ("k0", 0, 0),
        ("k1", 1, 1),
        ("k2", 2, 2),
        ("k3", 3, 3),
    ]
    assert [made[n].offset for n in range(4)] == [0, 1, 2, 3]
    assert made[-1].key == "k3"
    assert [e.offset for e in reversed(made)] == [3, 2, 1, 0]


def test_columns_of_a_batch_are_aligned() -> None:
    """numpy and polars take columns."""
    made = batch(3)
    assert (list(made.keys), list(made.values)) == (["k0", "k1", "k2"], [0, 1, 2])
    assert list(made.timestamps_ms) == [e.timestamp_ms for e in made]


@pytest.mark.parametrize(
    "part", [slice(1, 3), slice(None, 2), slice(2, None), slice(None, None, 2), slice(9, 10)]
)
def test_a_slice_of_a_batch_is_a_batch(part: slice) -> None:
    """Columns are cut alike, so a handler may work in pieces."""
    made = batch(4)[part]
    expected = list(range(4))[part]
    assert isinstance(made, Batch)
    assert [e.offset for e in made] == list(made.values) == expected
    assert len(made) == len(expected)


def test_an_index_beyond_the_batch_is_an_error() -> None:
    """As with any sequence; iteration by index rests on it."""
    with pytest.raises(IndexError):
        batch(2)[2]
