"""Handlers over records: a record that raises leaves nothing behind, whatever the policy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

import msgspec
import pytest

from pipeline import App, Context, Event, OnError
from pipeline.errors import CorruptStateError, HandlerError, InvariantError
from pipeline.runtime.task.record_errors import PoisonError
from pipeline.testing import TestDriver
from pipeline.testing.memory_log import MemoryRecord
from tests.support.runtime.processor_rig import BAD, Rig, records, start


class Basket(msgspec.Struct):
    """A mutable value."""

    items: list[str]


def test_a_handler_that_changes_what_it_got_changes_nothing_else() -> None:
    """Neither the next handler's event, nor the table, nor what was sent: only what is assigned or sent counts."""
    app = App("baskets")
    inputs = app.topic("in", key=str, value=Basket)
    outs = app.topic("out", key=str, value=Basket)
    baskets = app.table("baskets", key=str, value=Basket)
    seen: list[list[str]] = []

    @app.handler(inputs)
    def careless(event: Event[str, Basket], ctx: Context) -> None:
        table = ctx.table(baskets)
        kept = table.get(event.key)
        if kept is not None:
            seen.append(list(kept.items))
            kept.items.append("changed after it was read")
        ctx.send(outs, event.key, event.value)
        table[event.key] = event.value
        event.value.items.append("changed after it was sent and kept")

    @app.handler(inputs)
    def second(event: Event[str, Basket], ctx: Context) -> None:
        assert len(event.value.items) == 1

    driver = TestDriver(app)
    for name in ("milk", "eggs"):
        driver.send(inputs, "k", Basket([name]))
        driver.run()
    assert [event.value.items for event in driver.outputs(outs)] == [["milk"], ["eggs"]]
    assert seen == [["milk"]]
    assert driver.table(baskets) == {"k": Basket(["eggs"])}


def test_handlers_run_over_records_in_order(rig: Rig) -> None:
    """Each sees what the ones before it wrote."""
    start(rig, "stop").process(1, 2, 3)
    assert rig.rows == {"k": 6, "last-k": 3}
    assert rig.sent == [("out", b"1"), ("out", b"3"), ("out", b"6")]
    assert rig.overlay.undo == []


def test_poison_stops_at_its_record_and_leaves_nothing_of_it(rig: Rig) -> None:
    """What is before it is committed, so a restart begins exactly with it."""
    start(rig, "stop")
    with pytest.raises(PoisonError) as caught:
        rig.process(1, 2, BAD, 4)
    assert caught.value.offset == 102
    assert rig.rows == {"k": 3, "last-k": 2}
    assert rig.sent == [("out", b"1"), ("out", b"3")]
    assert rig.calls == [1, 2, BAD]


def test_the_error_of_poison_tells_everything(rig: Rig) -> None:
    """Task, offset, handler, reason and line: enough to fix the handler without a debugger."""
    start(rig, "stop")
    with pytest.raises(PoisonError) as caught:
        rig.process(BAD)
    error = caught.value.error
    assert isinstance(error, HandlerError)
    for fact in ("app/main/0", "in[0] offset 100", "Rig.add", "ValueError: unlucky", "processor_rig.py"):
        assert fact in error.message
    assert "on_error='skip' or 'dead_letter'" in (error.hint or "")


def test_the_place_of_an_error_is_in_the_handler_also_when_it_is_raised_by_this_package(rig: Rig) -> None:
    """A line of `context.py` says nothing about which of the handler's outputs was too large."""

    @rig.app.handler(rig.inputs)
    def send_much(event: Event[str, int], ctx: Context) -> None:
        ctx.send(rig.outs, "k" * 2_000, event.value)

    rig.start()
    with pytest.raises(PoisonError) as caught:
        rig.process(1)
    message = caught.value.error.message
    assert 'ctx.send(rig.outs, "k" * 2_000, event.value)' in message
    assert "context.py" not in message
    for fact in ("a record of 2001 bytes", "topic out (1000 bytes)", "raise max.message.bytes of the topic"):
        assert fact in message


