"""A majority of three brokers must confirm the ends of read-only partitions and the changes of topics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.errors import UnreachableError
from pipeline.kafka import clients, journal
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.topics import KafkaTopics
from pipeline.ports import TopicInfo

SERVERS = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]
PLACE = TopicPartition("flights", 0)
OLD, NEW = TopicInfo("flights", "old", 1, 1, {}), TopicInfo("flights", "new", 1, 1, {})


@pytest.fixture(autouse=True)
def three_brokers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster of three brokers; each test defines their answers."""
    monkeypatch.setattr(clients, "broker_addresses", lambda *_: SERVERS)
    monkeypatch.setattr(KafkaTopics, "_check_reachable", lambda _: None)  # nothing listens there


def _ends(
    monkeypatch: pytest.MonkeyPatch, answers: Sequence[tuple[int, int] | None]
) -> Mapping[TopicPartition, int]:
    """`answers`: (leader epoch, offset) by broker; None: no answer."""
    by_server = dict(zip(SERVERS, answers, strict=True))

    def through(server: str, *_: object) -> dict[TopicPartition, journal._End] | None:
        answer = by_server[server]
        return None if answer is None else {PLACE: journal._End(*answer)}

    monkeypatch.setattr(journal, "_ends_through", through)
    reader = KafkaJournalReader(KafkaSettings(SERVERS[0]))
    try:
        return reader.highest_ends([PLACE])
    finally:
        reader.close()


def _described(monkeypatch: pytest.MonkeyPatch, answers: Sequence[TopicInfo | None]) -> dict[str, TopicInfo]:
    """`answers`: the topic by broker; None: no answer."""
    by_server = dict(zip(SERVERS, answers, strict=True))

    def described_by(_topics: KafkaTopics, server: str, _names: Sequence[str]) -> dict[str, TopicInfo] | None:
        answer = by_server[server]
        return None if answer is None else {answer.name: answer}

    monkeypatch.setattr(KafkaTopics, "_described_by", described_by)
    return KafkaTopics(KafkaSettings(SERVERS[0])).describe_by_most(["flights"])


def test_the_end_of_the_newest_leader_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale leader may have a higher offset, of records that were never committed."""
    assert _ends(monkeypatch, [(3, 90), (4, 50), (4, 60)]) == {PLACE: 60}


def test_an_end_needs_the_answers_of_most_brokers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only broker that answers may be the stale leader."""
    assert _ends(monkeypatch, [(3, 10), None, (4, 60)]) == {PLACE: 60}
    with pytest.raises(UnreachableError, match="1 of 3 brokers answered"):
        _ends(monkeypatch, [(3, 10), None, None])


def test_a_topic_is_as_most_brokers_describe_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One broker that describes the topic as it was must not stop a task."""
    assert _described(monkeypatch, [OLD, NEW, NEW]) == {"flights": NEW}


@pytest.mark.parametrize("answers", [[NEW, None, None], [OLD, NEW, None]])
def test_a_description_needs_most_brokers_to_agree(
    monkeypatch: pytest.MonkeyPatch, answers: Sequence[TopicInfo | None]
) -> None:
    """With too few answers, either may be that of a broker without controllers."""
    with pytest.raises(UnreachableError, match="1 of 3 brokers agree"):
        _described(monkeypatch, answers)
