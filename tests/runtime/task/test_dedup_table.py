"""A dedup table against the simplest one: a dict that never forgets a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline import App, Dedup
from pipeline.api.context import RuntimeContext
from pipeline.api.declarations import declared_topic
from pipeline.api.table import TaskOverlay
from pipeline.core import dedup as core
from pipeline.core.names import EVENT_ID_HEADER, TaskId, TopicPartition
from pipeline.ports import Output
from pipeline.runtime.task import dedup as runtime
from pipeline.runtime.task.dedup import DedupTable
from pipeline.testing import ManualClock
from pipeline.testing.memory_log import MemoryRecord
from pipeline.testing.memory_store import MemoryStores

TASK = TaskId("app", "main", 0)
START_MS = 1_000
TTL_MS = 20


@dataclass
class Model:
    """Decides by definition. `seen`: clock at first sight; nothing is ever deleted."""

    clock_ms: int = 0
    seen: dict[int, int] = field(default_factory=dict)

    def process(self, number: int, timestamp_ms: int, wall_ms: int, *, succeeds: bool) -> bool:
        """Whether handlers get the event."""
        now_ms = max(self.clock_ms, min(timestamp_ms, wall_ms))
        known = number in self.seen and now_ms - self.seen[number] <= TTL_MS
        if known or succeeds:
            self.clock_ms = now_ms
        if succeeds and not known:
            self.seen[number] = now_ms
        return not known

    def copy(self) -> Model:
        return Model(self.clock_ms, dict(self.seen))

    @property
    def alive(self) -> int:
        return sum(self.clock_ms - seen <= TTL_MS for seen in self.seen.values())


class Rig:
    """One task's table over a store, which commits, loses what is open, and starts again."""

    def __init__(self) -> None:
        self.topic = App("app").topic("in", value=bytes, dedup=Dedup(ttl_s=TTL_MS / 1000))
        self.stores = MemoryStores()
        self.clock = ManualClock(START_MS)
        self.model = Model()
        self.committed = Model()
        self.sealed: dict[bytes, bytes | None] | None = None
        self.most_alive = 0
        self.most_learnt = 0  # by one commit
        self.start()

    def start(self) -> None:
        self.overlay = TaskOverlay()
        self.store = self.stores.open(TASK)
        context = RuntimeContext({}, {}, lambda resource: resource.factory())
        self.table = DedupTable(declared_topic(self.topic), self.store, self.overlay, context, self.clock)

    def process(self, events: Sequence[tuple[int, int, bool]], *, batch: bool) -> None:
        """(id, timestamp, whether its handler succeeds). A batch is processed as the processor does it."""
        wall_ms = self.clock.wall_ms()
        records = [record(number, timestamp_ms) for number, timestamp_ms, _ in events]
        fails = {id(r) for r, (_, _, succeeds) in zip(records, events, strict=True) if not succeeds}
        expected = [
            r
            for r, (number, timestamp_ms, succeeds) in zip(records, events, strict=True)
            if self.model.process(number, timestamp_ms, wall_ms, succeeds=succeeds)
        ]
        called = list(self._halves(records, fails) if batch else self._one_by_one(records, fails))
        assert list(map(id, called)) == list(map(id, expected))

    def _one_by_one(self, records: Sequence[Any], fails: set[int]) -> Iterator[Any]:
        for r in self.table.unique(records, _refuse):
            yield r
            if id(r) in fails:
                self.table.disown()

    def _halves(self, records: Sequence[Any], fails: set[int]) -> Iterator[Any]:
        admitted = self.table.admit(records)
        failed = [r for r in admitted.records if id(r) in fails]
        if not failed:
            self.table.settle(admitted)
            yield from admitted.records
        elif len(records) == 1:
            yield records[0]
        else:
            middle = len(records) // 2
            yield from self._halves(records[:middle], fails)
            yield from self._halves(records[middle:], fails)

    def seal(self) -> None:
        self.apply()
        self.sealed = dict(self.table.take_writes())
        self.overlay.sealed = self.sealed
        learnt = sum(
            key.startswith(core.id_prefix("in")) and value is not None for key, value in self.sealed.items()
        )
        self.most_learnt = max(self.most_learnt, learnt)
        self.committed = self.model.copy()
        self.most_alive = max(self.most_alive, self.model.alive)

    def apply(self) -> None:
        if self.sealed is not None:
            self.store.apply(self.sealed, b"position")
            self.overlay.sealed = {}
            self.sealed = None
            self.check()

    def crash(self) -> None:
        """What is open is lost; a sealed commit is in the journal, and applied by the restore."""
        if self.sealed is not None:
            self.store.apply(self.sealed, b"position")
            self.sealed = None
        self.stores.crash()
        self.model = self.committed.copy()
        self.start()

    def check(self) -> None:
        """Nothing is deleted early, everything is found when it is over, and rows do not pile up."""
        ids: dict[bytes, int] = {}
        named: dict[bytes, int] = {}
        for key, value in self.stores.contents(TASK).items():
            if key.startswith(core.id_prefix("in")):
                ids[key] = core.unpack_clock(value)
            elif key.startswith(core.expiry_prefix("in")):
                for name in core.digests_in(value):
                    place = core.id_prefix("in") + name
                    named[place] = max(named.get(place, 0), core.expiry_clock(key))
        for number, seen in self.committed.seen.items():
            if self.committed.clock_ms - seen <= TTL_MS:
                assert ids[core.id_prefix("in") + core.digest(b"%d" % number)] == seen
        assert all(named.get(key, -1) >= seen for key, seen in ids.items())
        rows = len(self.stores.contents(TASK)) - 1
        assert rows <= 2 * (self.most_alive + self.most_learnt + core.DIGESTS_PER_EXPIRY)


