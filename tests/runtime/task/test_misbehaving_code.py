"""User code that raises unusual errors: the policy applies to one record, and the worker continues."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pipeline import App, Batch, Context, Dedup, Event, OnError, Sqlite
from pipeline.core.dead_letters import read_letter
from pipeline.errors import HandlerError, InvariantError
from pipeline.testing import TestDriver

BAD = 2


class Panic(BaseException):
    """An error of a library in another language. It is not an Exception, so `except Exception` misses it."""


class Mute(BaseException):
    """Its text cannot be had, either."""

    def __str__(self) -> NoReturn:
        raise Panic("no text")


class Case:
    """An app that forwards numbers, with a place where each record may fail."""

    def __init__(
        self, on_error: OnError, raises: Callable[[], BaseException], place: str = "handler"
    ) -> None:
        self.raises = raises
        self.place = place
        self.app = App("odd")
        dedup = Dedup(ttl_s=60, id=self.identify) if place == "dedup" else None
        self.inputs = self.app.topic("in", key=str, value=int, codec=self, dedup=dedup)
        self.outs = self.app.topic("out", key=str, value=int)
        self.sums = self.app.table("sums", key=str, value=int)
        if place == "batch":
            self.app.batch_handler(self.inputs, on_error=on_error)(self.forward_all)
        else:
            self.app.handler(self.inputs, on_error=on_error)(self.forward)
        self.driver = TestDriver(self.app)

    def encode(self, value: int, /) -> bytes:
        return b"%d" % value

    def decode(self, data: bytes, /) -> int:
        self._fail_at("codec", int(data))
        return int(data)

    def identify(self, event: Event[str, int]) -> str:
        self._fail_at("dedup", event.value)
        return str(event.value)

    def forward(self, event: Event[str, int], ctx: Context) -> None:
        ctx.send(self.outs, event.key, event.value)
        ctx.table(self.sums)["sum"] = ctx.table(self.sums).get("sum", 0) + event.value
        self._fail_at("handler", event.value)

    def forward_all(self, batch: Batch[str, int], ctx: Context) -> None:
        for event in batch:
            self.forward(event, ctx)
            self._fail_at("batch", event.value)

    def send(self, *values: int) -> None:
        for value in values:
            self.driver.send_raw(self.inputs, b"k", b"%d" % value)
        self.driver.run()

    @property
    def forwarded(self) -> list[int]:
        return [event.value for event in self.driver.outputs(self.outs)]

    def _fail_at(self, place: str, value: int) -> None:
        if value == BAD and place == self.place:
            raise self.raises()


@pytest.mark.parametrize("place", ["handler", "batch", "codec", "dedup"])
@pytest.mark.parametrize("raises", [lambda: Panic("at the disco"), Mute])
def test_an_error_that_is_not_an_exception_gets_the_policy(
    place: str, raises: Callable[[], BaseException]
) -> None:
    """The error belongs to its record: the record's writes are undone, and other records continue."""
    case = Case("dead_letter", raises, place)
    case.send(1, 2, 3)
    assert case.forwarded == [1, 3]
    assert case.driver.table(case.sums) == {"sum": 4}
    (letter,) = case.driver.dead_letters()
    read = read_letter(letter.headers)
    assert read is not None
    assert read[0].error.startswith(("Panic: at the disco", "Mute: (it has no text"))


def test_an_error_that_is_not_an_exception_stops_the_task_under_stop() -> None:
    """With the record and the place in the code, and not with a traceback of the worker's."""
    case = Case("stop", lambda: Panic("at the disco"))
    with pytest.raises(
        HandlerError, match=r"in\[0\] offset 1 cannot be processed by Case\.forward: Panic: at the"
    ):
        case.send(1, 2, 3)
    assert case.forwarded == [1]


def test_a_bug_of_this_package_is_never_the_records() -> None:
    """A check of ours that fails must be seen, whatever the policy."""
    case = Case("skip", lambda: InvariantError("a bug"))
    with pytest.raises(InvariantError):
        case.send(1, 2, 3)


class Careless:
    """A codec whose author has not thought of nulls."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def encode(self, value: int, /) -> bytes:
        return b"%d" % value

    def decode(self, data: bytes, /) -> int:
        if data is None:
            raise self._error("'NoneType' object has no attribute 'hex'")
        return int(data)


@pytest.mark.parametrize("error", [AttributeError, TypeError, Panic])
def test_null_keys_and_values_get_the_policy_whatever_the_codec_raises(error: type[BaseException]) -> None:
    """Both may be null at once: the text about the one must not fail over the other."""
    app = App("odd")
    inputs = app.topic("in", key=str, value=int, codec=Careless(error))
    seen: list[int] = []
    app.handler(inputs, on_error="dead_letter", retries=2)(lambda event, _ctx: seen.append(event.value))
    driver = TestDriver(app)
    for key, value in [(b"k", b"1"), (None, None), (b"k", None), (None, b"2"), (b"k", b"3")]:
        driver.send_raw(inputs, key, value)
    driver.run()
    assert seen == [1, 3]
    assert len(driver.dead_letters()) == 3
    assert driver.log_events("record_retried") == []


@pytest.mark.parametrize("place", ["row", "write"])
def test_a_sink_skips_a_record_whose_function_panics(tmp_path: Path, place: str) -> None:
    """Rows are made on one thread and written on another; neither may end the worker."""
    app = App("odd")
    inputs = app.topic("in", key=str, value=int)
    written: list[int] = []

    def write(_cursor: Any, events: Sequence[Event[str, int]]) -> None:
        if any(event.value == BAD for event in events):
            raise Panic("at the disco")
        written.extend(event.value for event in events)

    def row(event: Event[str, int]) -> NoReturn:
        raise Panic("at the disco")

    file = tmp_path / "rows.db"
    target: Any = Sqlite(file, write=write)
    if place == "row":
        connection = sqlite3.connect(file)
        connection.execute("CREATE TABLE numbers (n INTEGER)")
        connection.close()
        target = Sqlite(file, "numbers", mode="append", row=row)
    app.group("rows").sink(inputs, target, on_error="skip")
    driver = TestDriver(app)
    for value in (1, 2, 3):
        driver.send(inputs, "k", value)
    driver.run()
    skipped = [said["message"] for said in driver.log_events("record_rejected")]
    assert (len(skipped), written) == ((3, []) if place == "row" else (1, [1, 3]))
    assert all("at the disco" in message for message in skipped)
