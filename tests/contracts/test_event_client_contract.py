"""What a `Producer` rests on: every record that was taken is reported once, with the place where it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.core.names import TopicPartition
from pipeline.core.records import partition_of
from pipeline.errors import ConfigError, DeliveryError
from pipeline.ports import EventClient
from tests.contracts.conftest import World, drain, wait_until


@pytest.fixture
def client(world: World) -> Iterator[EventClient]:
    """A client of the world."""
    opened = world.events.open()
    yield opened
    opened.purge()
    opened.serve(0)
    opened.close()


class Reports:
    """What the client has said, in order."""

    def __init__(self, client: EventClient) -> None:
        self.client = client
        self.said: list[tuple[Any, Any]] = []

    def __call__(self, error: Any, record: Any) -> None:
        self.said.append((error, record))

    def wait(self, count: int) -> None:
        def enough() -> bool:
            self.client.serve(0.05)
            return len(self.said) >= count

        wait_until(enough, f"{count} reports")
        assert len(self.said) == count


def test_a_record_is_written_as_given_and_its_report_names_the_place(
    world: World, client: EventClient
) -> None:
    """The caller of `send` is told where its event is."""
    topic, reports = world.topic("events"), Reports(client)
    headers = [("event-id", b"1"), ("x", b"\x00")]
    assert client.enqueue(topic, b"k", b"v", 1_600_000_000_000, headers, reports)
    assert client.enqueue(topic, None, None, 1_600_000_000_001, [], reports)
    reports.wait(2)
    assert [error for error, _ in reports.said] == [None, None]
    assert [(r.partition(), r.offset(), r.timestamp()[1]) for _, r in reports.said] == [
        (0, 0, 1_600_000_000_000),
        (0, 1, 1_600_000_000_001),
    ]
    source = world.source()
    source.assign({TopicPartition(topic, 0): 0})
    first, second = drain(source, 2)
    assert (first.key(), first.value(), list(first.headers())) == (b"k", b"v", headers)
    assert (second.key(), second.value(), second.headers() or []) == (None, None, [])


def test_a_record_without_a_time_gets_the_present(world: World, client: EventClient) -> None:
    """An event happens when it is sent, unless its producer knows better."""
    topic, reports = world.topic("events"), Reports(client)
    client.enqueue(topic, b"k", b"v", 0, [], reports)
    reports.wait(1)
    assert reports.said[0][1].timestamp()[1] > 1_700_000_000_000


def test_records_of_a_partition_keep_their_order_and_keys_their_places(
    world: World, client: EventClient
) -> None:
    """A key's events must be found where tables expect them, in the order in which they were sent."""
    topic, reports = world.topic("events", partitions=5), Reports(client)
    sent = [(b"key-%d" % (n % 13), b"%d" % n) for n in range(300)]
    for key, value in sent:
        assert client.enqueue(topic, key, value, 1, [], reports)
    reports.wait(300)
    source = world.source()
    source.assign({TopicPartition(topic, number): 0 for number in range(5)})
    seen = [(r.partition(), r.key(), r.value()) for r in drain(source, 300)]
    for number in range(5):
        assert [(k, v) for p, k, v in seen if p == number] == [
            (k, v) for k, v in sent if partition_of(k, 5) == number
        ]


def test_a_record_for_a_missing_topic_is_a_mistake_to_correct(world: World, client: EventClient) -> None:
    """A mistyped name must not create a topic, and must not be retried forever."""
    reports = Reports(client)
    client.enqueue(f"{world.prefix}-missing", b"k", b"v", 1, [], reports)
    reports.wait(1)
    error, _ = reports.said[0]
    failure = client.failure(error, "event 7")
    assert isinstance(failure, ConfigError)
    assert "event 7" in failure.message
    assert "does not exist" in failure.message


def test_purged_records_are_reported_as_failed(world: World, client: EventClient) -> None:
    """`close` gives up what it could not deliver, and each event's owner is told."""
    reports = Reports(client)
    for n in range(3):
        # Held back: by the fake for good, by the real client until it knows the topic.
        client.enqueue(f"{world.prefix}-missing", b"k", b"%d" % n, 1, [], reports)
    client.purge()
    reports.wait(3)
    for error, _ in reports.said:
        assert isinstance(client.failure(error, "event 7"), ConfigError | DeliveryError)


def test_a_client_that_is_well_has_no_fatal_error(client: EventClient) -> None:
    """Senders ask before each event."""
    assert client.fatal is None
