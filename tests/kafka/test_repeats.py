"""The filter of the Kafka client's log during an outage: one of many equal lines, with the number of the others."""

from __future__ import annotations

import logging

from pipeline.kafka.clients import LOGGER, QUIET_S, RepeatFilter
from pipeline.testing import ManualClock


def _line(text: str) -> logging.LogRecord:
    return logging.LogRecord("pipeline.kafka", logging.ERROR, __file__, 1, "%s", (text,), None)


def _refused(client: int, broker: str, after_ms: int) -> logging.LogRecord:
    return _line(
        f"FAIL [pipeline#producer-{client}] [thrd:{broker}/bootstrap]: {broker}/bootstrap: Connect to "
        f"ipv4#{broker} failed: Connection refused (after {after_ms}ms in state CONNECT)"
    )


def test_lines_that_differ_in_client_and_duration_are_said_once_with_their_number() -> None:
    """Forty lines a second during an outage hide all other lines and fill a disk."""
    clock = ManualClock()
    repeats = RepeatFilter(clock.monotonic_s)
    assert repeats.filter(_refused(1, "127.0.0.1:9092", 0))
    assert not any(repeats.filter(_refused(client, "127.0.0.1:9092", client)) for client in range(9))
    clock.advance(QUIET_S)
    again = _refused(2, "127.0.0.1:9092", 0)
    assert repeats.filter(again)
    assert again.getMessage().endswith("(and 9 lines like it before)")


def test_another_broker_and_another_trouble_are_other_lines() -> None:
    """The name of the broker is the most important part of the line."""
    repeats = RepeatFilter(ManualClock().monotonic_s)
    assert repeats.filter(_refused(1, "127.0.0.1:9092", 0))
    assert repeats.filter(_refused(1, "127.0.0.1:9093", 0))
    assert repeats.filter(_line("FATAL [pipeline#producer-1] [thrd:main]: fenced"))


def test_the_clients_log_is_filtered() -> None:
    """A log handler of the program must also get the filtered lines."""
    assert any(isinstance(added, RepeatFilter) for added in LOGGER.filters)


def test_a_coordinator_that_is_not_ready_yet_is_no_warning() -> None:
    """It is the first line of each first start, and is harmless."""
    line = _line(
        "GETPID [pipeline#producer-18] [thrd:main]: Failed to acquire idempotence PID from broker 127.0.0.1:9092/1: "
        "Broker: Coordinator load in progress: retrying"
    )
    assert line.levelno >= logging.WARNING
    assert RepeatFilter(ManualClock().monotonic_s).filter(line)
    assert line.levelno == logging.INFO
