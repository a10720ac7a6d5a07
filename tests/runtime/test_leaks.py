"""Clients, readers and states are closed by the code that opened them, also after errors."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import WorkerSettings
from pipeline.errors import (
    AbortableError,
    CheckpointStoreError,
    FencedError,
    RetriableError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.testing.memory_clients import MemoryJournalReader, MemoryProducer
from pipeline.testing.memory_store import MemorySnapshot, MemoryStore
from tests.support.runtime.fleet import Fleet

AWAY = UnreachableError("away")


class Opened:
    """The objects of a class that were created and not closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, made: type[Any]) -> None:
        self.left: list[Any] = []
        begin, close = made.__init__, made.close

        def opening(one: Any, *arguments: Any, **options: Any) -> None:
            begin(one, *arguments, **options)
            self.left.append(one)

        def closing(one: Any) -> None:
            close(one)
            self.left = [other for other in self.left if other is not one]

        monkeypatch.setattr(made, "__init__", opening)
        monkeypatch.setattr(made, "close", closing)


def test_what_workers_open_is_closed_whatever_happens_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client is threads and sockets: one that is forgotten at each outage ends the worker after some days."""
    classes = (MemoryProducer, MemoryJournalReader, MemoryStore, MemorySnapshot)
    opened = {made: Opened(monkeypatch, made) for made in classes}
    settings = WorkerSettings(
        check_interval_s=1.0, checkpoint_store="memory", checkpoint_interval_s=2.0, checkpoint_journal_bytes=1
    )
    fleet = Fleet(partitions=4, settings=settings)
    for worker in ("a", "b"):
        fleet.start(worker)
    fleet.send()
    fleet.settle()
    fail = fleet.broker.fail_next
    ids = [f"sums.main.{partition}" for partition in range(4)]
    fail("commit", UnknownOutcomeError("no answer"), after=True, where=ids[0])
    fail("flush", AbortableError("refused"), where=ids[1])
    fail("commit", FencedError("fenced"), where=ids[2])
    fail("commit", UnknownOutcomeError("no answer"), where=ids[3])
    for transactional_id in ids:
        fail("init", AWAY, where=transactional_id)
    fail("init", FencedError("fenced"), where=ids[3])
    for call in ("put", "objects", "put"):
        fleet.checkpoints.fail_next(call, CheckpointStoreError("away"))
    for error in (RetriableError("truncated"), AWAY):
        fail("read", error, where="sums.main.journal[2]")
        fail("bounds", error, where="sums.main.journal[0]")
    fleet.send()
    fleet.settle()
    fleet.start("c")  # which follows what it is to have
    for partition, transactional_id in enumerate(ids):
        for error in (RetriableError("truncated"), AWAY, RetriableError("truncated")):
            fail("read", error, where=f"sums.main.journal[{partition}]")
        fail("init", FencedError("fenced"), where=transactional_id)  # when it has a copy already
    fleet.send()
    fleet.settle(180.0)
    fleet.check()
    assert (
        fleet.broker.faults.left().count("init") == 3
    )  # those of the tasks that have stayed where they were
    for node in fleet.nodes:
        fleet.stop(node)
    assert {made.__name__: len(each.left) for made, each in opened.items()} == {
        "MemoryProducer": 0,
        "MemoryJournalReader": 0,
        "MemoryStore": 0,
        "MemorySnapshot": 0,
    }
