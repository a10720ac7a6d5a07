"""Unusual records on a real Kafka: nulls, empty strings, headers and timestamps as the client returns them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pipeline import App, Context, Event
from pipeline.app import declared_app
from pipeline.config import KafkaSettings, Settings, WorkerSettings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ops.dead_letters.letters import Choice, dead_letter_topic, read_letters
from pipeline.ops.dead_letters.replaying import Replayer
from pipeline.ports import TopicSpec
from pipeline.processes.wiring import build_environment
from pipeline.runtime.worker import Worker
from tests.conftest import KafkaUnderTest
from tests.support.kafka.producing import ordered_producer
from tests.support.raw_records import RawRecord, write_raw

pytestmark = pytest.mark.kafka

DEADLINE_S = 60.0
FUTURE_MS = 4_000_000_000_000
Seen = tuple[bytes | None, bytes | None, int, list[tuple[str, bytes | None]]]
ODD: list[Seen] = [
    (None, None, 1, []),
    (b"", b"", 2, [("empty", b""), ("none", None), ("empty", b"again")]),
    (b"\xff\x00", b"\xfe", FUTURE_MS, [("bytes", b"\xff")]),
    (b"k", b"plain", 1_000, [("event-id", b"7")]),
]


@pytest.fixture
def app(kafka: KafkaUnderTest, unique_name: str) -> App:
    """An app with topics that accept any timestamp."""
    name = unique_name[-40:].strip("-")
    made = App(name)
    for topic in ("in", "out"):
        made.topic(f"{name}-{topic}", key=bytes | None, value=bytes | None)
    config = {"message.timestamp.after.max.ms": str(2**63 - 1), "retention.ms": "-1"}
    with closing(KafkaCluster(KafkaSettings(kafka.bootstrap_servers))) as cluster:
        cluster.create([TopicSpec(topic, 1, config=config) for topic in declared_app(made).topics])
    return made


@contextmanager
def _worker(app: App, kafka: KafkaUnderTest, tmp_path: Path) -> Iterator[Worker]:
    """Run a worker in this process."""
    settings = WorkerSettings(worker_id="odd", state_dir=tmp_path / "state", commit_interval_ms=10)
    environment = build_environment(
        declared_app(app), Settings(KafkaSettings(kafka.bootstrap_servers), settings)
    )
    made = Worker(declared_app(app), environment, settings)
    try:
        made.start()
        yield made
        made.stop()
    finally:
        made.close()


def test_odd_records_are_what_they_were_to_handlers_in_letters_and_when_replayed(
    app: App, kafka: KafkaUnderTest, tmp_path: Path
) -> None:
    """A fake may agree with the code under test where a real client treats null, empty and time differently."""
    inputs, outs = declared_app(app).topics.values()
    seen: list[Seen] = []
    broken = [True]

    @app.handler(inputs, on_error="dead_letter")
    def forward(event: Event[bytes | None, bytes | None], ctx: Context) -> None:
        seen.append((event.key, event.value, event.timestamp_ms, list(event.headers)))
        ctx.send(outs, event.key, event.value, headers=event.headers)
        if broken[0]:
            raise ValueError("not yet")

    producer = ordered_producer(kafka.bootstrap_servers)
    for key, value, timestamp_ms, headers in ODD:
        producer.produce(inputs.name, value, key, 0, timestamp=timestamp_ms, headers=[*headers])
    assert producer.flush(DEADLINE_S) == 0

    with _worker(app, kafka, tmp_path) as worker:
        _run(worker, lambda: worker.progress().dead_lettered == len(ODD) and worker.idle)
        assert seen == ODD
        environment = worker.environment
        letters = list(
            read_letters(
                dead_letter_topic(declared_app(app).main.id, environment.cluster), Choice(), environment
            )
        )
        assert [
            (each.key, each.value, each.letter.origin.timestamp_ms, list(each.headers)) for each in letters
        ] == ODD
        assert [each.letter.origin.offset for each in letters] == list(range(len(ODD)))

        seen.clear()
        broken.clear()
        broken.append(False)
        assert Replayer(declared_app(app).main, environment, 500).run(Choice()).letters == len(ODD)
        _run(worker, lambda: worker.progress().records == 2 * len(ODD) and worker.idle)
        assert seen == ODD
        assert worker.progress().outputs == 2 * len(ODD)  # dead letters and forwarded records


def test_header_names_that_are_not_utf8_are_poison_records_for_handlers_that_read_them(
    app: App, kafka: KafkaUnderTest, tmp_path: Path
) -> None:
    """The Kafka client returns a null pointer for such a name, which would crash every worker that reads it."""
    inputs, outs = declared_app(app).topics.values()

    @app.handler(inputs, on_error="dead_letter")
    def forward(event: Event[bytes | None, bytes | None], ctx: Context) -> None:
        try:
            headers = event.headers
        except ValueError:
            headers = event.headers
        ctx.send(outs, event.key, event.value, headers=headers)

    good = RawRecord(b"k", b"good", [(b"trace", b"1")])
    bad = RawRecord(b"k", b"bad", [(b"trace", b"2"), (b"caf\xe9", b"3")])
    assert write_raw(kafka.bootstrap_servers, inputs.name, [*[good] * 100, bad, good, bad]) == 0
    with _worker(app, kafka, tmp_path) as worker:
        _run(worker, lambda: worker.progress().dead_lettered == 2 and worker.idle)
        assert worker.progress().outputs == 103
        environment = worker.environment
        letters = list(
            read_letters(
                dead_letter_topic(declared_app(app).main.id, environment.cluster), Choice(), environment
            )
        )
    assert [(letter.value, list(letter.headers)) for letter in letters] == [(b"bad", [("trace", b"2")])] * 2
    assert {letter.letter.left_out.partition(":")[0] for letter in letters} == {
        "1 of 2 headers cannot be read"
    }


# Records of other clients, and whether a handler of (str, int) that reads headers accepts them.
MALFORMED: list[tuple[RawRecord, bool]] = [
    (RawRecord(b"k", b"1"), True),
    (RawRecord(None, b"2"), False),
    (RawRecord(b"k", None), False),
    (RawRecord(None, None), False),
    (RawRecord(b"", b"3"), True),
    (RawRecord(b"k", b""), False),
    (RawRecord(b"\xff", b"4"), False),
    (RawRecord(b"k", b"\x00\xff"), False),
    (RawRecord(b"k", b"5", [(b"", b"")]), True),
    (RawRecord(b"k", b"6", [(b"none", None), (b"none", None)]), True),
    (RawRecord(b"k", b"7", [(b"nul\x00", b"\x00")]), True),
    (RawRecord(b"k", b"8", [(b"\xc3\x28", b"not UTF-8")]), False),
    (RawRecord(b"k", b"9", [(b"\xed\xa0\x80", b"half a surrogate pair")]), False),
    (RawRecord(b"k", b"10", [("ü".encode() * 3000, b"long")]), True),
    (RawRecord(b"k", b"11", timestamp_ms=-1), True),
    (RawRecord(b"k", b"12", timestamp_ms=0), True),
    (RawRecord(b"k", b"13", timestamp_ms=FUTURE_MS), True),
]


def test_malformed_records_of_every_kind_are_handled_or_put_aside(
    kafka: KafkaUnderTest, unique_name: str, tmp_path: Path
) -> None:
    """Other clients may write any bytes, and no field of any record may stop or crash a worker."""
    name = unique_name[-40:].strip("-")
    app = App(name)
    inputs = app.topic(f"{name}-in", key=str, value=int)
    outs = app.topic(f"{name}-out", key=str, value=int)
    any_time = {"message.timestamp.after.max.ms": str(2**63 - 1), "retention.ms": "-1"}
    with closing(KafkaCluster(KafkaSettings(kafka.bootstrap_servers))) as cluster:
        cluster.create([TopicSpec(topic, 1, config=any_time) for topic in declared_app(app).topics])
    seen: list[int] = []

    @app.handler(inputs, on_error="dead_letter")
    def forward(event: Event[str, int], ctx: Context) -> None:
        headers = [*event.headers, ("id", event.id)]
        ctx.send(outs, event.key, event.value, headers=headers)
        seen.append(event.value)

    for record, _ in MALFORMED:
        assert write_raw(kafka.bootstrap_servers, inputs.name, [record]) == 0
    with _worker(app, kafka, tmp_path) as worker:
        _run(worker, lambda: worker.progress().records == len(MALFORMED) and worker.idle)
        environment = worker.environment
        letters = list(
            read_letters(
                dead_letter_topic(declared_app(app).main.id, environment.cluster), Choice(), environment
            )
        )
    assert seen == [int(record.value or b"") for record, fine in MALFORMED if fine]
    assert [(letter.key, letter.value) for letter in letters] == [
        (record.key, record.value) for record, fine in MALFORMED if not fine
    ]


def _run(worker: Worker, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        worker.step()
        assert not worker.failures, worker.failures
        assert time.monotonic() < deadline, worker.progress()
