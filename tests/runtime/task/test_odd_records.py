"""Odd records: each is decided, and each decision is a row of the table in docs/reference/errors.md."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import App, Context, Event, OnError
from pipeline.app import declared_app
from pipeline.core.dead_letters import read_letter
from pipeline.errors import ConfigError, HandlerError
from pipeline.ports import Output
from pipeline.testing import TestDriver


class Odd:
    """An app whose handler notes what it gets, of a topic with these types."""

    def __init__(self, key: Any, value: Any, *, on_error: OnError = "dead_letter", retries: int = 3) -> None:
        self.app = App("odd")
        self.inputs = (
            self.app.topic("in", value=value) if key is None else self.app.topic("in", key=key, value=value)
        )
        self.outs = self.app.topic("out", key=bytes | None, value=bytes | None)
        self.seen: list[tuple[Any, Any]] = []
        self.app.handler(self.inputs, on_error=on_error, retries=retries)(self.note)
        self.driver = TestDriver(self.app)

    def note(self, event: Event[Any, Any], ctx: Context) -> None:
        self.seen.append((event.key, event.value))

    def send(self, key: bytes | None, value: bytes | None, **options: Any) -> None:
        self.driver.send_raw(self.inputs, key, value, **options)
        self.driver.run()


@pytest.mark.parametrize(
    ("key_type", "value_type", "key", "value", "error"),
    [
        (str, int, b"\xff", b"1", "UnicodeDecodeError"),
        (str, list[int], b"k", b"{", "Error"),
        (str, int, b"k", b'"text"', "ValidationError"),
        (int, int, b"", b"1", "Error"),
        (tuple[str, int], int, b"", b"1", "DecodeError"),
        (str, int, b"k", b"", "DecodeError"),
        (str, str, b"k", b"", "DecodeError"),
        (str, int, None, b"1", "TypeError: the record has no key"),
        (
            str,
            int,
            b"k",
            None,
            "TypeError: the record has no value, and the value type of topic in does not include None",
        ),
    ],
)
def test_what_cannot_be_decoded_is_a_letter_with_the_very_bytes_and_is_not_tried_again(
    key_type: Any, value_type: Any, key: bytes | None, value: bytes | None, error: str
) -> None:
    """No handler has been called, and none will be with better bytes; an empty value is not a null."""
    odd = Odd(key_type, value_type)
    odd.send(key, value)
    (letter,) = odd.driver.dead_letters()
    assert (letter.key, letter.value) == (key, value)
    read = read_letter(letter.headers)
    assert read is not None
    assert error in read[0].error
    assert (read[0].tries, read[0].handler) == (1, "Odd.note")
    assert odd.driver.log_events("record_retried") == []
    assert odd.seen == []


@pytest.mark.parametrize(
    ("key_type", "value_type", "key", "value", "seen"),
    [
        (str, int | None, b"k", None, ("k", None)),
        (str | None, int, None, b"1", (None, 1)),
        (bytes | None, bytes | None, None, None, (None, None)),
        (bytes | None, bytes | None, b"", b"", (b"", b"")),
        (str, int, b"", b"1", ("", 1)),
        (None, int, b"ignored \xff", b"1", (None, 1)),
        (None, int, None, b"1", (None, 1)),
        (bytes, bytes, b"\x00\xff", b"\xff\xfe", (b"\x00\xff", b"\xff\xfe")),
    ],
)
def test_what_is_odd_and_allowed_reaches_the_handler(
    key_type: Any, value_type: Any, key: bytes | None, value: bytes | None, seen: tuple[Any, Any]
) -> None:
    """Tombstones, empty texts and unexpected keys."""
    odd = Odd(key_type, value_type)
    odd.send(key, value)
    assert odd.seen == [seen]
    assert odd.driver.dead_letters() == []


@pytest.mark.parametrize("policy", ["stop", "skip", "dead_letter"])
def test_bytes_that_cannot_be_decoded_get_the_policy(policy: OnError) -> None:
    """As if the handler itself had raised."""
    odd = Odd(str, int, on_error=policy)
    if policy == "stop":
        with pytest.raises(
            HandlerError, match=r"in\[0\] offset 0 cannot be processed by Odd\.note: ValidationError"
        ):
            odd.send(b"k", b"{")
    else:
        odd.send(b"k", b"{")
        odd.send(b"k", b"2")
        assert odd.seen == [("k", 2)]
        assert len(odd.driver.dead_letters()) == (policy == "dead_letter")


def test_a_header_without_a_value_is_none_and_may_be_passed_on() -> None:
    """Tracing headers are often empty; a handler that forwards them must not fail for it."""
    odd = Odd(str, int, on_error="stop")
    seen: list[Any] = []

    def forward(event: Event[str, int], ctx: Context) -> None:
        seen.append(list(event.headers))
        ctx.send(odd.outs, None, b"x", headers=event.headers)

    declared_app(odd.app).main.bindings[0].function = forward
    headers = [("trace", None), ("trace", b""), ("trace", b"1")]
    odd.send(b"k", b"1", headers=headers)
    assert seen == [headers]
    assert [list(event.headers) for event in odd.driver.outputs(odd.outs)] == [headers]


def test_a_record_without_a_timestamp_says_so_and_its_outputs_get_the_present() -> None:
    """-1 would be refused by the producer."""
    odd = Odd(str, int)
    stamps: list[int] = []

    def forward(event: Event[str, int], ctx: Context) -> None:
        stamps.append(event.timestamp_ms)
        ctx.send(odd.outs, None, b"x")
        if event.value == 2:
            raise ValueError("no")

    declared_app(odd.app).main.bindings[0].function = forward
    declared_app(odd.app).main.bindings[0].retries = 0
    odd.send(b"k", b"1", timestamp_ms=-1)
    odd.send(b"k", b"2", timestamp_ms=-1)
    assert stamps == [-1, -1]
    (sent,) = [event.timestamp_ms for event in odd.driver.outputs(odd.outs)]
    assert 0 <= odd.driver.clock.wall_ms() - sent < 60_000
    (letter,) = odd.driver.dead_letters()
    read = read_letter(letter.headers)
    assert read is not None
    assert 0 <= odd.driver.clock.wall_ms() - letter.timestamp_ms < 60_000
    assert read[0].origin.timestamp_ms == -1


def test_letters_and_outputs_of_a_record_of_the_epoch_are_not_of_the_present() -> None:
    """The Kafka client takes the timestamp 0 for none; 1 is the nearest that it sends."""
    odd = Odd(str, int)

    def forward(event: Event[str, int], ctx: Context) -> None:
        ctx.send(odd.outs, None, b"x")
        if event.value == 2:
            raise ValueError("no")

    declared_app(odd.app).main.bindings[0].function = forward
    declared_app(odd.app).main.bindings[0].retries = 0
    odd.send(b"k", b"1", timestamp_ms=0)
    odd.send(b"k", b"2", timestamp_ms=0)
    assert [event.timestamp_ms for event in odd.driver.outputs(odd.outs)] == [1]
    (letter,) = odd.driver.dead_letters()
    assert letter.timestamp_ms == 1
    assert ("dead-letter-timestamp", b"0") in list(letter.headers)


def test_an_output_that_is_too_large_belongs_to_its_record() -> None:
    """It is refused where it is sent, so that the others of its commit are not aborted with it."""
    odd = Odd(str, int, retries=0)

    def send(event: Event[str, int], ctx: Context) -> None:
        ctx.send(odd.outs, None, b"x" * (event.value * 1_000_000))

    declared_app(odd.app).main.bindings[0].function = send
    for value in (b"0", b"2", b"1"):
        odd.send(b"k", value)
    assert [len(event.value or b"") for event in odd.driver.outputs(odd.outs)] == [0, 1_000_000]
    (letter,) = odd.driver.dead_letters()
    assert letter.value == b"2"


def test_an_interrupt_ends_the_process_and_the_record_is_met_again() -> None:
    """It is how a person stops a program: no policy may swallow it."""
    odd = Odd(str, int, on_error="skip")
    raised: list[BaseException] = [KeyboardInterrupt()]

    def stop(event: Event[str, int], ctx: Context) -> None:
        ctx.send(odd.outs, None, b"x")
        if event.value == 2 and raised:
            raise raised.pop()

    declared_app(odd.app).main.bindings[0].function = stop
    odd.send(b"k", b"1")
    with pytest.raises(KeyboardInterrupt):
        odd.send(b"k", b"2")
    odd.driver.restart()
    odd.driver.run()
    assert len(odd.driver.outputs(odd.outs)) == 2


def test_a_dead_letter_that_fails_as_an_input_of_another_group_keeps_both_stories() -> None:
    """A group that watches dead letters has some itself; each is replayed to the group that gave it up."""
    app = App("odd")
    inputs = app.topic("in", key=str, value=int)
    letters = app.topic("odd.main.dead-letters", key=bytes | None, value=bytes | None)
    watch = app.group("watch")
    broken = {"main", "watch"}
    seen: list[tuple[str, Any]] = []

    @app.handler(inputs, on_error="dead_letter")
    def handle(event: Event[str, int], ctx: Context) -> None:
        if "main" in broken:
            raise ValueError("main is broken")
        seen.append(("main", event.value))

    @watch.handler(letters, on_error="dead_letter")
    def alert(event: Event[bytes | None, bytes | None], ctx: Context) -> None:
        if "watch" in broken:
            raise ValueError("watch is broken")
        seen.append(("watch", [name for name, _ in event.headers].count("dead-letter-topic")))

    driver = TestDriver(app)
    driver.broker.produce(Output("in", b"k", b"7", 1))
    driver.run()
    (second,) = driver.dead_letters("watch")
    read = read_letter(second.headers)
    assert read is not None
    assert (read[0].origin.topic, read[0].group, read[0].error) == (
        "odd.main.dead-letters",
        "watch",
        "ValueError: watch is broken",
    )
    first = read_letter(read[1])
    assert first is not None
    assert (first[0].origin.topic, first[0].error) == ("in", "ValueError: main is broken")
    broken.clear()
    driver.replay_dead_letters("watch")
    driver.replay_dead_letters("main")
    driver.run()
    assert sorted(seen) == [("main", 7), ("watch", 1)]


def test_a_group_that_makes_dead_letters_of_its_own_dead_letters_is_refused() -> None:
    """A letter that fails again would be written to the topic that the handler reads, without end."""
    app = App("odd")
    letters = app.topic("odd.main.dead-letters", key=bytes | None, value=bytes | None)
    with pytest.raises(ConfigError, match="would become a new letter each time"):
        app.handler(letters, on_error="dead_letter")(lambda _event, _ctx: None)
    app.handler(letters, on_error="skip")(lambda _event, _ctx: None)


def test_a_letter_over_its_topics_limit_stops_the_task_until_the_limit_is_raised() -> None:
    """Limits hold for compressed batches, and an input's may be raised later: the record stays where it is."""
    odd = Odd(str, int, retries=0)
    odd.driver.run()
    letters = "odd.main.dead-letters"
    odd.driver.broker.configure(letters, {"max.message.bytes": "4000"})
    odd.driver.restart()
    odd.send(b"k", b"1")
    with pytest.raises(HandlerError, match=r"over the limit of topic odd\.main\.dead-letters \(3744 bytes\)"):
        odd.send(b"k", b"[" * 3_500)
    assert odd.driver.dead_letters() == []
    odd.driver.broker.configure(letters, {"max.message.bytes": "10000"})
    odd.driver.restart()
    odd.send(b"k", b"2")
    assert [letter.value for letter in odd.driver.dead_letters()] == [b"[" * 3_500]
    assert odd.seen == [("k", 1), ("k", 2)]
