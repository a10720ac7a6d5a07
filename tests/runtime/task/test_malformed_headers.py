"""Records whose header names are not valid UTF-8: each is a poison record where its headers are needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline import App, Batch, Context, Dedup, Event, OnError, Sqlite
from pipeline.app import declared_app
from pipeline.core.dead_letters import read_letter
from pipeline.errors import HandlerError
from pipeline.testing import TestDriver

HEADERS: list[tuple[str | bytes, bytes | None]] = [("trace", b"7"), (b"\xff", b"1"), ("empty", None)]
REASON = "1 of 3 headers cannot be read: the name is not valid UTF-8 (b'\\xff')"


class Case:
    """An app whose handler reads the headers of every record."""

    def __init__(
        self, on_error: OnError, *, batch: bool = False, dedup: Dedup[str, int] | None = None
    ) -> None:
        self.app = App("odd")
        self.inputs = self.app.topic("in", key=str, value=int, dedup=dedup)
        self.outs = self.app.topic("out", key=str, value=int)
        self.seen: list[int] = []
        if batch:
            self.app.batch_handler(self.inputs, on_error=on_error)(self.note_all)
        else:
            self.app.handler(self.inputs, on_error=on_error, retries=3)(self.note)
        self.driver = TestDriver(self.app)

    def note(self, event: Event[str, int], ctx: Context) -> None:
        try:
            names = [name for name, _ in event.headers]
        except ValueError:
            names = [name for name, _ in event.headers]  # whoever asks again must not end the process
        self.seen.append(event.value)
        ctx.send(self.outs, event.key, len(names))

    def note_all(self, batch: Batch[str, int], ctx: Context) -> None:
        for event in batch:
            self.note(event, ctx)

    def send(self, *values: int, bad: int) -> None:
        for value in values:
            headers = HEADERS if value == bad else [("event-id", b"%d" % value)]
            self.driver.send_raw(self.inputs, b"k", b"%d" % value, headers=headers)
        self.driver.run()


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("dedup", [None, Dedup(ttl_s=60), Dedup(ttl_s=60, id=lambda event: str(event.value))])
def test_unreadable_headers_make_a_dead_letter(batch: bool, dedup: Dedup[str, int] | None) -> None:
    """It keeps key, value and the headers that can be read, and says what is missing. Nothing is tried again."""
    case = Case("dead_letter", batch=batch, dedup=dedup)
    case.send(1, 2, 3, bad=2)
    assert len(case.driver.outputs(case.outs)) == 2
    assert (set(case.seen), case.seen[-1]) == ({1, 3}, 3)
    (letter,) = case.driver.dead_letters()
    read = read_letter(letter.headers)
    assert read is not None
    assert (letter.key, letter.value, list(read[1])) == (b"k", b"2", [("trace", b"7"), ("empty", None)])
    assert read[0].error == f"UnreadableHeadersError: {REASON}"
    assert (read[0].left_out, read[0].tries) == (REASON, 1)
    assert case.driver.log_events("record_retried") == []


def test_unreadable_headers_are_skipped_under_skip() -> None:
    """As any other record that cannot be processed."""
    case = Case("skip")
    case.send(1, 2, 3, bad=2)
    assert case.seen == [1, 3]
    (said,) = case.driver.log_events("record_rejected")
    assert (said["topic"], said["offset"], REASON in said["message"]) == ("in", 1, True)


def test_unreadable_headers_stop_the_task_under_stop() -> None:
    """The message names the record; each start meets it again, and none ends the process."""
    case = Case("stop")
    for _ in range(2):
        with pytest.raises(HandlerError, match=r"in\[0\] offset 1 cannot .* not valid UTF-8"):
            case.send(*() if case.seen else (1, 2, 3), bad=2)
        case.driver.restart()
    assert case.seen == [1]


def test_unreadable_headers_that_are_not_read_change_nothing() -> None:
    """Key and value are whole: the record is processed as any other."""
    case = Case("stop")
    declared_app(case.app).main.bindings[0].function = lambda event, _ctx: case.seen.append(event.value)
    case.send(1, 2, 3, bad=2)
    assert case.seen == [1, 2, 3]


def test_a_duplicate_with_unreadable_headers_is_not_copied() -> None:
    """A copy without some of its headers would not be the record that came."""
    app = App("odd")
    copies = app.topic("copies", key=str, value=int)
    inputs = app.topic(
        "in", key=str, value=int, dedup=Dedup(ttl_s=60, id=lambda e: str(e.value), duplicates_to=copies)
    )
    app.handler(inputs, on_error="dead_letter")(lambda _event, _ctx: None)
    driver = TestDriver(app)
    for _ in range(2):
        driver.send_raw(inputs, b"k", b"1", headers=HEADERS)
    driver.run()
    assert driver.outputs(copies) == []
    assert len(driver.dead_letters()) == 1


class Numbered:
    """A codec that decodes by a header of the message, and asks for headers twice."""

    def encode(self, value: int, /) -> bytes:
        return b"%d" % value

    def decode(self, data: bytes, message: Any, /) -> int:
        try:
            dict(message.headers())
        except ValueError:
            dict(message.headers())
        return int(data)


def test_a_codec_that_asks_the_message_itself_is_safe(tmp_path: Path) -> None:
    """It gets the Kafka client's own object; handlers and sinks alike apply their policy."""
    app = App("odd")
    inputs = app.topic("in", key=str, value=int, codec=Numbered())
    seen: list[int] = []
    app.handler(inputs, on_error="dead_letter")(lambda event, _ctx: seen.append(event.value))
    rows = app.group("rows")
    written: list[int] = []

    def write(_connection: Any, events: Sequence[Event[str, int]]) -> None:
        written.extend(event.value for event in events)

    rows.sink(inputs, Sqlite(tmp_path / "rows.db", write=write), on_error="skip")
    driver = TestDriver(app)
    for value in (1, 2, 3):
        driver.send_raw(inputs, b"k", b"%d" % value, headers=HEADERS if value == 2 else [("a", b"1")])
    driver.run()
    assert seen == written == [1, 3]
    assert len(driver.dead_letters()) == 1
    assert [said["policy"] for said in driver.log_events("record_rejected")].count("skip") == 1


def test_a_replay_of_such_a_letter_has_the_headers_that_were_kept() -> None:
    """The operator decides, having read what is missing."""
    case = Case("dead_letter")
    case.send(2, bad=2)
    assert case.driver.replay_dead_letters() == 1
    case.driver.run()
    assert case.seen == [2]
    assert [event.value for event in case.driver.outputs(case.outs)] == [2]
