"""Random histories of a whole app: whatever crashes, fails and is done to it, results are those of a fold.

The app is `tests.support.runtime.random_app`: two groups, three partitions, one to three tasks, ids, retries, dead
letters, and a table whose type changes from version to version. Another process may act in the middle of any step of
the worker's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.app import declared_app
from pipeline.config import WorkerSettings
from pipeline.core.names import GroupId, TaskId
from pipeline.core.records import partition_of
from pipeline.errors import (
    CheckpointStoreError,
    ConfigError,
    FatalTaskError,
    FencedError,
    InputError,
    RefusedError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import Output, Step
from pipeline.runtime.reset import plan_reset, reset_task, start_at
from pipeline.testing import TestDriver
from pipeline.testing.system import DeferredExecutor
from tests.support.checker import Checker, MemoryLog
from tests.support.runtime.random_app import (
    FLAKY,
    KEYS,
    PANIC,
    PARTITIONS,
    POISON,
    PROMISES,
    REFUSED,
    REFUSED_HEADER,
    ROW,
    UNREADABLE,
    Calls,
    Expected,
    Input,
    Seen,
    Sum,
    make_app,
)
from tests.support.runtime.random_topics import topics_of
from tests.support.runtime.random_troubles import AT, STARTS, Fault, Meddler, faults

# Each history has its own checker, from its beginning on: one that came at the end would not know of resets whose
# entries have been truncated since.
pytestmark = pytest.mark.unverified

VERSIONS = 4
VALUES = [1, 1, 2, 2, 3, 3, POISON, FLAKY, FLAKY, PANIC, REFUSED, UNREADABLE]
# (key, value, whether it is sent a second time)
Inputs = list[tuple[str, int, bool]]
INPUTS = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES), st.booleans()),
    min_size=1,
    max_size=8,
)
GROUPS = st.sampled_from(["main", "second"])
NUMBERS = st.integers(0, PARTITIONS - 1)
STORE_CALLS = ("put", "get", "objects", "delete")
# Why a reset is refused that comes before the first start, or before the first record.
TOO_EARLY = ("no journal", "no entry", "has processed no record")
TRUNCATED = "no recent entry names its inputs"  # of a reset of one partition


class RandomHistories(RuleBasedStateMachine):
    """Inputs, runs, crashes, stops and faults in any order; results are compared at the end and on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.expected = Expected()
        self.calls: Calls = Calls()
        self.disk_dies_too = False
        self.resets: dict[str, list[int]] = defaultdict(list)  # reports of each key when it was reset

    @initialize(
        tasks=st.fixed_dictionaries(
            {"main": st.integers(1, PARTITIONS), "second": st.integers(1, PARTITIONS)}
        ),
        deferred=st.booleans(),
        seed=st.integers(0, 2**16),
        cache_bytes=st.sampled_from([1, 1_000, 1_000_000]),
        records_per_commit=st.sampled_from([1, 3, 1000]),
        poll_records=st.sampled_from([1, 3, 1000]),
        checkpoint_bytes=st.none() | st.sampled_from([1, 2_000]),
        checkpoint_grace_s=st.sampled_from([0.0, 2.0]),
    )
    def start(
        self,
        tasks: dict[str, int],
        deferred: bool,
        seed: int,
        cache_bytes: int,
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
            cache_bytes=cache_bytes,
            max_records_per_commit=records_per_commit,
            max_poll_records=poll_records,
        )
        self.tasks = tasks
        self.made = make_app(1, self.calls, tasks)
        app = self.made.app
        self.driver = TestDriver(app, partitions=PARTITIONS, deferred=deferred, seed=seed, settings=limits)
        self.driver.broker.refuses = _refuses
        self.meddler = Meddler(self.driver._steps)
        vars(self.driver)["_steps"] = self.meddler
        self.checker = Checker(MemoryLog(self.driver.broker), *PROMISES)
        self.topics = topics_of(self.driver, lambda: self.made)

    @rule(
        inputs=INPUTS,
        faults=st.lists(faults(), max_size=3),
        crash=st.none() | AT,
        disk_dies_too=st.booleans(),
        meddle=st.none() | st.tuples(AT, st.just("time-out") | STARTS, st.booleans()),
    )
    def run_into_trouble(
        self,
        inputs: Inputs,
        faults: list[Fault],
        crash: tuple[Step, int] | None,
        disk_dies_too: bool,
        meddle: tuple[tuple[Step, int], str | float, bool] | None,
    ) -> None:
        """A live worker gets inputs, and things go wrong before they are done."""
        self.run()
        self.send(inputs)
        for fault in faults:
            self.fail(fault)
        if crash is not None:
            self.crash_at(crash, disk_dies_too=disk_dies_too)
        if meddle is not None:
            self.meddle_at(*meddle)
        self.run()

    @rule(inputs=INPUTS)
    def send(self, inputs: Inputs) -> None:
        for key, value, twice in inputs:
            number = sum(map(len, self.expected.inputs))
            one = Input(key, value, b"%d" % number)
            for _ in range(1 + twice):
                self.send_one(one)

    @rule(nth=st.integers(1, 5))
    def send_again(self, nth: int) -> None:
        """An event of some time ago."""
        for inputs in self.expected.inputs:
            if len(inputs) >= nth:
                self.send_one(inputs[-nth])

    def send_one(self, one: Input) -> None:
        bad_name: list[tuple[str | bytes, bytes | None]] = [(b"\xff", b"")] if one.value == UNREADABLE else []
        headers = [("event-id", one.event_id), *bad_name]
        self.driver.send_raw(self.made.numbers, one.key.encode(), b"%d" % one.value, headers=headers)
        self.expected.sent(one)

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
                self.attempt(executor.run_one)

    @rule(seconds=st.sampled_from([0.05, 0.2, 4.0]))
    def wait(self, seconds: float) -> None:
        self.driver.clock.advance(seconds)

    @rule(at=AT, disk_dies_too=st.booleans())
    def crash_at(self, at: tuple[Step, int], disk_dies_too: bool) -> None:
        step, nth = at
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

    @rule(clean=st.booleans())
    def deploy_the_next_version(self, clean: bool) -> None:
        """One table has another type in it."""
        if self.made.version < VERSIONS:
            if clean:
                self.attempt(self.driver.stop)
            self.made = make_app(self.made.version + 1, self.calls, self.tasks)
            self.driver.restart(app=self.made.app)

    @rule(topic=st.sampled_from(["numbers", "sums", "reports", "dead letters"]), clean=st.booleans())
    def recreate_a_topic(self, topic: str, clean: bool) -> None:
        """Between two releases. A group that reads it is refused until it is reset; others know nothing of it."""
        if clean:
            self.attempt(self.driver.stop)
        self.forget_troubles()
        self.driver.restart()
        self.checker.check()
        match topic:
            case "numbers":
                self.driver.recreate(self.made.numbers)
                self.topics.sums.forget()
                self.topics.letters.forget()
                self.expected = Expected()
                self.start_over("main")
            case "sums":
                self.topics.sums.before_deletion()
                self.driver.recreate(self.made.sums)
                self.topics.reports.forget()
                self.resets.clear()
                self.start_over("second")
            case "reports":
                self.topics.reports.before_deletion()
                self.driver.recreate(self.made.reports)
            case "dead letters":
                self.topics.letters.before_deletion()
                self.driver.broker.delete(GroupId("random", "main").dead_letter_topic)

    def start_over(self, group: str) -> None:
        """What runbooks/topic-recreated.md says. A group that has no history yet has nothing to start over."""
        journal = GroupId("random", group).journal_topic
        if self.driver.broker.describe(journal) is None or not self.driver.broker.records(journal):
            return
        with pytest.raises(ConfigError, match="was deleted and created again"):
            self.driver.run()
        self.driver.restart()
        for number in range(self.tasks[group]):
            self.reset_task(TaskId("random", group, number), "earliest")

    @rule(fault=faults())
    def fail(self, fault: Fault) -> None:
        call, error, after = fault
        self.driver.broker.fail_next(call, error, after=after)

    @rule(call=st.sampled_from(STORE_CALLS), happened=st.booleans(), times=st.integers(1, 3))
    def fail_the_checkpoint_store(self, call: str, happened: bool, times: int) -> None:
        for _ in range(times):
            self.driver.checkpoints.fail_next(call, CheckpointStoreError("no answer"), after=happened)

    @rule(group=GROUPS, number=NUMBERS)
    def time_out(self, group: str, number: int) -> None:
        self.time_out_task(TaskId("random", group, number % self.tasks[group]))

    def time_out_task(self, task: TaskId) -> None:
        """The coordinator aborts a transaction by itself and fences its producer."""
        self.driver.broker.expire(task.transactional_id)

    @rule(group=GROUPS, partition=NUMBERS, start=STARTS, whole_task=st.booleans())
    def reset(self, group: str, partition: int, start: str | float, *, whole_task: bool) -> None:
        """A state is forgotten, under a worker that may be in the middle of anything; input comes again, or never."""
        task = TaskId("random", group, partition % self.tasks[group])
        self.reset_while_it_runs(task, start, None if whole_task else partition)

    def reset_while_it_runs(self, task: TaskId, start: str | float, partition: int | None) -> None:
        with self.in_another_process():
            try:
                self.reset_task(task, start, partition)
            except (FatalTaskError, InputError) as error:
                if not any(known in error.message for known in (*TOO_EARLY, TRUNCATED)):
                    raise

    @rule(at=AT, what=st.just("time-out") | STARTS, in_doubt=st.booleans())
    def meddle_at(self, at: tuple[Step, int], what: str | float, in_doubt: bool) -> None:
        """Another process acts on the task in the middle of what the worker is doing.

        `in_doubt`: and the worker's own request for a commit then stays without an answer.
        """

        def act(task: TaskId) -> None:
            if what == "time-out":
                self.time_out_task(task)
            else:
                self.reset_while_it_runs(task, what, task.number)
            if in_doubt:
                unknown = UnknownOutcomeError("no answer")
                self.driver.broker.fail_next("commit", unknown, where=task.transactional_id)

        self.meddler.arm(*at, act)

    def reset_task(self, task: TaskId, start: str | float, partition: int | None = None) -> None:
        """Reset one partition of a task, or all of them."""
        self._reset_task(task, start, partition)
        self.checker.check()  # before the entry can be truncated: it says where the history begins again

    def _reset_task(self, task: TaskId, start: str | float, partition: int | None) -> None:
        tasks = self.tasks[task.group]
        partitions = [partition] if partition is not None else [*range(task.number, PARTITIONS, tasks)]
        if task.group == "second":
            self._request_reset(task, "earliest", partition)
            for key, found in self.topics.reports.since().items():
                if partition_of(key.encode(), PARTITIONS) in partitions:
                    self.resets[key].append(len(found))
            return
        ends = [len(self.expected.inputs[each]) for each in partitions]
        if isinstance(start, str):
            places = [0] * len(ends) if start == "earliest" else ends
            self._request_reset(task, start, partition)
        else:  # an offset of all the partitions
            places = [int(min(ends) * start)] * len(ends)
            self._request_reset(task, str(places[0]), partition)
        for each, place in zip(partitions, places, strict=True):
            sums, letters = self.results(each)
            self.expected.reset(each, place, sum(map(len, sums.values())) + len(letters))

    def _request_reset(self, task: TaskId, start: str, partition: int | None) -> None:
        """As `TestDriver.reset`, which resets one partition or all tasks."""
        driver, environment = self.driver, self.driver.environment()
        declared = declared_app(self.made.app)
        groups = [group for group in declared.groups if group.name == task.group]
        number = task.number if partition is None else None
        for reset in [*plan_reset(declared, groups, number, start_at([start]), environment, partition)]:
            reset_task(reset, "reset", environment, driver.settings)
        driver.clock.advance(driver.settings.check_interval_s)

    @contextmanager
    def in_another_process(self) -> Iterator[None]:
        """Where the worker's faults and crashes do not happen."""
        ordered = self.driver.broker.faults._ordered
        kept = ordered[:]
        ordered.clear()
        self.meddler.busy = True
        try:
            yield
        finally:
            self.meddler.busy = False
            ordered.extend(kept)

    @invariant()
    def committed_results_are_the_beginning_of_what_is_due(self) -> None:
        """At every moment, crashed or not: nothing doubled, nothing out of order, no history forked, no half."""
        for partition in range(PARTITIONS):
            self.expected.check(partition, *self.results(partition))
        self.checker.check()

    def forget_troubles(self) -> None:
        """What was ordered and has not happened yet never will."""
        self.driver.broker.faults._ordered.clear()
        self.driver.checkpoints.faults._ordered.clear()
        self.meddler.clear()

    def teardown(self) -> None:
        self.forget_troubles()
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
        except (FencedError, UnreachableError, CheckpointStoreError, RefusedError):
            self.driver.restart()  # a record that Kafka refuses at a stop is looked for by the next start
        except FatalTaskError as error:
            if "aborted 5 times in a row" not in error.message and "genesis" not in error.message:
                raise
            self.driver.restart()
        if self.driver.crashed:
            self.driver.restart(empty_disk=self.disk_dies_too)

    def results(self, partition: int) -> tuple[dict[str, list[Sum]], list[int]]:
        """Committed sums by key, and offsets of dead letters, since the input was recreated."""
        sums = {
            key: found
            for key, found in self.topics.sums.since().items()
            if partition_of(key.encode(), PARTITIONS) == partition
        }
        return sums, self.topics.letters.since().get(partition, [])

    def check_everything(self) -> None:
        self.checker.finish(MemoryLog(self.driver.broker))
        last: dict[str, Sum] = {}
        outputs = self.topics.sums.now()
        for partition in range(PARTITIONS):
            sums, letters = self.results(partition)
            assert self.expected.check(partition, sums, letters), f"partition {partition} is not done"
            last.update({key: values[-1] for key, values in sums.items()})
        due = self.expected.tables()
        driver, made = self.driver, self.made
        assert {key: (row.count, row.total) for key, row in driver.table(made.totals).items()} == due
        assert driver.table(made.totals) == {key: last[key] for key in due}
        assert driver.table(made.recent) == {
            (key, "recent"): [*range(n - n % ROW + 1, n + 1)] for key, (n, _) in due.items() if n % ROW
        }
        counted = driver.table(made.counted)
        assert {key: getattr(row, f"count_{made.version}") for key, row in counted.items()} == {
            key: n for key, (n, _) in due.items()
        }
        for row in counted.values():  # each version has upgraded a row once, or not at all
            assert list(row.upgraded) == sorted(set(row.upgraded)), row
        assert driver.table(made.followed) == {
            key: Seen(len(found), found[-1].ticket) for key, found in outputs.items()
        }
        assert self.topics.reports.since() == {
            key: self.reports_due(key, found) for key, found in outputs.items()
        }

    def reports_due(self, key: str, sums: list[Sum]) -> list[Seen | None]:
        every = [Seen(n, item.ticket) if n % 3 else None for n, item in enumerate(sums, 1)]
        before: list[Seen | None] = []
        for reported in self.resets[key]:
            before += every[: reported - len(before)]
        return before + every


