"""Async handlers: their context, what they may use, and how a worker runs their loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from pipeline import App, AsyncContext, Event, Row
from pipeline.config import WorkerSettings
from pipeline.errors import ConfigError, HandlerError, InvariantError
from pipeline.runtime import idle_positions
from pipeline.runtime.calls.call_loop import CallLoop
from pipeline.runtime.idle_positions import QUIET_S
from pipeline.runtime.metrics.meter import Meter
from pipeline.testing import TestDriver, event_loop

Handler = Callable[[Event[Any, int], AsyncContext], Coroutine[Any, Any, None]]


class Rig:
    """An app with one input, a table of counts, a table of lists, and an output."""

    def __init__(self, **options: Any) -> None:
        self.app = App("calls")
        self.numbers = self.app.topic("numbers", key=str | None, value=int)
        self.counts = self.app.table("counts", key=str, value=int)
        self.lists = self.app.table("lists", key=str, value=list[int])
        self.outs = self.app.topic("outs", key=str | None, value=int)
        self.options = options
        self.seen: list[Any] = []

    def run(self, handler: Handler, *numbers: int, key: str | None = "k") -> TestDriver:
        self.app.async_handler(self.numbers, **self.options)(handler)
        self.driver = TestDriver(self.app)
        self.driver.run()
        self.send(*numbers, key=key)
        self.driver.run()
        return self.driver

    def send(self, *numbers: int, key: str | None = "k") -> None:
        for number in numbers:
            self.driver.send(self.numbers, key, number)

    @property
    def sent(self) -> list[int]:
        return [event.value for event in self.driver.outputs(self.outs)]


def test_a_row_is_read_written_and_deleted() -> None:
    """None means that there is no row, in both directions."""
    rig = Rig()

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        row = ctx.row(rig.counts, event)
        rig.seen.append((row.value, row.get(-1)))
        row.value = event.value or None
        rig.seen.append((row.value, row.get(-1)))

    driver = rig.run(handle, 1, 0, 2)
    assert rig.seen == [(None, -1), (1, 1), (1, 1), (None, -1), (None, -1), (2, 2)]
    assert driver.table(rig.counts) == {"k": 2}


def test_a_change_of_a_value_that_was_read_counts_only_when_it_is_assigned() -> None:
    """As with tables of plain handlers: also for a value of an earlier call that is not committed yet."""
    rig = Rig()

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        row = ctx.row(rig.lists, event)
        found = row.get([])
        found.append(event.value)
        rig.seen.append(list(row.get([])))
        if event.value != 2:
            row.value = found
            found.append(99)
        await asyncio.sleep(0.1)

    driver = rig.run(handle, 1, 2, 3)
    assert rig.seen == [[], [1], [1]]
    assert driver.table(rig.lists) == {"k": [1, 3]}


def test_a_value_of_a_wrong_type_is_an_error_of_its_record() -> None:
    """It is checked where it is written, so the error names the line."""
    rig = Rig(on_error="skip")

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        wrong: Any = "text"
        ctx.row(rig.counts, event).value = wrong

    rig.run(handle, 1)
    (rejected,) = rig.driver.log_events("record_rejected")
    assert "table main.counts" in rejected["message"]


@pytest.mark.parametrize("delete", [False, True])
def test_a_record_without_a_key_has_no_row(delete: bool) -> None:
    """The error belongs to the record, and not to the worker."""
    rig = Rig(on_error="skip")

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        ctx.row(rig.counts, event).value = None if delete else 1

    rig.run(handle, 1, key=None)
    (rejected,) = rig.driver.log_events("record_rejected")
    assert rejected["error"] == "TypeError"


def test_records_without_a_key_run_at_the_same_time() -> None:
    """They have no row, so none depends on another."""
    rig = Rig()

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        rig.seen.append(event.value)
        await asyncio.sleep(1.0)
        ctx.send(rig.outs, None, event.value)

    rig.app.async_handler(rig.numbers)(handle)
    rig.driver = TestDriver(rig.app)
    rig.driver.run()
    rig.send(1, 2, 3, key=None)
    rig.driver.step()
    rig.driver.step()
    assert rig.seen == [1, 2, 3]
    rig.driver.run()
    assert rig.sent == [1, 2, 3]


def test_the_row_of_another_event_is_refused() -> None:
    """Calls of other keys run at the same time, so it would be a race. No policy hides it."""
    rig = Rig(on_error="skip", retries=3)
    kept: list[Event[Any, int]] = []

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        kept.append(event)
        ctx.row(rig.counts, kept[0])

    with pytest.raises(HandlerError, match=r"ctx\.row takes the event of its call"):
        rig.run(handle, 1, 2)


def test_a_table_of_another_group_is_refused() -> None:
    """Its rows belong to another journal."""
    rig = Rig()
    other = rig.app.group("other").table("theirs", key=str, value=int)

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        ctx.row(other, event)

    with pytest.raises(HandlerError, match=r"table other\.theirs does not belong to the group"):
        rig.run(handle, 1)


def test_a_context_cannot_be_used_after_its_call() -> None:
    """A task that a handler leaves behind would write into no record, or into the retry of its own."""
    rig = Rig()
    rows: list[Row[int]] = []
    tasks: list[asyncio.Task[None]] = []

    async def later(event: Event[Any, int], ctx: AsyncContext) -> None:
        await asyncio.sleep(1.0)
        uses: list[Callable[[], object]] = [
            lambda: ctx.send(rig.outs, None, 1),
            lambda: rows[0].get(0),
            lambda: setattr(rows[0], "value", 1),
            lambda: ctx.row(rig.counts, event).value,
        ]
        for use in uses:
            with pytest.raises(HandlerError, match="after its call had ended"):
                use()
            rig.seen.append("refused")

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        if event.value == 1:
            rows.append(ctx.row(rig.counts, event))
            tasks.append(asyncio.create_task(later(event, ctx)))
        else:
            await asyncio.sleep(2.0)

    rig.run(handle, 1, 2)
    assert rig.seen == ["refused"] * 4
    assert rig.sent == []


def test_a_retry_has_a_context_of_its_own() -> None:
    """What the first attempt left behind must not write into the second one."""
    rig = Rig(retries=1, retry_delay_s=0.1)
    tasks: list[asyncio.Task[None]] = []

    async def late(ctx: AsyncContext) -> None:
        await asyncio.sleep(0.5)
        with pytest.raises(HandlerError):
            ctx.send(rig.outs, None, 99)
        rig.seen.append("refused")

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        if not tasks:
            tasks.append(asyncio.create_task(late(ctx)))
            raise ValueError("again")
        await asyncio.sleep(1.0)
        ctx.send(rig.outs, None, event.value)

    rig.run(handle, 1)
    assert rig.seen == ["refused"]
    assert rig.sent == [1]


def test_a_cancellation_by_the_handlers_own_code_is_an_error_of_its_record() -> None:
    """The next call in the same slot must not be cancelled by it."""
    rig = Rig(on_error="skip", concurrency=1)

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        task = asyncio.current_task()
        assert task is not None
        if event.value == 1:
            task.cancel()
            await asyncio.sleep(1.0)
        if event.value == 2:
            task.cancel()  # and returns: the request would reach the next call
        if event.value == 3:
            await asyncio.sleep(0.1)
        ctx.send(rig.outs, None, event.value)

    rig.run(handle, 1, 2, 3)
    assert rig.sent == [2, 3]
    (rejected,) = rig.driver.log_events("record_rejected")
    assert rejected["error"] == "CallCancelledError"


def test_time_outs_of_handlers_themselves_work() -> None:
    """`asyncio.timeout` cancels and takes back; the runtime must not take that for its own time-out."""
    rig = Rig()

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await asyncio.sleep(10.0)
        ctx.send(rig.outs, None, event.value)

    rig.run(handle, 1, 2)
    assert rig.sent == [1, 2]


def test_a_bug_of_the_package_ends_the_worker() -> None:
    """No policy may hide it."""
    rig = Rig(on_error="skip")

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        raise InvariantError("a bug")

    with pytest.raises(InvariantError):
        rig.run(handle, 1)


def test_a_handler_that_exits_stops_its_partition_under_every_policy() -> None:
    """It means the worker, and not the record."""
    rig = Rig(on_error="skip")

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        raise SystemExit(3)

    with pytest.raises(HandlerError, match="SystemExit"):
        rig.run(handle, 1)


def test_bytes_that_cannot_be_decoded_get_the_policy_without_a_retry() -> None:
    """They fail at every attempt."""
    rig = Rig(on_error="dead_letter", retries=5)

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        ctx.send(rig.outs, event.key, event.value)

    driver = rig.run(handle, 1)
    driver.send_raw(rig.numbers, b"\xff", b"2")
    driver.send_raw(rig.numbers, b"k", b"not JSON")
    driver.send_raw(rig.numbers, b"k", None)
    rig.send(3)
    driver.run()
    assert rig.sent == [1, 3]
    assert [(event.key, event.value) for event in driver.dead_letters()] == [
        (b"\xff", b"2"),
        (b"k", b"not JSON"),
        (b"k", None),
    ]
    assert not driver.log_events("record_retried")


def test_effect_keys_are_the_same_in_each_attempt() -> None:
    """A service recognises the repeated call by them: after a retry, a crash, and in a replay."""
    rig = Rig(on_error="dead_letter", retries=1)
    failing = True

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        rig.seen.append(event.effect_key())
        await asyncio.sleep(0.1)
        if failing:
            raise ValueError("again")

    driver = rig.run(handle, 1)
    failing = False
    driver.replay_dead_letters()
    driver.step()
    driver.step()
    driver.crash()
    driver.restart()
    driver.run()
    assert len(rig.seen) == 4
    assert len(set(rig.seen)) == 1


class Client:
    """A client with an async close. `closed`: how it was closed."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed: list[str] = []

    async def aclose(self) -> None:
        await asyncio.sleep(0.1)
        assert asyncio.get_running_loop() is self.loop
        self.closed.append("aclose")

    def close(self) -> None:
        self.closed.append("close")


