"""Records that are tried again: after a while, in order, with nothing left of the tries that failed."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import pytest

from pipeline import App, Batch, Context, Event, OnError
from pipeline.config import WorkerSettings
from pipeline.core.names import TaskId
from pipeline.errors import HandlerError
from pipeline.ports import Step, task_fields
from pipeline.runtime.status import group_statuses, read_status
from pipeline.testing import TestDriver
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader

DELAY_S = 4.0


class Shaky:
    """Sums numbers per key; a number in `failing` raises that often, after it has written and sent."""

    def __init__(
        self,
        *,
        retries: int = 3,
        on_error: OnError = "dead_letter",
        batch: bool = False,
        partitions: int = 1,
        settings: WorkerSettings | None = None,
    ) -> None:
        self.app = App("shaky")
        self.numbers = self.app.topic("numbers", key=str, value=int)
        self.others = self.app.topic("others", key=str, value=int)
        self.sums = self.app.topic("sums", key=str, value=int)
        self.totals = self.app.table("totals", key=str, value=int)
        self.failing: dict[int, int] = {}
        self.calls: list[Any] = []
        register: Any = self.app.batch_handler if batch else self.app.handler
        function = self.add_all if batch else self.add
        for topic in (self.numbers, self.others):
            register(topic, on_error=on_error, retries=retries, retry_delay_s=DELAY_S)(function)
        self.driver = TestDriver(self.app, partitions=partitions, settings=settings)
        self.driver.run()  # live, and nothing to do

    def add(self, event: Event[str, int], ctx: Context) -> None:
        self.calls.append(event.value)
        self.add_one(event, ctx)

    def add_all(self, batch: Batch[str, int], ctx: Context) -> None:
        self.calls.append(list(batch.values))
        for event in batch:
            self.add_one(event, ctx)

    def add_one(self, event: Event[str, int], ctx: Context) -> None:
        table = ctx.table(self.totals)
        table[event.key] = table.get(event.key, 0) + event.value
        table[f"seen-{event.value}"] = event.value
        ctx.send(self.sums, event.key, table[event.key])
        if self.failing.get(event.value, 0):
            self.failing[event.value] -= 1
            raise ConnectionError("the service is away")

    def send(self, *numbers: int, partition: int = 0) -> None:
        for number in numbers:
            self.driver.send(self.numbers, "k", number, partition=partition)

    @property
    def sent(self) -> list[int]:
        return [event.value for event in self.driver.outputs(self.sums)]

    @property
    def waits(self) -> list[float]:
        return [said["wait_s"] for said in self.driver.log_events("record_retried")]


@pytest.mark.parametrize("batch", [False, True])
def test_a_record_that_works_at_last_counts_once_and_in_its_order(batch: bool) -> None:
    """The service answers after two attempts: the results do not show the outage."""
    shaky = Shaky(batch=batch)
    shaky.failing = {2: 2}
    shaky.send(1, 2, 3, 4)
    shaky.driver.run()
    assert shaky.sent == [1, 3, 6, 10]
    assert shaky.driver.table(shaky.totals) == {"k": 10, **{f"seen-{n}": n for n in (1, 2, 3, 4)}}
    assert shaky.driver.dead_letters() == []
    if not batch:
        assert shaky.calls == [1, 2, 2, 2, 3, 4]
        assert shaky.waits == [DELAY_S, 2 * DELAY_S]


def test_a_batch_is_halved_first_and_only_the_guilty_record_is_tried_again() -> None:
    """A batch of thousands must not be computed again and again for one record."""
    shaky = Shaky(batch=True)
    shaky.failing = {3: 3}  # the batch, its half, alone
    shaky.send(1, 2, 3, 4, 5)
    shaky.driver.run()
    assert shaky.sent == [1, 3, 6, 10, 15]
    assert shaky.calls == [[1, 2, 3, 4, 5], [1, 2], [3, 4, 5], [3], [3], [4, 5]]
    assert shaky.waits == [DELAY_S]


@pytest.mark.parametrize("policy", ["stop", "skip", "dead_letter"])
def test_the_policy_follows_the_last_try(policy: OnError) -> None:
    """Retries put a policy off; they do not replace it."""
    shaky = Shaky(on_error=policy, retries=2)
    shaky.failing = {2: 99}
    shaky.send(1, 2, 3)
    if policy == "stop":
        with pytest.raises(HandlerError, match=r"numbers\[0\] offset 1 cannot be processed"):
            shaky.driver.run()
        assert shaky.sent == [1]
    else:
        shaky.driver.run()
        assert shaky.sent == [1, 4]
        assert shaky.driver.table(shaky.totals) == {"k": 4, "seen-1": 1, "seen-3": 3}
    assert shaky.calls[:4] == [1, 2, 2, 2]
    assert shaky.waits == [DELAY_S, 2 * DELAY_S]
    assert len(shaky.driver.dead_letters()) == (policy == "dead_letter")


def test_waits_double_up_to_a_minute() -> None:
    """A service that is away for an hour is not asked ten thousand times, nor only once a day."""
    shaky = Shaky(retries=7)
    shaky.failing = {1: 7}
    shaky.send(1)
    shaky.driver.run()
    assert shaky.waits == [4, 8, 16, 32, 60, 60, 60]
    assert shaky.sent == [1]


def test_other_partitions_and_topics_continue_meanwhile() -> None:
    """One thread runs all tasks: a wait that held it would stop the whole worker."""
    shaky = Shaky(partitions=2)
    shaky.failing = {1: 1}
    shaky.send(1, 2)
    shaky.send(10, 20, partition=1)
    shaky.driver.send(shaky.others, "o", 100, partition=0)
    for _ in range(6):
        shaky.driver.step()
    assert shaky.calls == [1, 10, 20, 100]
    began_s = shaky.driver.clock.monotonic_s()
    shaky.driver.clock.advance(DELAY_S - 0.01)
    shaky.driver.step()
    assert 2 not in shaky.calls
    shaky.driver.run()
    assert shaky.calls == [1, 10, 20, 100, 1, 2]
    assert shaky.driver.clock.monotonic_s() - began_s >= DELAY_S


def test_what_comes_before_the_record_is_committed_while_it_waits() -> None:
    """A record that waits for minutes must not keep open what was done before it."""
    shaky = Shaky()
    shaky.failing = {2: 1}
    shaky.send(1, 2, 3)
    shaky.driver.step()
    shaky.driver.step()
    shaky.driver.clock.advance(1.0)
    shaky.driver.step()
    shaky.driver.step()
    assert shaky.sent == [1]
    shaky.driver.restart(empty_disk=True)
    shaky.driver.run()
    assert shaky.sent == [1, 3, 6]
    assert shaky.calls == [1, 2, 2, 3]


def test_a_partition_is_paused_while_too_much_waits_behind_the_record() -> None:
    """Memory stays bounded however long the service is away."""
    settings = WorkerSettings(worker_id="test", max_poll_records=5)
    shaky = Shaky(settings=settings)
    shaky.failing = {1: 1}
    shaky.send(*range(1, 101))
    for _ in range(50):
        shaky.driver.step()
    (run,) = shaky.driver.worker.runs
    assert 10 < run.tasks[0].backlog_records <= 15
    shaky.driver.run()
    assert shaky.calls == [1, *range(1, 101)]


@pytest.mark.parametrize("clean", [True, False])
def test_a_worker_that_ends_does_not_wait_and_the_next_one_tries_from_the_start(clean: bool) -> None:
    """A stop that waited for an hour of back-off would be killed; the record is where it was."""
    shaky = Shaky(retries=1, on_error="dead_letter")
    shaky.failing = {2: 2}
    shaky.send(1, 2, 3)
    for _ in range(3):
        shaky.driver.step()
    before_s = shaky.driver.clock.monotonic_s()
    if clean:
        shaky.driver.stop()
    shaky.driver.restart()
    assert shaky.driver.clock.monotonic_s() - before_s < DELAY_S
    assert shaky.calls == [1, 2]
    shaky.driver.run()
    assert shaky.sent == [
        1,
        3,
        6,
    ]  # 2 has failed twice, once in each process: with one retry each that is no letter
    assert shaky.driver.dead_letters() == []


@pytest.mark.parametrize("step", [Step.AFTER_OUTPUTS, Step.AFTER_FLUSH, Step.AFTER_COMMIT, Step.AFTER_APPLY])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_crash_around_a_retry_loses_and_doubles_nothing(step: Step, nth: int) -> None:
    """The commits before and with the record that was tried again are commits like others."""
    shaky = Shaky(retries=5)
    shaky.failing = {2: 3}
    shaky.send(1, 2, 3)
    shaky.driver.crash_at(step, nth=nth)
    shaky.driver.run()
    assert shaky.driver.crashed
    shaky.driver.restart(empty_disk=True)
    shaky.driver.run()
    assert shaky.sent == [1, 3, 6]


def test_a_record_that_cannot_be_decoded_is_not_tried_again() -> None:
    """Bytes do not get better; a partition must not wait for them."""
    shaky = Shaky()
    shaky.driver.send_raw(shaky.numbers, b"k", b"{")
    shaky.driver.send_raw(shaky.numbers, b"\xff", b"1")
    shaky.driver.send_raw(shaky.numbers, b"k", None)
    shaky.send(1)
    shaky.driver.run()
    assert shaky.waits == []
    assert len(shaky.driver.dead_letters()) == 3
    assert shaky.sent == [1]


@pytest.mark.parametrize("leaving", [SystemExit(3), asyncio.CancelledError(), GeneratorExit()])
def test_what_means_the_worker_is_not_tried_again_and_stops_the_task(leaving: BaseException) -> None:
    """`sys.exit` is no fault of the record, and an escaped cancellation must not end the process without a word."""
    app = App("leaving")
    inputs = app.topic("in", key=str, value=int)

    @app.handler(inputs, on_error="skip", retries=5)
    def leave(event: Event[str, int], ctx: Context) -> NoReturn:
        raise leaving

    driver = TestDriver(app)
    driver.send(inputs, "k", 1)
    with pytest.raises(HandlerError, match=type(leaving).__name__):
        driver.run()
    assert driver.log_events("record_retried") == []


def test_a_mistake_of_the_program_is_not_tried_again() -> None:
    """A topic that is not declared will not be so in a minute."""
    app = App("mistaken")
    inputs = app.topic("in", key=str, value=int)
    foreign = App("other").topic("out", key=str, value=int)

    @app.handler(inputs, on_error="dead_letter", retries=5)
    def send(event: Event[str, int], ctx: Context) -> None:
        ctx.send(foreign, "k", 1)

    driver = TestDriver(app)
    driver.send(inputs, "k", 1)
    with pytest.raises(HandlerError, match="not declared by this app"):
        driver.run()
    assert driver.log_events("record_retried") == []
    assert driver.dead_letters() == []


def test_two_handlers_of_a_topic_share_the_tries_of_a_record() -> None:
    """Both are undone and both run again; the one that raised says whether there is another try."""
    app = App("two")
    inputs = app.topic("in", key=str, value=int)
    counts = app.table("counts", key=str, value=int)
    calls: list[str] = []

    def count(name: str, ctx: Context) -> int:
        calls.append(name)
        table = ctx.table(counts)
        table[name] = table.get(name, 0) + 1
        return calls.count(name)

    @app.handler(inputs)
    def first(event: Event[str, int], ctx: Context) -> None:
        count("first", ctx)

    @app.handler(inputs, retries=2)
    def second(event: Event[str, int], ctx: Context) -> None:
        if count("second", ctx) < 3:
            raise ConnectionError("away")

    driver = TestDriver(app)
    driver.send(inputs, "k", 1)
    driver.run()
    assert calls == ["first", "second"] * 3
    assert driver.table(counts) == {"first": 1, "second": 1}


def test_tries_that_failed_are_counted() -> None:
    """A service that is away shows in the worker's counts before anything stops."""
    shaky = Shaky()
    shaky.failing = {2: 2, 3: 1}
    shaky.send(1, 2, 3)
    shaky.driver.run()
    progress = shaky.driver.worker.progress()
    assert (progress.records, progress.retried, progress.dead_lettered) == (3, 3, 0)
    assert shaky.driver.log_events("record_retried")[0] == {
        "event": "record_retried",
        **task_fields(TaskId("shaky", "main", 0), [0]),
        "topic": "numbers",
        "partition": 0,
        "offset": 1,
        "failures": 1,
        "wait_s": DELAY_S,
        "error": "ConnectionError",
        "message": "the service is away",
    }


