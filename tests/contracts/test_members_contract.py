"""Members of a group, and what they tell each other: on the fake and on the real thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient

from pipeline.core.names import TopicPartition
from pipeline.ports import Members
from tests.contracts.conftest import World, wait_until


@contextmanager
def joined(world: World, topic: str, client_id: str) -> Iterator[Members]:
    """A member that makes progress, until it leaves."""
    turns = count()
    members = world.members()
    members.join(f"{world.prefix}.workers", topic, client_id, lambda: next(turns))
    try:
        yield members
    finally:
        members.leave()


def listed(world: World, *client_ids: str) -> Callable[[], bool]:
    return lambda: sorted(world.cluster.member_ids(f"{world.prefix}.workers")) == sorted(client_ids)


def test_a_group_without_joins_has_no_members(world: World) -> None:
    """The first worker of an app asks, too."""
    wait_until(listed(world), "an empty group")


def test_members_are_listed_until_they_leave(world: World) -> None:
    """Each says who it is by its client id, and a clean stop is seen at once."""
    topic = world.topic("workers")
    with joined(world, topic, "pipeline/1/a/1-x/1/p"):
        wait_until(listed(world, "pipeline/1/a/1-x/1/p"), "one member")
        with joined(world, topic, "pipeline/1/b/2-y/1/p"):
            wait_until(listed(world, "pipeline/1/a/1-x/1/p", "pipeline/1/b/2-y/1/p"), "two members")
        wait_until(listed(world, "pipeline/1/a/1-x/1/p"), "one member again")
    wait_until(listed(world), "nobody")


def test_leaving_without_having_joined_is_nothing(world: World) -> None:
    """A worker that fails while it starts closes what it never opened."""
    world.members().leave()


def test_notes_are_read_by_everybody_in_order(world: World) -> None:
    """They are no part of any transaction, so no open one keeps them back."""
    topic = world.topic("workers", cleanup_policy="compact")
    members = world.members()
    members.announce(topic, [(b"owner/main/0", b"one"), (b"owner/main/1", b"two")])
    members.announce(topic, [(b"owner/main/0", b"three")])
    found = world.chunks(TopicPartition(topic, 0))
    assert [value for _, value in found] == [b"one", b"two", b"three"]


@pytest.mark.kafka
def test_every_rebalance_comes_to_its_end(unique_name: str, kafka_world: World, real_servers: str) -> None:
    """A member that never answers one is thrown out half a minute later, and with it everybody, in turn."""
    topic, group = kafka_world.topic("workers"), f"{kafka_world.prefix}.workers"
    admin = AdminClient({"bootstrap.servers": real_servers})

    def stable(members: int) -> bool:
        found = admin.describe_consumer_groups([group])[group].result()
        return found.state is ConsumerGroupState.STABLE and len(found.members) == members

    with joined(kafka_world, topic, "a"):
        wait_until(lambda: stable(1), "a group of one")
        with joined(kafka_world, topic, "b"), joined(kafka_world, topic, "c"):
            wait_until(lambda: stable(3), "a group of three")
        wait_until(lambda: stable(1), "a group of one again")
