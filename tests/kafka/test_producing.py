"""`pipeline.Producer` on a real Kafka: lost answers, outages, forks and SIGKILL. No event is lost unreported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline import App, Delivery, Event, Producer, Topic, TransactionalProducer
from pipeline.api.declarations import declared_topic
from pipeline.broker import LocalKafka
from pipeline.config import KafkaSettings, ProducerSettings, Settings
from pipeline.core.names import TopicPartition
from pipeline.errors import ConfigError, DeliveryError, FencedError, QueueFullError, UnknownOutcomeError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.source import KafkaSources
from pipeline.ops.reading import committed_records
from pipeline.ports import SystemClock, TopicSpec
from tests.conftest import KafkaUnderTest
from tests.support.kafka.produce_rows import AT_A_TIME
from tests.support.kafka.proxy import Api, Proxy

pytestmark = pytest.mark.kafka

PARTITIONS = 2
DEADLINE_S = 60.0


class Numbers:
    """A topic of numbers, and its records."""

    def __init__(self, servers: str, name: str, **config: str) -> None:
        self.servers = servers
        self.name = name
        self.topic: Topic[str, int] = App("numbers").topic(name, key=str, value=int)
        cluster = KafkaCluster(KafkaSettings(servers))
        cluster.create(
            [TopicSpec(name, PARTITIONS, config={k.replace("_", "."): v for k, v in config.items()})]
        )
        cluster.close()

    def values(self) -> list[int]:
        """The numbers of all committed events, sorted."""
        return sorted(event.value for event in self._read())

    def settings(self, **producer: Any) -> Settings:
        return Settings(KafkaSettings(self.servers), producer=ProducerSettings(**producer))

    def events(self) -> list[Event[str, int]]:
        """All committed events, in order within each partition."""
        return list(self._read())

    def committed(self) -> list[int]:
        """The numbers of all committed events, by partition, without a wait for more."""
        reader = KafkaJournalReader(KafkaSettings(self.servers))
        places = [TopicPartition(self.name, number) for number in range(PARTITIONS)]
        ends = reader.stable_ends(places)
        found = [
            declared_topic(self.topic).value.decode(value)
            for place in places
            for _, value in (reader.read(place, 0, ends[place]) if ends[place] else ())
        ]
        reader.close()
        return found

    def _read(self) -> Iterator[Event[str, int]]:
        settings = KafkaSettings(self.servers)
        with (
            closing(KafkaCluster(settings)) as cluster,
            closing(KafkaJournalReader(settings)) as reader,
            closing(KafkaSources(settings).open(f"{self.name}-reader")) as source,
        ):
            info = cluster.describe([self.name])[self.name]
            for record in committed_records(info, reader, source, SystemClock()):
                yield Event(
                    declared_topic(self.topic).key.decode(record.key()),
                    declared_topic(self.topic).value.decode(record.value()),
                    record,
                )


@pytest.fixture
def numbers(kafka: KafkaUnderTest, unique_name: str) -> Numbers:
    return Numbers(kafka.bootstrap_servers, unique_name)


def test_a_lost_answer_doubles_nothing(numbers: Numbers, proxy: Proxy) -> None:
    """The client repeats the request, and the broker must recognise it."""
    lost = proxy.lose_answer(Api.PRODUCE, numbers.name.encode())
    with Producer(Settings(KafkaSettings(proxy.servers))) as producer:
        sent = [producer.send(numbers.topic, "k", n, id=str(n)) for n in range(100)]
    assert lost.fired
    assert [delivery.result().offset for delivery in sent] == list(range(100))
    assert [(event.value, event.id) for event in numbers.events()] == [(n, b"%d" % n) for n in range(100)]


def test_events_fail_in_time_while_kafka_is_away_and_each_is_named() -> None:
    """The wait must be bounded, and each event that is not delivered must be reported."""
    topic = App("numbers").topic("nowhere", key=str, value=int)
    settings = ProducerSettings(delivery_timeout_s=1.0, max_records=10, max_block_s=0.01)
    producer = Producer(Settings(KafkaSettings("127.0.0.1:1"), producer=settings))
    told: list[Delivery] = []
    sent = [producer.send(topic, "k", n, id=f"id-{n}", on_delivery=told.append) for n in range(10)]
    with pytest.raises(QueueFullError):
        producer.send(topic, "k", 10)
    producer.flush(DEADLINE_S)
    assert told == sent
    with pytest.raises(
        DeliveryError, match="event id-0 of key b'k' for topic nowhere: not confirmed in time"
    ):
        sent[0].result()
    producer.send(topic, "k", 11, id="unseen")
    with pytest.raises(DeliveryError, match="1 event was not delivered: event unseen"):
        producer.close()


def test_a_close_that_gives_up_releases_the_client_and_names_the_events() -> None:
    """A service must be able to stop in time while Kafka is unreachable."""
    topic = App("numbers").topic("nowhere", key=str, value=int)
    producer = Producer(Settings(KafkaSettings("127.0.0.1:1")))
    sent = producer.send(topic, "k", 1, id="id-1")
    with pytest.raises(DeliveryError, match=r"1 event was given up at close, after 0.1 s: event id-1"):
        producer.close(0.1)
    assert isinstance(sent.exception(), DeliveryError)


def test_an_event_over_the_topics_limit_names_the_setting(kafka: KafkaUnderTest, unique_name: str) -> None:
    """The broker refuses the whole batch, so its other events get the same error."""
    numbers = Numbers(kafka.bootstrap_servers, unique_name, max_message_bytes="2000")
    with Producer(numbers.settings()) as producer:
        sent = producer.send(numbers.topic, os.urandom(2000).hex(), 1)
        with pytest.raises(ConfigError, match=r"exceeds max.message.bytes of the topic"):
            sent.result(DEADLINE_S)
        assert producer.send(numbers.topic, "k", 2).result(DEADLINE_S)
    assert [event.value for event in numbers.events()] == [2]


def test_no_batch_is_over_a_limit_that_the_producer_was_told(kafka: KafkaUnderTest, unique_name: str) -> None:
    """Only the event that is too large may fail, not other events that would share a batch with it."""
    numbers = Numbers(kafka.bootstrap_servers, unique_name, max_message_bytes="2000")
    with Producer(numbers.settings(max_event_bytes=1900, linger_ms=20)) as producer:
        sent = [
            producer.send(numbers.topic, "k", n, headers=[("noise", os.urandom(size))])
            for n, size in enumerate([100, 200, 300, 100, 1000, 50, 1800] * 100)
        ]
        producer.flush(DEADLINE_S)
    assert [delivery.exception() for delivery in sent] == [None] * len(sent)
    assert numbers.committed() == list(range(len(sent)))


def test_a_forked_child_sends_its_own_events_and_the_parent_its_own(numbers: Numbers) -> None:
    """A web server may fork after its start: no event may be duplicated or lost, and no process may hang."""
    program = f"""
