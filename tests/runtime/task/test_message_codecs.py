"""A user's codec may look at the message of what it decodes: a schema's number is often a header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline import App, Batch, Context, Dedup, Event, Sqlite
from pipeline.errors import ConfigError, HandlerError
from pipeline.testing import TestDriver

WORDS = ("zero", "one", "two")


class Numbered:
    """Text as numbers of a list that a header chooses: bytes alone cannot be decoded."""

    def encode(self, value: str | None, /) -> bytes:
        return b"%d" % WORDS.index(value or "")

    def decode(self, data: bytes, message: Any, /) -> str:
        headers = dict(message.headers())
        word = WORDS[int(data)]
        return word.upper() if headers["list"] == b"loud" else word


def sent(driver: TestDriver, topic: Any, *values: str) -> None:
    """Records that alternate between the two lists."""
    for count, value in enumerate(values):
        driver.send(topic, "k", value, headers=[("list", b"loud" if count % 2 else b"low")])


@pytest.mark.parametrize("handlers", [1, 2])
def test_each_record_is_decoded_by_its_own_message(handlers: int) -> None:
    """The one before has other headers. What is sent is read by its own message as well."""
    app = App("words")
    words = app.topic("words", key=str, value=str, codec=Numbered())
    out = app.topic("out", key=str, value=str, codec=Numbered())
    seen: list[str] = []

    def note(event: Event[str, str], ctx: Context) -> None:
        seen.append(event.value)
        ctx.send(out, event.key, event.value.lower(), headers=[("list", b"loud")])

    for _ in range(handlers):
        app.handler(words)(note)
    driver = TestDriver(app)
    sent(driver, words, "one", "two", "one")
    driver.run()
    assert seen == [word for word in ("one", "TWO", "one") for _ in range(handlers)]
    assert [event.value for event in driver.outputs(out)] == [word.upper() for word in seen]


def test_batches_ids_and_sinks_read_by_the_message_too(tmp_path: Path) -> None:
    """Wherever an event is made, its value is the same."""
    app = App("words")
    words = app.topic(
        "words",
        key=str,
        value=str,
        codec=Numbered(),
        dedup=Dedup(ttl_s=60, id=lambda event: event.value),
    )
    plain = app.topic("plain", key=str, value=str | None, codec=Numbered())
    seen: list[Sequence[str]] = []
    rows: list[str | None] = []

    @app.batch_handler(words)
    def note(batch: Batch[str, str], ctx: Context) -> None:
        seen.append(list(batch.values))

    def write(_connection: Any, events: Sequence[Event[str, str | None]]) -> None:
        rows.extend(event.value for event in events)

    app.group("rows").sink(plain, Sqlite(tmp_path / "rows.db", write=write))
    driver = TestDriver(app)
    sent(driver, words, "one", "one", "one")  # the last one is the first again: `one`, `ONE`, `one`
    sent(driver, plain, "two", "one")
    driver.send_raw(plain, b"k", None)
    driver.run()
    assert seen == [["one", "ONE"]]
    assert rows == ["two", "ONE", None]


def test_a_null_value_is_told_before_the_codec_sees_it() -> None:
    """No codec of a user's need expect one where the type has no None."""
    app = App("words")
    words = app.topic("words", key=str, value=str, codec=Numbered())
    app.handler(words)(lambda _event, _ctx: None)
    driver = TestDriver(app)
    driver.send_raw(words, b"k", None)
    with pytest.raises(
        HandlerError, match="the record has no value, and the value type of topic words does not include None"
    ):
        driver.run()


def test_a_table_has_no_message_for_its_codec() -> None:
    """A row is read back from the disk after a restore."""
    with pytest.raises(ConfigError, match=r"table main\.t: Numbered\.decode requires a message"):
        App("words").table("t", key=str, value=str, codec=Numbered())  # type: ignore[arg-type]
