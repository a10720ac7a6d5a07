"""Formats dead letters for `pipeline deadletters`, as text and as JSON documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.cli.rendering import hex_lines, json_field, text_field
from pipeline.core.records import iso_time, readable
from pipeline.core.suggestions import counted
from pipeline.ops.dead_letters.letters import DeadLetter
from pipeline.ops.dead_letters.marks import ReplayMark
from pipeline.ops.dead_letters.records import FailedRecord, State

__all__ = ["letter_document", "letter_lines", "record_lines", "record_summary"]

_HEX_SHOWN = 256


Row = tuple[FailedRecord, DeadLetter, ReplayMark | None]


def record_lines(rows: Sequence[Row], width: int) -> Iterator[str]:
    """Two lines for each record: its position and state, and the error, cut to the width of the terminal."""
    table = [("id", "record", "failed", "dead_letters", "state")]
    for record, found, mark in rows:
        failed_ms = found.letter.failed_ms
        table.append(
            (
                found.name,
                str(found.letter.origin),
                f"{iso_time(failed_ms)[:19]}Z" if failed_ms else "-",
                f"{len(record.ids):,}",
                _state(mark),
            )
        )
    first, second, third, fourth, _ = (max(map(len, column)) for column in zip(*table, strict=True))
    reasons = [None, *(letter for _, letter, _ in rows)]
    for (name, origin, when, letters, state), letter in zip(table, reasons, strict=True):
        yield f"{name:<{first}}  {origin:<{second}}  {when:<{third}}  {letters:>{fourth}}  {state}"
        if letter is not None:
            yield _cut(f"  {_reason(letter)}", width)


def _reason(found: DeadLetter) -> str:
    letter = found.letter
    attempts = f", {counted(letter.tries, 'attempt')}" if letter.tries > 1 else ""
    replay = f", replay {letter.replay:,}" if letter.replay else ""
    return f"{letter.handler or 'no handler'}{attempts}{replay}: {readable(letter.error.encode())}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _state(mark: ReplayMark | None) -> State:
    if mark is None:
        return State.OPEN
    return State.DISCARDED if mark.discarded else State.REPLAYED


def _replayed(mark: ReplayMark | None) -> str:
    if mark is None:
        return ""
    return iso_time(mark.replayed_ms) + (f" ({mark.times} times)" if mark.times > 1 else "")


def record_summary(record: FailedRecord, found: DeadLetter, mark: ReplayMark | None) -> dict[str, object]:
    """The JSON document of a record in `list`."""
    return {**letter_summary(found, mark), "state": _state(mark).value, "dead_letters": len(record.ids)}


def letter_summary(found: DeadLetter, mark: ReplayMark | None) -> dict[str, object]:
    """The JSON fields that describe a dead letter in all commands."""
    letter = found.letter
    return {
        "id": found.name,
        "topic": letter.origin.topic,
        "partition": letter.origin.partition,
        "offset": letter.origin.offset,
        "timestamp": iso_time(letter.origin.timestamp_ms) if letter.origin.timestamp_ms >= 0 else None,
        "failed": iso_time(letter.failed_ms) if letter.failed_ms else None,
        "handler": letter.handler,
        "attempts": letter.tries,
        "replay": letter.replay,
        "error": letter.error,
        "replayed": iso_time(mark.replayed_ms) if mark is not None and not mark.discarded else None,
        "replayed_times": mark.times if mark is not None and not mark.discarded else 0,
        "discarded": iso_time(mark.replayed_ms) if mark is not None and mark.discarded else None,
    }


def letter_document(found: DeadLetter, mark: ReplayMark | None) -> dict[str, object]:
    """The complete JSON document of a dead letter."""
    headers = [{"name": name, **text_field("value", value)} for name, value in found.headers]
    return {
        **letter_summary(found, mark),
        "traceback": found.letter.traceback,
        "headers": headers,
        "headers_omitted": found.letter.left_out or None,
        **text_field("key", found.key),
        **json_field("value", found.value),
    }


def letter_lines(found: DeadLetter, mark: ReplayMark | None) -> Iterator[str]:
    """The complete dead letter as text."""
    letter = found.letter
    yield f"dead letter {found.name}"
    stamp = letter.origin.timestamp_ms
    yield f"  record     {letter.origin}" + (f" of {iso_time(stamp)}" if stamp >= 0 else "")
    when = f"{iso_time(letter.failed_ms)}, " if letter.failed_ms else ""
    attempts = counted(letter.tries, "attempt")
    yield f"  failed     {when}in {letter.handler or 'no handler (its topic has none)'}, after {attempts}"
    if letter.replay:
        yield f"  replay     number {letter.replay} of this record failed"
    if mark is not None and mark.discarded:
        yield f"  discarded  {iso_time(mark.replayed_ms)}"
    else:
        yield f"  replayed   {_replayed(mark) or 'no'}"
    yield f"  error      {readable(letter.error.encode())}"
    for line in letter.traceback.splitlines():
        yield f"    {readable(line.encode())}"
    for name, value in found.headers:
        yield f"  header     {readable(name.encode())}: {readable(value)}"
    if letter.left_out:
        yield f"  omitted    {readable(letter.left_out.encode())}"
    yield from _bytes("key", found.key)
    yield from _bytes("value", found.value)


def _bytes(name: str, data: bytes | None) -> Iterator[str]:
    size = "" if data is None else f"  ({counted(len(data), 'byte')})"
    yield f"  {name:<10} {readable(data)}{size}"
    if data:
        for line in hex_lines(data[:_HEX_SHOWN]):
            yield f"    {line}"
        if len(data) > _HEX_SHOWN:
            yield f"    ... {len(data) - _HEX_SHOWN:,} more bytes: --json prints all of them"