import os, sys
from pipeline import App, Producer
from pipeline.config import KafkaSettings, Settings
topic = App("numbers").topic({numbers.name!r}, key=str, value=int)
producer = Producer(Settings(KafkaSettings({numbers.servers!r})))
# A thread of the client that starts may hold a lock of OpenSSL, and the child would inherit it.
producer.send(topic, "0", 0, id="parent-0").result(30)
for n in range(1, 500):
    producer.send(topic, str(n), n, id=f"parent-{{n}}")
children = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        for n in range(100):
            producer.send(topic, str(n), n, id=f"child-{{number}}-{{n}}")
        producer.close()
        sys.exit(0)  # with all that a process does at its end
    children.append(pid)
producer.close()
assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )
    assert done.returncode == 0, done.stderr
    expected = [f"parent-{n}" for n in range(500)]
    expected += [f"child-{number}-{n}" for number in range(3) for n in range(100)]
    assert sorted((event.id or b"").decode() for event in numbers.events()) == sorted(expected)


def test_transactions_are_whole_or_not_there_and_a_newer_producer_ends_the_older(numbers: Numbers) -> None:
    """The fake's behaviour must also be that of Kafka's own coordinator."""
    with TransactionalProducer(numbers.name, numbers.settings()) as old:
        with old.transaction() as batch:
            for n in range(1000):
                batch.send(numbers.topic, str(n), n, id=str(n))
        with TransactionalProducer(numbers.name, numbers.settings()) as new:
            with new.transaction() as batch:
                batch.send(numbers.topic, "k", 1000)
            with pytest.raises(FencedError), old.transaction() as batch:
                batch.send(numbers.topic, "k", 1001)
            with pytest.raises(TypeError), new.transaction() as batch:
                batch.send(numbers.topic, "k", "no number")  # type: ignore[misc]
    assert sorted(event.value for event in numbers.events()) == list(range(1001))


@pytest.mark.parametrize("arrives", [False, True], ids=["never-arrives", "arrives-late"])
def test_a_commit_that_kafka_does_not_answer_has_a_bound_and_what_follows_settles_it(
    numbers: Numbers, proxy: Proxy, arrives: bool
) -> None:
    """A service must not hang, and a late commit must not duplicate its second attempt."""
    bounds = ProducerSettings(commit_timeout_s=5.0)  # also of the commits that Kafka answers
    held = proxy.hold(Api.END_TXN)
    with TransactionalProducer(
        numbers.name, Settings(KafkaSettings(proxy.servers), producer=bounds)
    ) as producer:
        with pytest.raises(UnknownOutcomeError, match=r"no answer from Kafka in 5 s: .* whole or not at all"):
            _write(producer, numbers, 1)
        assert held.fired
        if arrives:
            held.release()
            assert held.answer() == 0
        with producer.transaction():
            pass  # the outcome is settled
        found = [1] if arrives else []
        assert numbers.committed() == found
        held.release()
        _write(producer, numbers, 2)
    assert (held.answer() == 0) is arrives  # the fence refuses late requests
    assert numbers.committed() == [*found, 2]