def _refuses(output: Output) -> str | None:
    """Outputs of `REFUSED`; the dead letter has the input's headers, which have no such one."""
    return "it says so" if REFUSED_HEADER in output.headers else None


TestRandomHistories = RandomHistories.TestCase
TestRandomHistories.settings = settings(
    max_examples=120, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


def _truncating(tasks: int) -> RandomHistories:
    """A history with a checkpoint after each entry."""
    history = RandomHistories()
    history.start(
        tasks={"main": tasks, "second": tasks},
        deferred=False,
        seed=0,
        cache_bytes=1,
        records_per_commit=1,
        poll_records=1,
        checkpoint_bytes=1,
        checkpoint_grace_s=0.0,
    )
    return history


def test_an_input_of_several_partitions_is_recreated_after_a_truncation() -> None:
    """The entry that has the number of tasks is gone, too; without it, positions cannot be assigned to partitions."""
    history = _truncating(1)
    for _ in range(3):
        history.send([("a", 1, False), ("b", 1, False), ("d", 1, False)])
    for _ in range(2):
        history.run_into_trouble([("a", 1, False)], [], None, False, None)
    journal = history.driver.broker.records(GroupId("random", "main").journal_topic)
    assert journal[0].offset() > 4  # the offset of the acquire entry
    history.recreate_a_topic("numbers", clean=False)
    history.send([("a", 1, False)])
    history.teardown()


def test_an_input_is_recreated_after_a_truncation() -> None:
    """The checker never reads an entry that has the topic's id, and must not take one topic for the other."""
    history = _truncating(PARTITIONS)
    history.send([("a", 1, False)])
    history.run_into_trouble([("a", 1, False), ("a", POISON, False)], [], None, False, None)
    history.committed_results_are_the_beginning_of_what_is_due()
    journal = history.driver.broker.records(GroupId("random", "main").journal_topic)
    partition = partition_of(b"a", PARTITIONS)
    first = next(record.offset() for record in journal if record.partition() == partition)
    assert first > 4  # the offset of the acquire entry
    history.recreate_a_topic("numbers", clean=False)
    history.send([("a", 1, False)])
    history.teardown()
