"""Verifies the committed records that a test leaves on a Kafka: automatic fixtures for `conftest.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.testing import MemoryBroker
from tests.conftest import KafkaUnderTest
from tests.support.checker import LOADS, Checker, KafkaLog, MemoryLog

__all__ = ["committed_records", "committed_records_are_verified", "memory_records_are_verified"]

_MARKERS_S = 30.0


class _New:
    """The topics that were created since the last call of `done`."""

    def __init__(self, kafka: KafkaUnderTest) -> None:
        self._done: set[str] = set()
        self.log = KafkaLog(kafka.bootstrap_servers, self._concerns)

    def done(self) -> None:
        self._done.update(self.log.topics())

    def _concerns(self, topic: str) -> bool:
        return topic == LOADS or (topic not in self._done and not topic.startswith("_"))


@pytest.fixture(scope="session")
def committed_records(kafka: KafkaUnderTest) -> Iterator[_New]:
    """A reader of the records that tests commit."""
    new = _New(kafka)
    yield new
    new.log.close()


@pytest.fixture(autouse=True)
def committed_records_are_verified(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that the journals and traced outputs of a test are a correct history at its end.

    The mark `unverified` is for tests after which they are not, by design: they delete topics, skip records, or disable
    a rule of the protocol.
    """
    if "kafka" not in request.fixturenames:
        yield
        return
    new: _New = request.getfixturevalue("committed_records")
    new.done()  # earlier tests, also of directories with readers of their own, share this Kafka
    yield
    if request.node.get_closest_marker("unverified") is None:
        Checker(new.log).check(settle_s=_MARKERS_S)


@pytest.fixture(autouse=True)
def memory_records_are_verified(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The same for every in-memory Kafka that a test creates."""
    made: list[MemoryBroker] = []
    begin = MemoryBroker.__init__

    def noted(broker: MemoryBroker, *arguments: Any, **more: Any) -> None:
        begin(broker, *arguments, **more)
        made.append(broker)

    monkeypatch.setattr(MemoryBroker, "__init__", noted)
    yield
    if request.node.get_closest_marker("unverified") is None:
        for broker in made:
            Checker(MemoryLog(broker)).check()
