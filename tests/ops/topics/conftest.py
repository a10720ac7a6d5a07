"""A cluster in memory, and declarations against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from pipeline.ops.topics.applying import TopicResult, carry_out, checked
from pipeline.ops.topics.cluster_state import plan_for_cluster
from pipeline.ops.topics.declarations import TopicDeclaration, parse_topic
from pipeline.ops.topics.plan import Plan, TopicPlan
from pipeline.ports import TopicInfo, TopicSpec
from pipeline.testing import MemoryBroker
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader

Declare = Callable[..., TopicDeclaration]


@dataclass
class Case:
    """A cluster, and what a plan for it says."""

    broker: MemoryBroker = field(default_factory=MemoryBroker)

    @property
    def cluster(self) -> MemoryCluster:
        return MemoryCluster(self.broker)

    def create(self, name: str, partitions: int = 4, replication: int = 0, **config: str) -> None:
        settings = {name.replace("_", "."): value for name, value in config.items()}
        self.broker.create(TopicSpec(name, partitions, replication, settings))

    def info(self, name: str = "orders") -> TopicInfo:
        found = self.broker.describe(name)
        assert found is not None
        return found

    def plan(self, *declared: TopicDeclaration, allow: str = "") -> Plan:
        allowed = frozenset(allow.split())
        return plan_for_cluster(declared, self.cluster, lambda: MemoryJournalReader(self.broker), allowed)

    def one(self, declared: TopicDeclaration, allow: str = "") -> TopicPlan:
        (planned,) = self.plan(declared, allow=allow).topics
        return planned

    def apply(self, *declared: TopicDeclaration, allow: str = "") -> list[TopicResult]:
        plan = checked(self.plan(*declared, allow=allow), self.cluster)
        return carry_out(plan, self.cluster, lambda _: None)


@pytest.fixture
def case() -> Case:
    """A cluster without topics."""
    return Case()


def declare(name: str = "orders", partitions: int = 4, *lines: str, **config: str) -> TopicDeclaration:
    """A declaration, through the reader. `config`: with `_` for `.`."""
    settings = "".join(f'\n  {key.replace("_", ".")}: "{value}"' for key, value in config.items())
    text = f"name: {name}\npartitions: {partitions}\nowner: tests\nkey: none\nvalue: none\n" + "\n".join(
        lines
    )
    topic, mistakes = parse_topic(text + ("\nconfig:" + settings if settings else ""), f"{name}.yaml")
    assert topic is not None, mistakes
    return topic
