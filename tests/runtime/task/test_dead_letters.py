"""What a dead letter says, however its error fails to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest

from pipeline import Context, Event
from pipeline.core.names import TopicPartition
from pipeline.ports import Output
from pipeline.runtime.task.record_errors import PoisonError
from pipeline.testing.memory_log import MemoryRecord
from tests.support.runtime.processor_rig import BAD, Rig, records, start


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
    assert "processor.py" not in traceback
    assert [output[0] for output in rig.context.outputs] == ["out", "app.main.dead-letters", "out"]
    assert rig.processor.rejected.dead_lettered == 1


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
    """If it was sent, its commit would fail each time; without its value it would not be a dead letter."""
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