def test_a_mistake_in_the_app_is_told_with_its_own_advice(rig: Rig) -> None:
    """No policy lets it pass, so the advice to choose another one would lead nowhere."""
    totals: Any = rig.app.table("wrong", key=str, value=int)

    @rig.app.handler(rig.inputs, on_error="skip")
    def write(event: Event[str, int], ctx: Context) -> None:
        totals[event.key] = event.value

    rig.start()
    with pytest.raises(PoisonError) as caught:
        rig.process(1)
    error = caught.value.error
    assert "totals[event.key] = event.value" in error.message
    assert error.message.count("holds no rows") == 1
    assert "ctx.table(" not in error.message
    assert (error.hint or "").startswith("in a handler, ctx.table(...)")
    assert "on_error" not in (error.hint or "")


@pytest.mark.parametrize("first", [True, False])
def test_skip_passes_over_the_record_alone(rig: Rig, first: bool) -> None:
    """Its neighbours are processed as if it had never been there."""
    start(rig, "skip").process(*([BAD, 1, 2] if first else [1, BAD, 2, BAD]))
    assert rig.rows == {"k": 3, "last-k": 2}
    assert rig.sent == [("out", b"1"), ("out", b"3")]
    assert rig.processor.rejected.skipped == (1 if first else 2)
    assert rig.overlay.undo == []


def test_rejected_records_are_logged_with_place_and_reason(rig: Rig) -> None:
    """A silent skip is a lost record."""
    start(rig, "skip").process(1, BAD)
    [call] = rig.log.calls
    assert (call.method_name, call.args) == ("warning", ("record_rejected",))
    assert call.kwargs == {
        "policy": "skip",
        "app": "app",
        "group": "main",
        "task": 0,
        "topic": "in",
        "partition": 0,
        "offset": 101,
        "error": "ValueError",
        "message": "unlucky",
    }


@pytest.mark.parametrize(("key", "value"), [(b"\xff", b"1"), (None, b"1"), (b"k", b"{"), (b"k", None)])
def test_a_record_that_cannot_be_decoded_is_poison(rig: Rig, key: bytes | None, value: bytes | None) -> None:
    """A null where the type has no None, and bytes of another format; the letter keeps them as they are."""
    start(rig, "dead_letter").process(1)
    rig.processor.process("in", records(value, start=200, key=key))
    rig.process(2, start=300)
    assert rig.rows == {"k": 3, "last-k": 2}
    assert rig.context.outputs[1][:3] == ("app.main.dead-letters", key, value)
    assert rig.calls == [1, 2]


def test_a_bad_output_is_poison_of_its_record(rig: Rig) -> None:
    """Found out when it is sent, not when the commit is published with all others in it."""

    @rig.app.handler(rig.inputs, on_error="skip")
    def send(event: Event[str, int], ctx: Context) -> None:
        ctx.table(rig.sums)["seen"] = event.value
        ctx.send(rig.outs, event.key, event.value)
        second: Any = "text" if event.value == BAD else 0
        ctx.send(rig.outs, event.key, second)

    rig.start()
    rig.process(1, BAD)
    assert rig.rows == {"seen": 1}
    assert rig.sent == [("out", b"1"), ("out", b"0")]


def test_an_error_that_the_handler_catches_is_no_poison(rig: Rig) -> None:
    """The handler has decided; what it wrote before and after stays, what was refused is not there."""

    @rig.app.handler(rig.inputs)
    def careful(event: Event[str, int], ctx: Context) -> None:
        table, text = ctx.table(rig.sums), cast("Any", "text")
        table["before"] = event.value
        with pytest.raises(TypeError):
            ctx.send(rig.outs, event.key, text)
        with pytest.raises(TypeError):
            table["bad"] = text
        with pytest.raises(KeyError):
            del table["absent"]
        ctx.send(rig.outs, event.key, 5)

    rig.start()
    rig.process(1)
    assert rig.rows == {"before": 1}
    assert rig.sent == [("out", b"5")]


def test_a_mistake_of_the_program_stops_under_every_policy(rig: Rig) -> None:
    """A table of another group fails for each record, so `skip` would skip all records."""
    foreign = rig.app.group("hourly").table("t", key=str, value=int)

    @rig.app.handler(rig.inputs, on_error="skip")
    def wrong(event: Event[str, int], ctx: Context) -> None:
        ctx.table(rig.sums)["k"] = 1
        ctx.table(foreign)

    rig.start()
    with pytest.raises(PoisonError, match=r"table hourly\.t does not belong"):
        rig.process(1, 2)
    assert rig.rows == {}


