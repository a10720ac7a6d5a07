"""What the checker reads of the in-memory Kafka and of the real one: the same, and only what is committed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from pipeline.ports import Output, TopicSpec
from pipeline.testing import MemoryBroker
from tests.support.checker import Checker, HistoryError, KafkaLog, MemoryLog
from tests.support.checker.log import LiveReader, Log, Place
from tests.support.waiting import wait_until

DEADLINE_S = 60.0


class Written(Protocol):
    """A topic of one partition, and transactions that write to it, each under an id of its own."""

    place: Place
    log: Log

    def write(self, name: str, *values: bytes) -> None:
        """Write in the transaction `name`, which begins with its first record."""
        ...

    def end(self, name: str, *, commit: bool) -> None: ...

    def recreate(self) -> None: ...


class WrittenInMemory:
    def __init__(self) -> None:
        self.place = Place("things", 0)
        self._broker = MemoryBroker()
        self._broker.create(TopicSpec("things", 1))
        self._epochs: dict[str, int] = {}
        self.log: Log = MemoryLog(self._broker)

    def write(self, name: str, *values: bytes) -> None:
        if name not in self._epochs:
            self._epochs[name] = self._broker.init(name)
        records: list[tuple[Output, int | None]] = [
            (Output("things", b"k", value, 0, [("made-from", b"app.main t 0 0")]), 0) for value in values
        ]
        self._broker.write(name, self._epochs[name], records)

    def end(self, name: str, *, commit: bool) -> None:
        self._broker.end(name, self._epochs[name], commit=commit)

    def recreate(self) -> None:
        self._broker.delete("things")
        self._broker.create(TopicSpec("things", 1))


class WrittenOnKafka:
    def __init__(self, servers: str, prefix: str) -> None:
        self.place = Place(prefix, 0)
        self._servers = servers
        self._admin = AdminClient({"bootstrap.servers": servers})
        self._producers: dict[str, Producer] = {}
        self._create()
        self.reader = KafkaLog(servers, lambda topic: topic == prefix)
        self.log: Log = self.reader

    def _create(self) -> None:
        def created() -> bool:
            (done,) = self._admin.create_topics([NewTopic(self.place.topic, 1, 1)]).values()
            with suppress(KafkaException):  # it is being deleted
                done.result(DEADLINE_S)
                return True
            return False

        wait_until(created, lambda: f"{self.place} cannot be created", DEADLINE_S)

    def write(self, name: str, *values: bytes) -> None:
        if name not in self._producers:
            transactional_id = f"{self.place.topic}.{name}"
            self._producers[name] = Producer(
                {"bootstrap.servers": self._servers, "transactional.id": transactional_id}
            )
            self._producers[name].init_transactions(DEADLINE_S)
            self._producers[name].begin_transaction()
        for value in values:
            self._producers[name].produce(
                self.place.topic, value, b"k", 0, headers=[("made-from", b"app.main t 0 0")]
            )
        assert self._producers[name].flush(DEADLINE_S) == 0

    def end(self, name: str, *, commit: bool) -> None:
        """End the transaction, and wait for its marker: a later record would otherwise come before it."""
        producer, before = self._producers.pop(name), self._end()
        if commit:
            producer.commit_transaction(DEADLINE_S)
        else:
            producer.abort_transaction(DEADLINE_S)
        wait_until(lambda: self._end() > before, lambda: f"{name} has no marker", DEADLINE_S)

    def _end(self) -> int:
        return self.reader.read({self.place: 0})[self.place].end

    def recreate(self) -> None:
        before = self.log.topics()[self.place.topic]
        (done,) = self._admin.delete_topics([self.place.topic]).values()
        done.result(DEADLINE_S)
        self._create()

        def is_known() -> bool:  # the controller has created it, and the broker learns of it later
            return self.log.topics().get(self.place.topic, before) != before

        wait_until(is_known, lambda: f"{self.place} is not described", DEADLINE_S)


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def written(request: pytest.FixtureRequest, unique_name: str) -> Iterator[Written]:
    """A topic in the Kafka that the parameter names."""
    if request.param == "memory":
        yield WrittenInMemory()
        return
    made = WrittenOnKafka(request.getfixturevalue("kafka").bootstrap_servers, unique_name)
    yield made
    made.reader.close()


def test_only_what_is_committed_is_read(written: Written) -> None:
    """Aborted records are skipped, and an open transaction hides what is committed behind it."""
    live = LiveReader(written.log)
    written.write("first", b"1", b"2")
    written.end("first", commit=True)
    written.write("second", b"3")
    written.end("second", commit=False)
    written.write("third", b"4")
    written.write("fourth", b"5")
    written.end("fourth", commit=True)

    def seen() -> list[tuple[int, bytes | None]]:
        list(live.poll())
        return [(record.offset, record.value) for record in live.seen[written.place][0].records]

    wait_until(lambda: len(seen()) == 2, lambda: str(seen()), DEADLINE_S)
    assert seen() == [(0, b"1"), (1, b"2")]
    read = written.log.read({written.place: 0})[written.place]
    assert (read.begin, read.stable_end, read.end, read.hidden) == (0, 5, 8, True)
    assert [record.headers for record in read.records] == [(("made-from", b"app.main t 0 0"),)] * 2
    assert live.open_ended() == [f"{written.place}: the last stable offset is 5, the high watermark 8"]
    written.end("third", commit=True)
    wait_until(lambda: len(seen()) == 4, lambda: str(seen()), DEADLINE_S)
    assert seen()[2:] == [(5, b"4"), (6, b"5")]
    wait_until(lambda: list(live.poll()) == [] and not live.open_ended(), lambda: str(seen()), DEADLINE_S)
    assert live.compare(written.log) == []


def test_a_topic_that_is_recreated_is_another_one(written: Written) -> None:
    """Its records begin again at offset 0, and those of before are remembered."""
    live = LiveReader(written.log)
    for value in (b"1", b"2"):
        written.write("first", value)
        written.end("first", commit=True)
        wait_until(lambda: len(list(live.poll())) == 1, lambda: str(live.seen), DEADLINE_S)
        written.recreate()
        list(live.poll())
    assert [[record.value for record in each.records] for each in live.seen[written.place]] == [
        [b"1"],
        [b"2"],
        [],
    ]
    assert len({each.topic_id for each in live.seen[written.place]}) == 3


def test_an_output_without_a_journal_is_rejected(written: Written) -> None:
    """Also where nothing was promised: the trace says that there must be one."""
    checker = Checker(written.log)
    checker.check()
    written.write("first", b"1")
    written.end("first", commit=True)

    def verified() -> bool:
        checker.check()
        return False

    with pytest.raises(HistoryError, match=r"its group app\.main has no journal"):
        wait_until(verified, lambda: "it was never seen", DEADLINE_S)