def record(number: int, timestamp_ms: int) -> MemoryRecord:
    headers = [(EVENT_ID_HEADER, b"%d" % number)]
    return MemoryRecord(TopicPartition("in", 0), 0, Output("in", None, b"", timestamp_ms, headers))


def _refuse(_record: object, error: BaseException) -> None:
    raise error


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """Limits that a few events reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "DIGESTS_PER_EXPIRY", 2)
        patch.setattr(runtime, "FORGOTTEN_AT_LEAST", 2)
        yield


events = st.lists(
    st.tuples(
        st.integers(0, 5), st.integers(START_MS - 5, START_MS + 200), st.sampled_from([True] * 4 + [False])
    ),
    min_size=1,
    max_size=6,
)
steps = st.one_of(
    st.tuples(st.just("process"), events),
    st.tuples(st.just("batch"), events),
    st.tuples(st.just("wait"), st.integers(1, 2 * TTL_MS)),
    st.sampled_from([("seal", 0), ("apply", 0), ("crash", 0), ("seal", 0), ("apply", 0)]),
)


@given(st.lists(steps, max_size=40))
@example(  # an id comes again after its time, within one commit
    [
        ("process", [(0, 995, True), (1, 995, True)]),
        ("wait", 30),
        ("process", [(0, 1030, True)]),
        ("seal", 0),
        ("apply", 0),
    ]
)
@example(  # and in a later one, which deletes the old expiry
    [
        ("process", [(0, 995, True)]),
        ("seal", 0),
        ("wait", 30),
        ("process", [(0, 1030, True)]),
        ("seal", 0),
        ("process", [(1, 1031, True)]),
        ("wait", 10),
        ("process", [(2, 1040, True)]),
        ("seal", 0),
        ("apply", 0),
    ]
)
@example(  # whose expiry is deleted by a commit after that
    [
        ("process", [(0, 990, True), (1, 990, True), (2, 991, True), (3, 991, True), (4, 992, True)]),
        ("seal", 0),
        ("wait", 30),
        ("process", [(4, 1030, True)]),
        ("seal", 0),
        ("crash", 0),
        ("process", [(5, 1030, True)]),
        ("seal", 0),
        ("process", [(4, 1030, True)]),
        ("seal", 0),
        ("apply", 0),
    ]
)
@settings(max_examples=200)
def test_decisions_are_those_of_a_dict_that_never_forgets(history: list[tuple[str, Any]]) -> None:
    """In whatever order events come, time passes, commits are sealed and applied, and processes end."""
    rig = Rig()
    for step, what in history:
        if step == "process":
            rig.process(what, batch=False)
        elif step == "batch":
            rig.process(what, batch=True)
        elif step == "wait":
            rig.clock.advance(what / 1000)
        elif step == "seal":
            rig.seal()
        elif step == "apply":
            rig.apply()
        else:
            rig.crash()


@given(st.lists(events, max_size=20), st.integers(1, 20))
@example([[(0, 995, True), (1, 995, True), (2, 1016, True)], [(3, 1016, True), (4, 1016, True)]], 16)
@example([[(0, 995, True)], [(1, 995, True), (0, 1016, True)], [(1, 995, True)]], 16)
@settings(max_examples=200)
def test_what_is_over_is_gone_after_as_many_commits_as_it_took(
    history: list[list[tuple[int, int, bool]]], each_ms: int
) -> None:
    """A table that forgets more slowly than it learns would fill the disk."""
    rig = Rig()
    for some in history:
        rig.process(some, batch=False)
        rig.clock.advance(each_ms / 1000)
        rig.seal()
    rig.clock.advance(1.0)
    for number in range(100, 100 + 2 * len(history) + 4):
        rig.clock.advance(2 * TTL_MS / 1000)
        rig.process([(number, rig.clock.wall_ms(), True)], batch=False)
        rig.seal()
    rig.apply()
    names = [key[:3] for key in rig.stores.contents(TASK)]
    assert sorted(names) == [b"\x00dc", b"\x00di", b"\x00dx"]  # the clock, and the last id
