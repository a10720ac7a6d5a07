"""What brokers refuse for what is in it: real and fake refuse the same, and say so by the same error."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from pipeline.core.names import TopicPartition
from pipeline.errors import AbortableError, ConfigError, PipelineError, RefusedError
from pipeline.ports import Output
from tests.contracts.conftest import World, wait_until

HOUR_MS = 3_600_000
AHEAD = {"message_timestamp_after_max_ms": str(HOUR_MS)}
BEHIND = {"message_timestamp_before_max_ms": str(HOUR_MS)}
COMPACTED = {"cleanup_policy": "compact"}
BOTH = {"cleanup_policy": "compact,delete"}
APPENDED = {**AHEAD, **BEHIND, "message_timestamp_type": "LogAppendTime"}
# settings, key, hours from now, size, and whether it is refused; None: the default of the Kafka release decides
CASES: list[tuple[dict[str, Any], bytes | None, float, int, bool | None]] = [
    (AHEAD, b"k", 0.9, 1, False),
    (AHEAD, b"k", 1.1, 1, True),
    ({}, b"k", 1.1, 1, None),
    (AHEAD, b"k", -100_000, 1, False),
    (BEHIND, b"k", -0.9, 1, False),
    (BEHIND, b"k", -1.1, 1, True),
    (APPENDED, b"k", -100, 1, False),
    (APPENDED, b"k", 100, 1, False),
    (COMPACTED, b"", 0, 1, False),
    (COMPACTED, None, 0, 1, True),
    (BOTH, None, 0, 1, True),
    ({"max_message_bytes": "2000"}, b"k", 0, 1_000, False),
    ({"max_message_bytes": "2000"}, b"k", 0, 3_000, True),
]


def _cases(world: World) -> list[tuple[dict[str, Any], bytes | None, float, int, bool]]:
    """The cases, for the release of this cluster: one hour has been the default since Kafka 4.0."""
    most_ms = int(world.defaults["message.timestamp.after.max.ms"])
    return [
        (settings, key, hours, size, hours * HOUR_MS > most_ms if refused is None else refused)
        for settings, key, hours, size, refused in CASES
    ]


def _record(topic: str, key: bytes | None, hours: float, size: int) -> Output:
    stamp = time.time_ns() // 1_000_000 + int(hours * HOUR_MS)
    return Output(topic, key, os.urandom(size), stamp)


def test_a_transaction_with_a_refused_output_aborts_and_names_its_topic(world: World) -> None:
    """The guilty record must be told from an outage: the same transaction would be refused again."""
    for number, (settings, key, hours, size, refused) in enumerate(_cases(world)):
        topic, producer = world.topic(f"out-{number}", **settings), world.producer(f"task-{number}")
        producer.begin()
        producer.send([Output(topic, b"k", b"good", 0), _record(topic, key, hours, size)])
        if not refused:
            producer.flush()
            producer.commit()
            continue
        with pytest.raises(RefusedError, match=topic) as raised:
            producer.flush()
        assert raised.value.topic == topic, settings
        producer.abort()


def test_a_refused_journal_record_is_no_outputs_fault(world: World) -> None:
    """No input record is the cause of what the pipeline itself writes."""
    journal, out = world.topic("journal", max_message_bytes="2000"), world.topic("out")
    producer = world.producer()
    producer.begin()
    producer.send([Output(out, b"k", b"good", 0)])
    producer.append(TopicPartition(journal, 0), [os.urandom(3_000)])
    with pytest.raises(AbortableError, match=journal) as raised:
        producer.flush()
    assert not isinstance(raised.value, RefusedError)


def test_an_event_that_is_refused_is_reported_as_a_mistake(world: World) -> None:
    """Sending it again would be refused again, so it is not a delivery to be repeated."""
    client = world.events.open()
    reports: dict[int, PipelineError | None] = {}
    for number, (settings, key, hours, size, _) in enumerate(CASES):
        output = _record(world.topic(f"events-{number}", **settings), key, hours, size)

        def report(error: object, _message: object, number: int = number) -> None:
            reports[number] = client.failure(error, "event") if error is not None else None

        assert client.enqueue(output.topic, output.key, output.value, output.timestamp_ms, [], report)

    def served() -> bool:
        client.serve(0.05)
        return len(reports) == len(CASES)

    wait_until(served, "all reports")
    client.close()
    for number, (*case, refused) in enumerate(_cases(world)):
        assert isinstance(reports[number], ConfigError) == refused, (case, reports[number])