@pytest.mark.parametrize("error", [CorruptStateError("the disk is broken"), InvariantError("a bug")])
@pytest.mark.parametrize("batch", [False, True])
def test_an_error_of_the_runtime_is_never_blamed_on_a_record(rig: Rig, error: Exception, batch: bool) -> None:
    """Otherwise a failing disk would send the whole input to the dead letters."""
    start(rig, "skip", batch=batch)
    rig.stores.fail_next("get", error)
    with pytest.raises(type(error)):
        rig.process(1, 2)
    assert rig.processor.rejected.skipped == 0


def two_handlers(rig: Rig, first: OnError, second: OnError) -> None:
    @rig.app.handler(rig.inputs, on_error=first)
    def count(event: Event[str, int], ctx: Context) -> None:
        ctx.table(rig.sums)["count"] = ctx.table(rig.sums).get("count", 0) + 1
        ctx.send(rig.outs, event.key, 0)

    rig.app.handler(rig.inputs, on_error=second)(rig.add)
    rig.start()


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("policy", ["stop", "skip", "dead_letter"])
def test_a_handler_that_exits_stops_its_task_with_its_record(rig: Rig, policy: OnError, batch: bool) -> None:
    """`sys.exit(3)` in a handler must neither end the worker without a word nor drop the record."""

    def leave(*_: object) -> NoReturn:
        sys.exit(3)

    register = rig.app.batch_handler if batch else rig.app.handler
    register(rig.inputs, on_error=policy)(leave)
    rig.start()
    with pytest.raises(PoisonError) as caught:
        rig.process(1)
    assert "SystemExit: 3" in caught.value.error.message
    assert "in[0] offset 100" in caught.value.error.message


def test_handlers_of_a_topic_run_in_turn_for_each_record(rig: Rig) -> None:
    """In the order of their declaration; the second sees what the first wrote."""
    two_handlers(rig, "stop", "stop")
    rig.process(1, 2)
    assert rig.rows == {"count": 2, "k": 3, "last-k": 2}
    assert [value for _, value in rig.sent] == [b"0", b"1", b"0", b"3"]


@pytest.mark.parametrize("policy", ["skip", "dead_letter"])
def test_a_record_is_taken_back_from_all_handlers(rig: Rig, policy: OnError) -> None:
    """Half a record is worse than none; the policy is that of the handler that raised."""
    two_handlers(rig, "stop", policy)
    rig.process(1, BAD, 2)
    assert rig.rows == {"count": 2, "k": 3, "last-k": 2}
    assert [value for topic, value in rig.sent if topic == "out"] == [b"0", b"1", b"0", b"3"]
    assert rig.processor.rejected.skipped + rig.processor.rejected.dead_lettered == 1


def test_a_record_that_cannot_be_decoded_gets_the_first_handlers_policy(rig: Rig) -> None:
    """No handler has seen it, also when the record before it got as far as the last one."""
    two_handlers(rig, "skip", "stop")
    rig.process(1, b"{", 2)
    assert rig.rows == {"count": 2, "k": 3, "last-k": 2}
    two = Rig()
    two_handlers(two, "stop", "skip")
    with pytest.raises(PoisonError, match=r"cannot be processed by two_handlers\.<locals>\.count"):
        two.process(1, b"{", 2)


def test_handlers_of_a_topic_see_records_of_that_topic_only(rig: Rig) -> None:
    """A group may read several topics."""
    other = rig.app.topic("other", key=str, value=int)
    seen: list[tuple[str, int]] = []

    def note(name: str) -> Callable[[Event[str, int], Context], None]:
        return lambda event, _ctx: seen.append((name, event.value))

    rig.app.handler(rig.inputs)(note("in"))
    rig.app.handler(other)(note("other"))
    rig.start()
    rig.process(1)
    place: Sequence[MemoryRecord] = records(2)
    rig.processor.process("other", place)
    assert seen == [("in", 1), ("other", 2)]
