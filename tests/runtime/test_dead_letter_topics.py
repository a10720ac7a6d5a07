"""Finding the topics of dead letters and replays."""

from __future__ import annotations

import pytest

from pipeline import App, Context, Event
from pipeline.api.declared_group import DeclaredGroup
from pipeline.app import declared_app
from pipeline.errors import ConfigError
from pipeline.ports import TopicSpec
from pipeline.runtime.dead_letter_topics import dead_letter_topics
from pipeline.testing.memory_broker import MemoryBroker
from pipeline.testing.memory_clients import MemoryCluster


def group() -> DeclaredGroup:
    """A group with dead letters."""
    app = App("shop")
    orders = app.topic("orders", key=str, value=int)

    @app.handler(orders, on_error="dead_letter")
    def add(event: Event[str, int], ctx: Context) -> None: ...

    return declared_app(app).main


def test_a_topic_that_may_not_be_described_is_not_a_missing_one() -> None:
    """Kafka does not list it; a reset that took it for missing would repeat replays that wait in it."""
    broker = MemoryBroker()
    broker.fail_next("describe", ConfigError("denied"))
    with pytest.raises(ConfigError, match="denied"):
        dead_letter_topics([group()], MemoryCluster(broker))


def test_only_topics_that_exist_are_found() -> None:
    """Before the first start, there are none."""
    broker = MemoryBroker()
    cluster = MemoryCluster(broker)
    assert dead_letter_topics([group()], cluster) == {}
    broker.create(TopicSpec("shop.main.replays", 2))
    assert list(dead_letter_topics([group()], cluster)) == ["shop.main.replays"]