def problems(shaky: Shaky) -> list[str]:
    """What a status says is wrong. Its number of retried records is that of these problems."""
    broker, clock = shaky.driver.broker, shaky.driver.clock
    found = read_status("shaky", MemoryCluster(broker), MemoryJournalReader(broker), clock.wall_ms())
    texts = [problem.text for problem in found.problems]
    retrying = sum(" is retried: " in text and "its last worker noted" not in text for text in texts)
    assert sum(group.retried for group in group_statuses(found)) == retrying
    return texts


def look_while_it_fails(shaky: Shaky, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What a status says at each call of the handler."""
    looks: list[list[str]] = []
    real = shaky.add_one

    def look(event: Event[str, int], ctx: Context) -> None:
        looks.append(problems(shaky))
        real(event, ctx)

    monkeypatch.setattr(shaky, "add_one", look)
    return looks


def test_a_status_names_the_record_that_is_tried_again_until_it_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The partition stands still for minutes, and nothing else says why."""
    shaky = Shaky(retries=3)
    shaky.failing = {1: 3}
    looks = look_while_it_fails(shaky, monkeypatch)
    shaky.send(1, 2)
    shaky.driver.run()
    tries = ["1 attempt failed", "2 attempts failed", "3 attempts failed"]
    assert looks[:4] == [[], *([each] for each in map(retried, tries))]
    assert problems(shaky) == []


def retried(tries: str) -> str:
    return (
        f"shaky/main/0: record numbers[0] offset 0 is retried: {tries}, "
        "the last with ConnectionError: the service is away"
    )


def test_the_next_owner_says_anew_which_record_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The note of a worker that died must not outlive its task there."""
    shaky = Shaky(retries=3, on_error="stop")
    shaky.failing = {1: 3}
    looks = look_while_it_fails(shaky, monkeypatch)
    shaky.send(1)

    def third_try(event: Event[str, int], ctx: Context) -> None:
        if len(looks) == 2:
            shaky.driver.crash_at(Step.BEFORE_BEGIN)
            shaky.failing = {}
        look(event, ctx)

    look = shaky.add_one
    monkeypatch.setattr(shaky, "add_one", third_try)
    shaky.driver.run()
    assert shaky.driver.crashed
    assert looks[-1] == [retried("2 attempts failed")]
    shaky.driver.restart()
    shaky.driver.run()
    assert problems(shaky) == []
    assert shaky.sent == [1]


def test_a_handler_whose_second_try_succeeds_writes_no_note() -> None:
    """Else each record of a shaky service would cost a note."""
    app = App("soon")
    numbers = app.topic("numbers", key=str, value=int)
    failed: set[int] = set()

    @app.handler(numbers, retries=1, retry_delay_s=0.5)
    def once(event: Event[str, int], ctx: Context) -> None:
        if event.value not in failed:
            failed.add(event.value)
            raise ConnectionError("away")

    driver = TestDriver(app, partitions=1)
    driver.run()
    before = len(driver.broker.records("pipeline.workers.soon"))
    for number in range(20):
        driver.send(numbers, "k", number)
    driver.run()
    assert len(failed) == 20
    assert len(driver.broker.records("pipeline.workers.soon")) == before
