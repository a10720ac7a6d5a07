"""Requests about topics: which to retry, which answers not to trust, and that none creates a topic."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest
from confluent_kafka import KafkaError, KafkaException

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.errors import AbortableError, UnreachableError
from pipeline.kafka import journal
from pipeline.kafka.clients import ProducerLimits
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.errors import until_settled
from pipeline.kafka.producer import KafkaProducers
from pipeline.ports import TopicSpec
from tests.conftest import KafkaUnderTest
from tests.support.kafka.proxy import Api, Proxy
from tests.support.kafka.wire import allows_creation

NO_ANSWER_S = 0.5


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._NOENT,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
    ],
)
def test_what_a_node_has_not_heard_of_yet_is_asked_again(code: int) -> None:
    """Nodes learn of a new topic at different times, so a first start on several nodes could fail."""
    answers = [KafkaException(KafkaError(code)), 7]

    def ask() -> object:
        answer = answers.pop(0)
        if isinstance(answer, KafkaException):
            raise answer
        return answer

    assert until_settled(ask, "an end") == 7


@pytest.mark.kafka
def test_ends_that_a_broker_does_not_tell_in_time_are_an_error_and_no_empty_journal(
    kafka: KafkaUnderTest, proxy: Proxy, unique_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client then returns an offset without an error, and the journal would look empty, like that of a new app."""
    with closing(KafkaCluster(KafkaSettings(kafka.bootstrap_servers))) as cluster:
        cluster.create([TopicSpec(unique_name, 1)])
    partition = TopicPartition(unique_name, 0)
    with closing(journal.KafkaJournalReader(KafkaSettings(proxy.servers))) as reader:
        assert (
            reader.bounds(partition).end == 0
        )  # the client is connected, which may take longer than the time-out
        monkeypatch.setattr(journal, "_REQUEST_TIMEOUT_S", NO_ANSWER_S)
        late = proxy.hold(Api.LIST_OFFSETS)
        with pytest.raises(UnreachableError, match="no answer"):
            reader.bounds(partition)
        with pytest.raises(UnreachableError, match="no answer"):
            reader.stable_ends([partition])
    assert late.fired


def _read_ends(settings: KafkaSettings, missing: TopicPartition) -> None:
    with closing(journal.KafkaJournalReader(settings)) as reader, pytest.raises(UnreachableError):
        reader.bounds(missing)


def _produce(settings: KafkaSettings, missing: TopicPartition) -> None:
    limits = ProducerLimits(transaction_timeout_ms=2_000)  # how long the producer waits for the topic
    with closing(KafkaProducers(settings, limits).open(missing.topic)) as producer:
        producer.init()
        producer.begin()
        producer.append(missing, [b"entry"])
        with pytest.raises(AbortableError):
            producer.flush()


@pytest.mark.kafka
@pytest.mark.parametrize("use", [_read_ends, _produce])
def test_no_client_asks_a_broker_to_create_a_topic_that_is_not_there(
    proxy: Proxy, unique_name: str, use: Callable[[KafkaSettings, TopicPartition], None]
) -> None:
    """By default Kafka creates topics for clients that allow it: a deleted journal would exist again, but empty."""
    use(KafkaSettings(proxy.servers), TopicPartition(unique_name, 0))
    looked = proxy.answered(Api.METADATA, unique_name.encode())
    assert looked
    assert not any(allows_creation(exchange.request) for exchange in looked)
