"""Async handlers: records that crash the process, calls that hang, and outputs that Kafka refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from pipeline import App, AsyncContext, Event, OnError
from pipeline.config import WorkerSettings
from pipeline.core.crashes import decode_suspects
from pipeline.errors import HandlerError
from pipeline.runtime.status import AppStatus, read_status
from pipeline.runtime.watchdog import Watchdog
from pipeline.testing import SimulatedCrash, TestDriver
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader

BAD = 13


class Gone(SimulatedCrash, KeyboardInterrupt):
    """The process is gone in the middle of a handler: no policy is asked."""


class Rig:
    """An app that echoes numbers after a wait."""

    def __init__(
        self, at_bad: Callable[[Rig, AsyncContext], Any], on_error: OnError = "skip", **options: Any
    ) -> None:
        self.app = App("app")
        self.inputs = self.app.topic("in", key=str, value=int)
        self.outs = self.app.topic("out", key=str, value=int)
        self.at_bad = at_bad
        self.most = options.pop("most", 50_000)
        self.app.async_handler(self.inputs, on_error=on_error, **options)(self.echo)
        settings = WorkerSettings(worker_id="test", max_records_per_commit=self.most)
        self.driver = TestDriver(self.app, settings=settings)
        self.driver.run()

    async def echo(self, event: Event[str, int], ctx: AsyncContext) -> None:
        await asyncio.sleep(0.1 * (event.value % 3))
        if event.value == BAD:
            found = self.at_bad(self, ctx)
            if found is not None:
                await found
        ctx.send(self.outs, event.key, event.value)

    def send(self, *values: int) -> None:
        for value in values:
            self.driver.send(self.inputs, f"k{value}", value)

    def crashes(self, most: int = 20) -> int:
        """Start workers until one does not crash; how many did. Raises what the last one ends with."""
        for number in range(most):
            self.driver.run()
            if not self.driver.crashed:
                return number
            self.driver.restart()
        return most

    @property
    def echoed(self) -> list[int]:
        return [event.value for event in self.driver.outputs(self.outs)]

    def status(self) -> AppStatus:
        broker = self.driver.broker
        return read_status(
            "app", MemoryCluster(broker), MemoryJournalReader(broker), self.driver.clock.wall_ms()
        )


def crash(rig: Rig, _ctx: AsyncContext) -> None:
    rig.driver.crash_log.crash("Segmentation fault")
    raise Gone


def kill(_rig: Rig, _ctx: AsyncContext) -> None:
    raise Gone


def test_a_record_whose_call_crashes_the_process_is_found() -> None:
    """The first crash tells only that calls were in flight; then each step of a call is noted."""
    rig = Rig(crash)
    rig.send(*range(20))
    assert rig.crashes() == 4
    assert rig.echoed == [value for value in range(20) if value != BAD]
    said = rig.driver.log_events("previous_process_crashed")
    assert [line["handling"] for line in said] == [
        "calls of async handlers",
        *["in[0] offset 13 of task app/main/0"] * 3,
    ]
    assert "it is not known which record's call crashed" in said[0]["hint"]
    assert decode_suspects(rig.driver.crash_log.load())[0] == {}


def test_under_stop_the_record_is_named_and_a_fix_passes_it() -> None:
    """Everything before it is committed; the next start calls its handler once more."""
    rig = Rig(crash, "stop")
    rig.send(*range(20))
    with pytest.raises(HandlerError, match=r"the record in\[0\] offset 13 .* 3 times"):
        rig.crashes()
    assert rig.echoed == list(range(BAD))
    rig.at_bad = lambda _rig, _ctx: None
    rig.driver.restart()
    rig.driver.run()
    assert rig.echoed == list(range(20))


def test_kills_in_mid_call_condemn_no_record() -> None:
    """SIGKILL leaves no trace, so it counts against nothing."""
    rig = Rig(kill)
    rig.send(*range(20))
    assert rig.crashes(most=6) == 6
    rig.at_bad = lambda _rig, _ctx: None
    assert rig.crashes() == 0
    assert rig.echoed == list(range(20))


def test_a_crash_between_the_steps_of_calls_names_no_record() -> None:
    """In a callback of the loop, any of the calls in flight may be the cause: none may be condemned for it."""

    def later(rig: Rig, _ctx: AsyncContext) -> Any:
        def gone() -> None:
            rig.driver.crash_log.crash("Segmentation fault")
            raise Gone

        asyncio.get_running_loop().call_soon(gone)
        return asyncio.sleep(1.0)

    rig = Rig(later)
    rig.send(*range(20))
    assert rig.crashes(most=6) == 6
    said = rig.driver.log_events("previous_process_crashed")
    assert {line["handling"] for line in said} == {"calls of async handlers"}


def refused(rig: Rig, ctx: AsyncContext) -> None:
    """An output that the broker refuses. No setting tells it before."""
    ctx.send(rig.outs, "odd", BAD)


@pytest.mark.parametrize("most", [7, 50_000])
@pytest.mark.parametrize("on_error", ["skip", "dead_letter"])
def test_the_record_whose_output_is_refused_gets_its_policy(on_error: OnError, most: int) -> None:
    """The commit is aborted as a whole. Its calls are made again, in smaller commits, until the record is found."""
    rig = Rig(refused, on_error, most=most)
    rig.driver.broker.refuses = lambda output: "it is odd" if output.key == b"odd" else None
    rig.send(*range(20))
    rig.driver.run()
    assert rig.echoed == [value for value in range(20) if value != BAD]
    assert len(rig.driver.dead_letters()) == (on_error == "dead_letter")
    rejected = rig.driver.log_events("record_rejected")
    assert {(each["error"], each["offset"]) for each in rejected} == {("RefusedOutputError", BAD)}


def watch(rig: Rig) -> tuple[Watchdog, structlog.testing.CapturingLogger]:
    worker, log = rig.driver.worker, structlog.testing.CapturingLogger()
    dog = Watchdog(lambda: worker.at_work, lambda: "the stack", worker.note_hang, 10.0, rig.driver.clock, log)
    return dog, log


def test_a_handler_that_blocks_the_loop_is_named_with_its_record() -> None:
    """It blocks all calls and all tasks; a time-out cannot end it."""
    found: list[AppStatus] = []
    logs: list[Any] = []

    def block(rig: Rig, _ctx: AsyncContext) -> None:
        dog, log = watch(rig)
        dog.check()
        for _ in range(2):
            rig.driver.clock.advance(6.0)
            dog.check()
        logs.extend(log.calls)
        found.append(rig.status())

    rig = Rig(block)
    rig.send(1, BAD, 2)
    rig.driver.run()
    (warning,) = (call.kwargs for call in logs if call.args == ("handler_has_not_returned",))
    assert warning["handler"].endswith("echo")
    assert (warning["topic"], warning["offset"]) == ("in", 1)
    assert "all tasks of this process wait" in warning["hint"]
    [problem] = found[0].problems
    assert "echo has not returned from in[0] offset 1" in problem.text


def test_a_call_that_ignores_its_cancellation_is_named_with_its_record() -> None:
    """It holds a slot, its key and everything behind it; the worker looks alive."""

    async def ignore(rig: Rig) -> None:
        while rig.driver.clock.monotonic_s() < 100.0:
            try:
                await asyncio.sleep(100.0)
            except asyncio.CancelledError:
                continue

    rig = Rig(lambda rig, _ctx: ignore(rig), timeout_s=5.0)
    dog, log = watch(rig)
    rig.send(1, BAD, 2)
    for _ in range(300):
        rig.driver.step()
        rig.driver.clock.advance(0.1)
        dog.check()
    (warning, *_) = (call.kwargs for call in log.calls if call.args == ("handler_has_not_returned",))
    assert (warning["topic"], warning["offset"]) == ("in", 1)
    assert "CancelledError" in warning["hint"]
    [problem] = rig.status().problems
    assert "the call of Rig.echo for in[0] offset 1 exceeded timeout_s" in problem.text
    rig.driver.run()
    assert rig.echoed == [1, 2]


def test_a_record_that_is_retried_is_shown() -> None:
    """`pipeline status` names it, because everything behind it in its partition waits."""

    def fail(_rig: Rig, _ctx: AsyncContext) -> None:
        raise ConnectionError("the service is unreachable")

    rig = Rig(fail, retries=9, retry_delay_s=60.0)
    rig.send(1, BAD, 2)
    for _ in range(20):
        rig.driver.step()
        rig.driver.clock.advance(0.1)
    retried = rig.driver.task().retried
    assert retried is not None
    assert (retried.topic, retried.partition, retried.offset, retried.failures) == ("in", 0, 1, 1)
    assert retried.reason == "ConnectionError: the service is unreachable"
