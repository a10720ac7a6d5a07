"""A handler that does not return is noticed from another thread, named, and said to have come back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from pipeline import App, Batch, Context, Event, Topic
from pipeline.runtime.status import AppStatus, TaskPhase, read_status
from pipeline.runtime.watchdog import Watchdog
from pipeline.testing import TestDriver
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader


class Rig:
    """An app whose handlers look at themselves, as the watching thread would, while time goes by."""

    def __init__(self) -> None:
        self.app = App("app")
        self.numbers: Topic[str, int] = self.app.topic("numbers", key=str, value=int)
        self.driver = TestDriver(self.app)
        self.log = structlog.testing.CapturingLogger()
        self._dog: Watchdog | None = None

    @property
    def dog(self) -> Watchdog:
        if self._dog is None:
            worker, clock = self.driver.worker, self.driver.clock
            self._dog = Watchdog(
                lambda: worker.at_work, lambda: "the stack", worker.note_hang, 10.0, clock, self.log
            )
        return self._dog

    def wait(self, *seconds: float) -> None:
        """Look, and look again after each of these times."""
        self.dog.check()
        for time_s in seconds:
            self.driver.clock.advance(time_s)
            self.dog.check()

    def run(self, *values: int) -> None:
        for value in values:
            self.driver.send(self.numbers, "k", value)
        self.driver.run()

    def log_events(self, event: str) -> list[dict[str, Any]]:
        return [call.kwargs for call in self.log.calls if call.args == (event,)]

    def status(self) -> AppStatus:
        """What `pipeline status` shows now."""
        broker = self.driver.broker
        now_ms = self.driver.clock.wall_ms()
        return read_status("app", MemoryCluster(broker), MemoryJournalReader(broker), now_ms)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def handle(rig: Rig, at: Callable[[int], None]) -> None:
    @rig.app.handler(rig.numbers)
    def slow(event: Event[str, int], ctx: Context) -> None:
        at(event.value)


def test_a_handler_that_hangs_is_named_with_its_record_and_its_stack(rig: Rig) -> None:
    """Without it the worker looks alive and does nothing, and the record is unknown."""
    handle(rig, lambda value: rig.wait(9.9, 0.2) if value == 3 else None)
    rig.run(1, 2, 3)
    [warning] = rig.log_events("handler_has_not_returned")
    assert warning.pop("handler").endswith("slow")
    hint = warning.pop("hint")
    assert "SIGTERM" in hint
    assert "runbooks/handler-hangs.md" in hint
    assert warning == {
        "app": "app",
        "group": "main",
        "task": 0,
        "topic": "numbers",
        "partition": 0,
        "offset": 2,
        "records": 1,
        "running_s": 10.1,
        "stack": "the stack",
    }


def test_a_task_whose_first_record_hangs_is_shown_as_live(rig: Rig) -> None:
    """Its worker writes no more notes, and an operator would wait for a restore that has ended."""
    found: list[AppStatus] = []

    def hang(_value: int) -> None:
        rig.wait(1.0)
        found.append(rig.status())

    handle(rig, hang)
    rig.run(1)
    [task] = found[0].tasks
    assert (task.phase, task.problem) == (TaskPhase.LIVE, "")


def test_a_handler_that_hangs_is_shown_until_it_returns(rig: Rig) -> None:
    """The worker whose log names it is not known yet; the status is where an operator looks first."""
    found: list[AppStatus] = []

    def hang(_value: int) -> None:
        rig.wait(10.0)
        found.append(rig.status())

    handle(rig, hang)
    since = f"{datetime.fromtimestamp(rig.driver.clock.wall_ms() / 1000, UTC):%Y-%m-%d %H:%M}"
    rig.run(1)
    [problem] = found[0].problems
    assert problem.text.startswith(
        "app/main/0: handler handle.<locals>.slow has not returned from numbers[0] offset"
    )
    assert f"since {since}" in problem.text
    assert problem.text.endswith("all tasks of this process wait")
    assert "runbooks/handler-hangs.md" in problem.hint
    for _ in range(5):
        rig.driver.clock.advance(2.0)
        rig.driver.run()
    assert rig.status().problems == []


def test_a_hang_stays_visible_after_its_worker_has_left(rig: Rig) -> None:
    """A worker without progress is removed from the group, which is no reason to forget why."""
    found: list[AppStatus] = []

    def hang(_value: int) -> None:
        rig.wait(10.0)
        rig.status()  # members are seen to be alive when they are listed
        rig.driver.clock.advance(60.0)
        found.append(rig.status())

    handle(rig, hang)
    rig.run(1)
    [task] = found[0].tasks
    assert task.phase is TaskPhase.UNOWNED
    assert task.problem.startswith("its last worker noted: handler handle.<locals>.slow has not returned")


def test_it_is_said_again_each_time_the_time_doubles(rig: Rig) -> None:
    """A log that repeats itself every second is as unreadable as one that says it once at midnight."""
    handle(rig, lambda _: rig.wait(*[1.0] * 50))
    rig.run(1)
    assert [warning["running_s"] for warning in rig.log_events("handler_has_not_returned")] == [
        10.0,
        20.0,
        40.0,
    ]


def test_a_handler_that_comes_back_is_said_to_have(rig: Rig) -> None:
    """Otherwise the alert stays open for a record that was done long ago."""
    handle(rig, lambda value: rig.wait(12.0) if value == 1 else rig.wait())
    rig.run(1, 2)
    [back] = rig.log_events("handler_returned")
    assert (back["topic"], back["partition"], back["offset"]) == ("numbers", 0, 0)
    assert back["running_s"] == 12.0


def test_many_quick_records_are_no_slow_handler(rig: Rig) -> None:
    """A batch of thousands may take longer than the limit; each of its records does not."""
    handle(rig, lambda _: rig.wait(6.0))
    rig.run(*range(10))
    assert rig.log_events("handler_has_not_returned") == []


def test_nothing_is_at_work_between_batches(rig: Rig) -> None:
    """The last record stays in the context; an idle worker is no hanging handler."""
    handle(rig, lambda _: None)
    rig.run(1)
    rig.wait(60.0)
    assert rig.log.calls == []


def test_a_batch_handler_is_named_with_the_number_of_its_records(rig: Rig) -> None:
    """Ten seconds can be normal for a thousand records; the warning must show the number."""

    @rig.app.batch_handler(rig.numbers)
    def all_at_once(batch: Batch[str, int], ctx: Context) -> None:
        rig.wait(11.0)

    rig.run(1, 2, 3)
    [warning] = rig.log_events("handler_has_not_returned")
    assert warning["handler"].endswith("all_at_once")
    assert warning["records"] == 3


def test_all_handlers_of_the_record_are_named(rig: Rig) -> None:
    """The stack says which of them it is."""
    handle(rig, lambda _: None)

    @rig.app.handler(rig.numbers)
    def second(event: Event[str, int], ctx: Context) -> None:
        rig.wait(11.0)

    rig.run(1)
    [warning] = rig.log_events("handler_has_not_returned")
    first, _, last = warning["handler"].partition(", ")
    assert first.endswith("slow")
    assert last.endswith("second")