def test_an_async_resource_is_made_in_the_loop_and_closed_in_it() -> None:
    """Clients of asyncio belong to the loop in which they were made."""
    rig = Rig()
    clients: list[Client] = []

    def make() -> Client:
        clients.append(Client())
        return clients[-1]

    resource = rig.app.resource(make)

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        assert ctx.resource(resource) is clients[0]

    driver = rig.run(handle, 1, 2)
    driver.stop()
    assert [client.closed for client in clients] == [["aclose"]]


def test_a_resource_that_cannot_be_closed_does_not_stop_the_stop() -> None:
    """The work is committed; the connection ends with the process."""
    rig = Rig()

    class Stubborn:
        async def close(self) -> None:
            await asyncio.sleep(1e9)

    resource = rig.app.resource(Stubborn)

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        ctx.resource(resource)

    rig.run(handle, 1).stop()
    (event,) = rig.driver.log_events("resource_not_closed")
    assert event["error"] == "TimeoutError"


class Echo(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answer = self.path.removeprefix("/").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class calls it
        pass


def test_a_driver_waits_for_real_sockets_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test with a server on the loopback address must not time out because the clock runs ahead."""
    monkeypatch.setattr(event_loop, "_REAL_WAIT_S", 0.1)  # for a busy machine
    rig = Rig(timeout_s=5.0)
    server = HTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.server_port)
        writer.write(f"GET /{event.value} HTTP/1.0\r\n\r\n".encode())
        answer = (await reader.read()).split(b"\r\n\r\n")[1]
        writer.close()
        await writer.wait_closed()
        await asyncio.to_thread(time.sleep, 0.01)
        ctx.send(rig.outs, None, int(answer) * 10)

    rig.run(handle, 1, 2, 3)
    server.shutdown()
    server.server_close()
    assert rig.sent == [10, 20, 30]
    rig.driver.stop()


def test_the_loop_does_not_run_while_no_call_is_outstanding(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle worker must not spin."""
    rig = Rig()
    ran: list[bool] = []
    run_ready = CallLoop._run_ready

    def counted(self: CallLoop, *args: Any) -> None:
        ran.append(True)
        run_ready(self, *args)

    monkeypatch.setattr(CallLoop, "_run_ready", counted)

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None: ...

    driver = rig.run(handle, 1)
    assert ran
    ran.clear()
    for _ in range(5):
        driver.step()
    assert not ran


def test_polls_do_not_wait_while_a_call_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of a service would wait for the next record."""
    rig = Rig()

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        await asyncio.sleep(10.0)

    driver = rig.run(handle)
    source: Any = driver.worker.runs[0].source
    waits: list[float] = []
    poll = source.poll

    def noted(most: int, wait_s: float) -> Any:
        waits.append(wait_s)
        return poll(most, wait_s)

    monkeypatch.setattr(source, "poll", noted)
    for _ in range(4):
        driver.step()
    assert waits[-1] > 0
    rig.send(1)
    driver.run()
    assert max(waits[5:105]) == 0


def test_a_call_in_flight_is_not_an_idle_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """The position of an idle input moves to its end: past the record that is being handled."""
    monkeypatch.setattr(idle_positions, "_is_empty", lambda *_: True)  # its record was compacted away
    rig = Rig(timeout_s=1000.0)

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        await asyncio.sleep(5 * QUIET_S)
        ctx.send(rig.outs, None, event.value)

    driver = rig.run(handle)
    rig.send(1)
    for _ in range(round(3 * QUIET_S)):
        driver.step()
        driver.clock.advance(1.0)
    assert driver.positions()["numbers"] == 0
    driver.run()
    assert rig.sent == [1]
    assert driver.positions()["numbers"] == 1


def test_an_error_that_no_call_awaits_is_logged() -> None:
    """A task that a handler leaves behind fails without anyone who looks."""
    rig = Rig()
    tasks: list[Any] = []

    async def fail() -> None:
        raise ValueError("nobody awaits this")

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        if event.value == 1:
            tasks.append(asyncio.create_task(fail()))
            await asyncio.sleep(0)
            tasks.clear()
        await asyncio.sleep(0.1)

    driver = rig.run(handle, 1, 2)
    (event,) = driver.log_events("async_error_unhandled")
    assert event["error"] == "ValueError"


def test_a_worker_inside_a_running_loop_is_refused() -> None:
    """Its own loop could not run there; the error says where to call it from."""
    rig = Rig()

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None: ...

    async def inside() -> None:
        with pytest.raises(ConfigError, match="cannot run inside a running event loop"):
            rig.run(handle)

    asyncio.run(inside())


def test_a_small_commit_limit_holds_for_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """`max_records_per_commit` bounds a transaction, also when many calls end at once."""
    rig = Rig()

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        ctx.send(rig.outs, None, event.value)

    rig.app.async_handler(rig.numbers)(handle)
    rig.driver = TestDriver(rig.app, settings=WorkerSettings(worker_id="test", max_records_per_commit=3))
    rig.send(*range(10))
    rig.driver.run()
    assert rig.sent == list(range(10))
    assert rig.driver.task().commits == 4


def test_the_memory_of_finished_calls_is_freed() -> None:
    """Each key of a busy input would keep a call forever."""
    rig = Rig()

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        ctx.row(rig.counts, event).value = event.value

    driver = rig.run(handle, *range(20))
    task: Any = driver.task()
    (calls,) = task._calls.values()
    assert (len(calls), calls.earlier, calls._keys) == (0, {}, {})


def test_the_time_of_calls_on_the_thread_is_measured() -> None:
    """A handler that blocks is busy; one that waits is not. The alert for handlers that hang relies on it."""
    rig = Rig()
    meters: list[Meter] = []
    running: list[float] = []

    async def handle(event: Event[Any, int], ctx: AsyncContext) -> None:
        if event.value == 1:
            rig.driver.clock.advance(2.0)  # it computes
            running.extend(meters[0].read().busy_s.values())
        else:
            await asyncio.sleep(20.0)

    rig.app.async_handler(rig.numbers)(handle)
    rig.driver = TestDriver(rig.app)
    meters.append(Meter(rig.driver.clock.monotonic_s))
    rig.driver._meter = meters[0]
    rig.driver.run()
    rig.send(1, 2)
    rig.driver.run()
    (busy_s,) = meters[0].read().busy_s.values()
    assert round(busy_s, 3) == 2.0
    assert [round(each, 3) for each in running] == [2.0]
