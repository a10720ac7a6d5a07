"""Random histories of a whole app: whatever crashes and fails in between, results are those of a fold.

Two groups on three partitions, the second reading what the first writes. Handlers are not deterministic: each
call of `add` takes a new ticket, stores it, and sends it with the ticket it found. So a table and outputs that
come from two different histories of a record are seen even when their sums agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import count

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline import App, Batch, Context, Event
from pipeline.config import WorkerSettings
from pipeline.core.names import TaskId
from pipeline.errors import (
    AbortableError,
    CheckpointStoreError,
    FatalTaskError,
    FencedError,
    PipelineError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import Step
from pipeline.testing import DeferredExecutor, TestDriver

PARTITIONS = 3
KEYS = ["a", "b", "c", "d", "e", "f"]
POISON = -1

tickets = count(1)


class Sum(msgspec.Struct, frozen=True):
    """A key after `count` inputs. `ticket`: of the call that made this; `before`: of the one before it."""

    count: int
    total: int
    ticket: int
    before: int


class Seen(msgspec.Struct, frozen=True):
    """What the second group knows of a key."""

    count: int
    ticket: int


app = App("random")
numbers = app.topic("numbers", key=str, value=int)
sums = app.topic("sums", key=str, value=Sum)
totals = app.table("totals", key=str, value=Sum)
odd = app.table("odd", key=tuple[str, str], value=list[int])
second = app.group("second")
followed = second.table("followed", key=str, value=Seen)
reports = app.topic("reports", key=str, value=Seen | None)


@app.handler(numbers, on_error="skip")
def add(event: Event[str, int], ctx: Context) -> None:
    """Write and send before raising, so that a poison record has something to leave behind."""
    table, ticket = ctx.table(totals), next(tickets)
    found = table.get(event.key, Sum(0, 0, 0, 0))
    made = Sum(found.count + 1, found.total + event.value, ticket, found.ticket)
    table[event.key] = made
    ctx.send(sums, event.key, made)
    place = (event.key, "odd")
    if made.count % 2:
        ctx.table(odd)[place] = [made.count]
    else:
        del ctx.table(odd)[place]
    if event.value == POISON:
        raise ValueError("poison")


@second.batch_handler(sums)
def follow(batch: Batch[str, Sum], ctx: Context) -> None:
    """Report each sum; every third report is a tombstone."""
    table = ctx.table(followed)
    for event in batch:
        found = table.get(event.key, Seen(0, 0))
        made = Seen(found.count + 1, event.value.ticket)
        table[event.key] = made
        ctx.send(reports, event.key, made if made.count % 3 else None)


Inputs = list[tuple[str, int]]
INPUTS = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from([1, 2, 3, POISON])), min_size=1, max_size=8
)
Fault = tuple[str, PipelineError, bool]


def faults() -> st.SearchStrategy[Fault]:
    """(call, error, whether the call had its effect before it failed)."""
    unknown = UnknownOutcomeError("no answer")
    abort = AbortableError("must be aborted")
    away = UnreachableError("away")
    return st.sampled_from(
        [
            ("commit", unknown, True),
            ("commit", unknown, False),
            ("commit", abort, False),
            ("flush", abort, False),
            ("flush", unknown, True),
            ("send", abort, False),
            ("append", abort, False),
            ("commit", FencedError("a time-out, or a newer owner"), False),
            ("abort", unknown, True),
            ("abort", unknown, False),
            ("init", away, False),
            ("bounds", away, False),
        ]
    )


STORE_CALLS = ("put", "get", "objects", "delete")


class RandomHistories(RuleBasedStateMachine):
    """Inputs, runs, crashes, stops and faults in any order; results are compared at the end and on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[str, list[int]] = defaultdict(list)
        self.disk_dies_too = False
        self.resets: list[dict[str, int]] = []  # reports by key that were committed when it was reset

    @initialize(
        deferred=st.booleans(),
        seed=st.integers(0, 2**16),
        cache_entries=st.sampled_from([1, 3, 1000]),
        records_per_commit=st.sampled_from([1, 3, 1000]),
        poll_records=st.sampled_from([1, 3, 1000]),
        checkpoint_bytes=st.none() | st.sampled_from([1, 2_000]),
        checkpoint_grace_s=st.sampled_from([0.0, 2.0]),
    )
    def start(
        self,
        deferred: bool,
        seed: int,
        cache_entries: int,
        records_per_commit: int,
        poll_records: int,
        checkpoint_bytes: int | None,
        checkpoint_grace_s: float,
    ) -> None:
        limits = WorkerSettings(
            checkpoint_store="" if checkpoint_bytes is None else "memory",
            checkpoint_interval_s=1.0,
            checkpoint_journal_bytes=checkpoint_bytes or 1,
            checkpoint_grace_s=checkpoint_grace_s,
            worker_id="test",
            cache_entries=cache_entries,
            max_records_per_commit=records_per_commit,
            max_poll_records=poll_records,
        )
        self.driver = TestDriver(app, partitions=PARTITIONS, deferred=deferred, seed=seed, settings=limits)

    @rule(
        inputs=INPUTS,
        faults=st.lists(faults(), max_size=3),
        crash=st.none() | st.tuples(st.sampled_from(Step), st.integers(1, 4)),
        disk_dies_too=st.booleans(),
    )
    def run_into_trouble(
        self, inputs: Inputs, faults: list[Fault], crash: tuple[Step, int] | None, disk_dies_too: bool
    ) -> None:
        """A live worker gets inputs, and things go wrong before they are done."""
        self.run()
        self.send(inputs)
        for fault in faults:
            self.fail(fault)
        if crash is not None:
            self.crash_at(*crash, disk_dies_too=disk_dies_too)
        self.run()

    @rule(inputs=INPUTS)
    def send(self, inputs: Inputs) -> None:
        for key, value in inputs:
            self.driver.send(numbers, key, value)
            self.sent[key].append(value)

    @rule()
    def run(self) -> None:
        self.attempt(self.driver.run)

    @rule(turns=st.integers(1, 4))
    def take_turns(self, turns: int) -> None:
        """Some turns of the worker, so that records stay open and commits under way."""
        for _ in range(turns):
            self.attempt(self.driver.step)

    @rule(steps=st.integers(1, 3))
    def work_beside(self, steps: int) -> None:
        """Some commits and restores run, with a deferred executor, while the worker itself rests."""
        executor = self.driver._executor
        if isinstance(executor, DeferredExecutor):
            for _ in range(steps):
                executor.run_one()

    @rule(seconds=st.sampled_from([0.05, 0.2, 4.0]))
    def wait(self, seconds: float) -> None:
        self.driver.clock.advance(seconds)

    @rule(step=st.sampled_from(Step), nth=st.integers(1, 4), disk_dies_too=st.booleans())
    def crash_at(self, step: Step, nth: int, disk_dies_too: bool) -> None:
        self.driver.crash_at(step, nth=nth)
        self.disk_dies_too = disk_dies_too

    @rule(lost_batches=st.integers(0, 3), empty_disk=st.booleans())
    def crash(self, lost_batches: int, empty_disk: bool) -> None:
        """The machine may go down with the process, and lose what its disk had not written."""
        self.driver.crash()
        self.driver.stores.crash(lost_batches=lost_batches)
        self.driver.restart(empty_disk=empty_disk)

    @rule(empty_disk=st.booleans())
    def stop(self, empty_disk: bool) -> None:
        self.attempt(self.driver.stop)
        self.driver.restart(empty_disk=empty_disk)

    @rule(fault=faults())
    def fail(self, fault: Fault) -> None:
        call, error, after = fault
        self.driver.broker.fail_next(call, error, after=after)

    @rule(call=st.sampled_from(STORE_CALLS), happened=st.booleans(), times=st.integers(1, 3))
    def fail_the_checkpoint_store(self, call: str, happened: bool, times: int) -> None:
        for _ in range(times):
            self.driver.checkpoints.fail_next(call, CheckpointStoreError("no answer"), after=happened)

    @rule(group=st.sampled_from(["main", "second"]), partition=st.integers(0, PARTITIONS - 1))
    def time_out(self, group: str, partition: int) -> None:
        """The coordinator aborts a transaction by itself and fences its producer."""
        self.driver.broker.expire(TaskId("random", group, partition).transactional_id)

    @rule()
    def reset_the_second_group(self) -> None:
        """Its state is forgotten, under a worker that may be in the middle of anything; its input comes again."""
        self.driver.broker.faults._ordered.clear()
        self.driver.checkpoints.faults._ordered.clear()
        self.driver._steps.armed.clear()
        try:
            self.driver.reset(group="second")
        except FatalTaskError as error:
            if "no journal" not in error.message and "no entry" not in error.message:
                raise
        else:
            self.resets.append({key: len(found) for key, found in self.reports_by_key().items()})

    @invariant()
    def committed_outputs_are_the_beginning_of_what_is_due(self) -> None:
        """At every moment, crashed or not: nothing doubled, nothing out of order, no history forked."""
        for key, found in self.outputs_by_key().items():
            good = [value for value in self.sent[key] if value != POISON][: len(found)]
            assert [item.total for item in found] == [sum(good[: n + 1]) for n in range(len(good))], key
            assert [item.before for item in found] == [0, *(item.ticket for item in found[:-1])], key

    def teardown(self) -> None:
        self.driver.broker.faults._ordered.clear()
        self.driver.checkpoints.faults._ordered.clear()
        self.driver._steps.armed.clear()
        self.driver.restart()
        self.driver.run()
        self.check_everything()
        self.driver.restart(empty_disk=True)
        self.driver.run()
        self.check_everything()

    def attempt(self, act: Callable[[], object]) -> None:
        """Do it; start again after a crash, or when faults have ended the worker as they should."""
        try:
            act()
        except (FencedError, UnreachableError, CheckpointStoreError):
            self.driver.restart()
        except FatalTaskError as error:
            if "aborted 5 times in a row" not in error.message and "genesis" not in error.message:
                raise
            self.driver.restart()
        if self.driver.crashed:
            self.driver.restart(empty_disk=self.disk_dies_too)

    def outputs_by_key(self) -> dict[str, list[Sum]]:
        found: dict[str, list[Sum]] = defaultdict(list)
        for event in self.driver.outputs(sums):
            found[event.key].append(event.value)
        return found

    def check_everything(self) -> None:
        good = {key: [v for v in values if v != POISON] for key, values in self.sent.items()}
        good = {key: values for key, values in good.items() if values}
        outputs = self.outputs_by_key()
        assert {key: len(found) for key, found in outputs.items()} == {k: len(v) for k, v in good.items()}
        assert self.driver.table(totals) == {key: found[-1] for key, found in outputs.items()}
        assert self.driver.table(odd) == {
            (key, "odd"): [len(values)] for key, values in good.items() if len(values) % 2
        }
        assert self.driver.table(followed) == {
            key: Seen(len(found), found[-1].ticket) for key, found in outputs.items()
        }
        due: dict[str, list[Seen | None]] = {}
        for key, found in outputs.items():
            every = [Seen(n, item.ticket) if n % 3 else None for n, item in enumerate(found, 1)]
            before: list[Seen | None] = []
            for reset in self.resets:
                before += every[: reset.get(key, 0) - len(before)]
            due[key] = before + every
        assert self.reports_by_key() == due

    def reports_by_key(self) -> dict[str, list[Seen | None]]:
        reported: dict[str, list[Seen | None]] = defaultdict(list)
        for event in self.driver.outputs(reports):
            reported[event.key].append(event.value)
        return reported


TestRandomHistories = RandomHistories.TestCase
TestRandomHistories.settings = settings(
    max_examples=120, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
