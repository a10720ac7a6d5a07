"""Handlers over records: a record that raises leaves nothing behind, whatever the policy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from pipeline import App, Batch, Context, Event, Group, OnError, Table
from pipeline.core.names import TaskId, TopicPartition
from pipeline.errors import CorruptStateError, HandlerError, InvariantError
from pipeline.ports import Output
from pipeline.runtime.dead_letters import DeadLetters
from pipeline.runtime.processor import PoisonError, Processor
from pipeline.table import TaskOverlay
from pipeline.testing import ManualClock, MemoryStores, TestDriver
from pipeline.testing.memory_log import MemoryRecord

TASK = TaskId("app", "main", 0)
BAD = 13


class Rig:
    """An app with one input, one table and one output; a processor of one task of it."""

    def __init__(self) -> None:
        self.app = App("app")
        self.inputs = self.app.topic("in", key=str, value=int)
        self.sums = self.app.table("sums", key=str, value=int)
        self.outs = self.app.topic("out", key=str, value=int)
        self.stores = MemoryStores()
        self.log = structlog.testing.CapturingLogger()
        self.calls: list[Any] = []
        self.largest_letter = 1_000_000

    def start(self, group: Group | None = None) -> Processor:
        self.overlay = TaskOverlay()
        self.table: Table[str, int] = Table(self.sums, self.stores.open(TASK), self.overlay)
        senders: Any = {t: (t.name, t.key.encode, t.value.admit, 1000) for t in self.app.topics.values()}
        self.context = Context({self.sums: self.table}, senders, lambda r: r.factory())
        letters = DeadLetters(TASK, ManualClock(), self.largest_letter)
        self.processor = Processor(
            TASK,
            group or self.app,
            self.context,
            self.overlay,
            letters,
            self.log,
            {},
            {"in": "1", "other": "2"},
        )
        return self.processor

    def process(self, *values: int | bytes | None, **more: Any) -> None:
        self.processor.process("in", records(*values, **more))

    def add(self, event: Event[str, int], ctx: Context) -> None:
        """Write and send first, then raise at a bad value, so that there is something to undo."""
        self.calls.append(event.value)
        total = ctx.table(self.sums).get(event.key, 0) + event.value
        ctx.table(self.sums)[event.key] = total
        ctx.table(self.sums)[f"last-{event.key}"] = event.value
        ctx.send(self.outs, event.key, total)
        if event.value == BAD:
            raise ValueError("unlucky")

    def add_all(self, batch: Batch[str, int], ctx: Context) -> None:
        """The same for batches."""
        self.calls.append(list(batch.values))
        for event in batch:
            total = ctx.table(self.sums).get(event.key, 0) + event.value
            ctx.table(self.sums)[event.key] = total
            ctx.send(self.outs, event.key, total)
        if BAD in batch.values:
            raise ValueError("unlucky")

    @property
    def rows(self) -> dict[str, int]:
        return dict(self.table.items())

    @property
    def sent(self) -> list[tuple[str, bytes | None]]:
        return [(output[0], output[2]) for output in self.context.outputs]


def records(
    *values: int | bytes | None, start: int = 100, key: bytes | None = b"k", headers: Any = ()
) -> list[MemoryRecord]:
    data = [str(value).encode() if isinstance(value, int) else value for value in values]
    return [
        MemoryRecord(TopicPartition("in", 0), start + n, Output("in", key, content, 5_000 - n, headers))
        for n, content in enumerate(data)
    ]


@pytest.fixture
def rig() -> Rig:
    return Rig()


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


def start(rig: Rig, on_error: OnError, *, batch: bool = False) -> Rig:
    if batch:
        rig.app.batch_handler(rig.inputs, on_error=on_error)(rig.add_all)
    else:
        rig.app.handler(rig.inputs, on_error=on_error)(rig.add)
    rig.start()
    return rig


# Records


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
    """Task, place, handler, reason and the line: enough to mend it without a debugger."""
    start(rig, "stop")
    with pytest.raises(PoisonError) as caught:
        rig.process(BAD)
    error = caught.value.error
    assert isinstance(error, HandlerError)
    for fact in ("app/main/0", "in[0] offset 100", "Rig.add", "ValueError: unlucky", "test_processor.py"):
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
        "task": "app/main/0",
        "record": "in[0] offset 101",
        "error": "ValueError: unlucky",
    }


def test_a_dead_letter_is_the_record_with_its_story(rig: Rig) -> None:
    """It can be replayed as it was: key, value, time and headers, null ones included."""
    start(rig, "dead_letter").process(1, BAD, 2, headers=[("trace", b"7"), ("empty", None)])
    assert rig.rows == {"k": 3, "last-k": 2}
    letter = rig.context.outputs[1]
    assert letter[:4] == ("app.main.dead-letters", b"k", b"13", 4_999)
    headers = dict(letter[4])
    traceback = headers.pop("dead-letter-traceback").decode()
    assert list(headers.items()) == [
        ("trace", b"7"),
        ("empty", None),
        ("dead-letter-topic", b"in"),
        ("dead-letter-partition", b"0"),
        ("dead-letter-offset", b"101"),
        ("dead-letter-timestamp", b"4999"),
        ("dead-letter-app", b"app"),
        ("dead-letter-group", b"main"),
        ("dead-letter-handler", b"Rig.add"),
        ("dead-letter-error", b"ValueError: unlucky"),
        ("dead-letter-tries", b"1"),
        ("dead-letter-replay", b"0"),
        ("dead-letter-time", b"1700000000000"),
        ("dead-letter-topic-id", b""),
    ]
    assert 'raise ValueError("unlucky")' in traceback
    assert "processor.py" not in traceback.replace("test_processor.py", "")
    assert [output[0] for output in rig.context.outputs] == ["out", "app.main.dead-letters", "out"]
    assert rig.processor.rejected.dead_lettered == 1


@pytest.mark.parametrize(("key", "value"), [(b"\xff", b"1"), (None, b"1"), (b"k", b"{"), (b"k", None)])
def test_a_record_that_cannot_be_decoded_is_poison(rig: Rig, key: bytes | None, value: bytes | None) -> None:
    """A null where the type has no None, and bytes of another format; the letter keeps them as they are."""
    start(rig, "dead_letter").process(1)
    rig.processor.process("in", records(value, start=200, key=key))
    rig.process(2, start=300)
    assert rig.rows == {"k": 3, "last-k": 2}
    assert rig.context.outputs[1][:3] == ("app.main.dead-letters", key, value)
    assert rig.calls == [1, 2]


def test_a_record_without_a_timestamp_gives_a_letter_with_the_brokers(rig: Rig) -> None:
    """-1 would be refused by the producer."""
    start(rig, "dead_letter")
    output = Output("in", None, None, -1, ())
    rig.processor.process("in", [MemoryRecord(TopicPartition("in", 0), 0, output)])
    assert rig.context.outputs[0][3] == 0


def test_an_error_text_of_any_kind_fits_into_a_letter(rig: Rig) -> None:
    """Long ones, and such as have no UTF-8 form: the rejection must not itself fail."""

    @rig.app.handler(rig.inputs, on_error="dead_letter")
    def refuse(event: Event[str, int], ctx: Context) -> NoReturn:
        raise ValueError("\ud800" + "x" * 100_000)

    rig.start()
    rig.process(1)
    text = dict(rig.context.outputs[0][4])["dead-letter-error"]
    assert text.startswith(b"ValueError: \\ud800xxx")
    assert len(text) < 3_000


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
    """A table of another group fails for each record: skipping would pass over all of them."""
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


# Several handlers of a topic


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


# Batches


def test_a_batch_handler_gets_all_records_at_once(rig: Rig) -> None:
    """The point of it: one call of numpy instead of a thousand."""
    start(rig, "stop", batch=True).process(1, 2, 3)
    assert rig.calls == [[1, 2, 3]]
    assert rig.rows == {"k": 6}
    assert {output[3] for output in rig.context.outputs} == {5_000}  # the latest of its records


def test_an_empty_batch_is_not_handed_over(rig: Rig) -> None:
    """A handler may rely on a first record."""
    start(rig, "stop", batch=True).process()
    assert rig.calls == []


def test_a_batch_is_halved_until_the_guilty_record_stands_alone(rig: Rig) -> None:
    """Everything before it is kept, nothing after it has run."""
    start(rig, "stop", batch=True)
    with pytest.raises(PoisonError) as caught:
        rig.process(1, 2, 3, 4, 5, BAD, 7, 8)
    assert caught.value.offset == 105
    assert rig.calls == [[1, 2, 3, 4, 5, BAD, 7, 8], [1, 2, 3, 4], [5, BAD, 7, 8], [5, BAD], [5], [BAD]]
    assert rig.rows == {"k": 15}
    assert [value for _, value in rig.sent] == [b"1", b"3", b"6", b"10", b"15"]


def test_a_record_that_cannot_be_decoded_is_found_by_halving(rig: Rig) -> None:
    """The handler never sees a batch with it."""
    start(rig, "skip", batch=True).process(1, b"{", 3)
    assert rig.calls == [[1], [3]]
    assert rig.rows == {"k": 4}


inputs = st.lists(st.sampled_from([1, 2, 3, BAD]), max_size=12)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("policy", ["stop", "skip", "dead_letter"])
@given(values=inputs)
def test_results_are_those_of_the_good_records(policy: OnError, batch: bool, values: list[int]) -> None:
    """However many are bad and wherever they stand: outputs and rows equal a fold over the others."""
    rig = start(Rig(), policy, batch=batch)
    good = values[: values.index(BAD)] if policy == "stop" and BAD in values else values
    if policy == "stop" and BAD in values:
        with pytest.raises(PoisonError) as caught:
            rig.process(*values)
        assert caught.value.offset == 100 + values.index(BAD)
    else:
        rig.process(*values)
    expected, total, letters = [], 0, []
    for value in good:
        if value == BAD:
            letters.append(b"13")
        else:
            total += value
            expected.append(str(total).encode())
    assert [value for topic, value in rig.sent if topic == "out"] == expected
    assert rig.rows.get("k", 0) == total
    sent_letters = [value for topic, value in rig.sent if topic == "app.main.dead-letters"]
    assert sent_letters == (letters if policy == "dead_letter" else [])
    assert rig.processor.rejected.skipped == (len(letters) if policy == "skip" else 0)
    assert rig.overlay.undo == []


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


# Dead letters that are hard to write


class Wordless(Exception):  # noqa: N818 - as users name theirs
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("nothing to say")


def _letter(rig: Rig, handler: Callable[[Event[str, int], Context], None]) -> dict[str, bytes]:
    rig.app.handler(rig.inputs, on_error="dead_letter")(handler)
    rig.start()
    rig.process(1)
    return dict(rig.context.outputs[0][4])


def test_an_error_that_fails_to_speak_still_becomes_a_letter(rig: Rig) -> None:
    """A rejection that raises would stop the task for a record that was to pass."""

    def refuse(event: Event[str, int], ctx: Context) -> NoReturn:
        raise Wordless

    said = _letter(rig, refuse)
    assert said["dead-letter-error"] == b"Wordless: (it has no text: its __str__ raises)"
    assert b"raise Wordless" in said["dead-letter-traceback"]


def test_the_traceback_of_a_letter_has_the_causes_and_the_users_frames(rig: Rig) -> None:
    """What went wrong below is mostly in the cause; frames of this package say nothing to its reader."""

    def refuse(event: Event[str, int], ctx: Context) -> None:
        try:
            ctx.send(rig.outs, "k" * 2_000, event.value)
        except ValueError as error:
            raise KeyError("refused") from error

    traceback = _letter(rig, refuse)["dead-letter-traceback"].decode()
    assert 'ctx.send(rig.outs, "k" * 2_000, event.value)' in traceback
    assert "direct cause" in traceback
    assert traceback.endswith("KeyError: 'refused'")
    assert "context.py" not in traceback


def test_the_traceback_of_a_letter_is_bounded_and_keeps_both_ends(rig: Rig) -> None:
    """A recursion without an end, through two functions: the handler's line is first, the error last."""

    def one(n: int) -> int:
        return two(n + 1)

    def two(n: int) -> int:
        return one(n + 1)

    def deep(event: Event[str, int], ctx: Context) -> None:
        one(event.value)

    traceback = _letter(rig, deep)["dead-letter-traceback"]
    assert len(traceback) <= 8 * 1024
    assert b"one(event.value)" in traceback
    assert traceback.rstrip().splitlines()[-1].startswith(b"RecursionError")


@pytest.mark.parametrize("batch", [False, True])
def test_a_letter_that_its_topic_would_refuse_stops_the_task_with_the_record(rig: Rig, batch: bool) -> None:
    """Sent all the same, it would abort its commit for ever; without its value it is no letter."""
    rig.largest_letter = 2_000
    start(rig, "dead_letter", batch=batch)
    with pytest.raises(PoisonError) as caught:
        rig.processor.process("in", records(1, b"[" + b"1" * 1_900, 3))
    assert caught.value.offset == 101
    message = caught.value.error.message
    for fact in (
        "over the limit of topic app.main.dead-letters (2000 bytes)",
        "raise max.message.bytes",
        "in[0]",
    ):
        assert fact in message
    assert rig.sent == [("out", b"1")]
    assert rig.processor.rejected.dead_lettered == 0


def test_a_letter_counts_the_tries(rig: Rig) -> None:
    """It tells a record that was refused at once from one whose service was away for an hour."""
    rig.app.handler(rig.inputs, on_error="dead_letter", retries=2)(rig.add)
    rig.start()
    rig.processor.process("in", records(BAD), 2)
    assert dict(rig.context.outputs[0][4])["dead-letter-tries"] == b"3"