def test_an_abort_that_kafka_does_not_answer_has_a_bound(
    numbers: Numbers, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is safe, because the next transaction begins with a fence."""
    monkeypatch.setattr("pipeline.transactions.engine.ABORT_TIMEOUT_S", 5.0)
    held = proxy.hold(Api.END_TXN)

    def stop_in_the_middle() -> None:
        with producer.transaction() as batch:
            for n in range(600):
                batch.send(numbers.topic, "k", n)
            proxy.wait_until(lambda: bool(proxy.answered(Api.PRODUCE)), "events on the topic")
            raise KeyError("the caller's own")

    with TransactionalProducer(numbers.name, Settings(KafkaSettings(proxy.servers))) as producer:
        with pytest.raises(KeyError):
            stop_in_the_middle()
        assert held.fired
        _write(producer, numbers, 1000)
    assert numbers.committed() == [1000]


def _write(producer: TransactionalProducer, numbers: Numbers, number: int) -> None:
    with producer.transaction() as batch:
        batch.send(numbers.topic, "k", number)


class Rows:
    """A file, the program that sends it, and its progress."""

    def __init__(self, numbers: Numbers, directory: Path, count: int) -> None:
        self.numbers = numbers
        self.file = directory / "rows.csv"
        self._progress = directory / "progress"
        self._log = directory / "rows.log"
        self.file.write_text("".join(f"key-{n * 7 % 997},{n}\n" for n in range(count)))

    def start(self, at: int) -> subprocess.Popen[bytes]:
        """Start the program from a line on."""
        return self._spawn(str(self.file), at, subprocess.DEVNULL)

    def start_without_the_last(self) -> subprocess.Popen[bytes]:
        """Start the program on a pipe with all lines but the last one, for which it waits."""
        process = self._spawn("/dev/stdin", 0, subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(b"".join(self.file.read_bytes().splitlines(keepends=True)[:-1]))
        process.stdin.flush()
        return process

    def _spawn(self, file: str, at: int, stdin: int) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable, "-m", "tests.support.kafka.produce_rows", self.numbers.servers, self.numbers.name,
                    file, str(self._progress), str(at),
                ],
                stdin=stdin,
                stdout=log,
                stderr=log,
            )  # fmt: skip

    def told(self) -> list[str]:
        """The progress reports of the programs, oldest first."""
        return self._progress.read_text().splitlines() if self._progress.exists() else []

    def delivered(self) -> int:
        """The line up to which all rows are delivered."""
        return max((int(line) for line in self.told() if line != "done"), default=0)

    def kill_when(self, process: subprocess.Popen[bytes], delivered: int, wait_s: float = 0.0) -> bool:
        """Send SIGKILL a while after this many rows are delivered. Returns False if the program has already ended."""
        deadline = time.monotonic() + DEADLINE_S
        with process:
            while process.poll() is None and self.delivered() < delivered:
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.005)
            try:
                process.wait(wait_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        return process.returncode == -signal.SIGKILL

    def finish(self, at: int) -> None:
        """Run the program to its end."""
        assert self.start(at).wait(DEADLINE_S * 3) == 0, self._log.read_text()
        assert self.told()[-1] == "done"


@pytest.fixture
def rows(numbers: Numbers, tmp_path: Path) -> Rows:
    return Rows(numbers, tmp_path, 12_000)


def test_what_a_killed_producer_sends_again_has_the_same_ids(rows: Rows) -> None:
    """Consumers can drop the duplicates in the topic only if these have the id of the first delivery."""
    # A program that has all rows could end before this process, on a busy machine, sees what is delivered.
    assert rows.kill_when(rows.start_without_the_last(), 2 * AT_A_TIME)
    delivered = rows.delivered()
    again = delivered - AT_A_TIME
    rows.finish(again)
    events = rows.numbers.events()
    values = {event.id: event.value for event in events}
    assert values == {b"%d" % n: n for n in range(12_000)}
    # These were certainly sent twice: confirmed to the first program, and after the start line of the second.
    count = dict.fromkeys(range(12_000), 0)
    for event in events:
        assert event.id == b"%d" % event.value
        count[event.value] += 1
    assert {count[n] for n in range(again, delivered)} == {2}
    assert {count[n] for n in range(again)} == {1}


@pytest.mark.outage
def test_events_wait_for_a_kafka_that_is_killed_and_started_again(tmp_path: Path, unique_name: str) -> None:
    """A restart within the time-out must neither lose nor duplicate events, nor change their order."""
    with LocalKafka(tmp_path / "kafka") as own:
        numbers = Numbers(own.bootstrap_servers, unique_name)
        with Producer(numbers.settings(delivery_timeout_s=DEADLINE_S)) as producer:
            for n in range(3_000):
                producer.send(numbers.topic, "k", n)
                if n == 1_000:
                    own.kill()
            own.start()
        assert [event.value for event in numbers.events()] == list(range(3_000))
