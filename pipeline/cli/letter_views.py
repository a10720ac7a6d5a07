"""Dead letters as `pipeline deadletters` shows them."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.cli.options import counted
from pipeline.cli.rendering import hex_lines, iso_time, json_field, readable, text_field
from pipeline.client.deadletters.letters import DeadLetter
from pipeline.client.deadletters.marks import Mark

__all__ = ["letter_cells", "letter_document", "letter_lines", "letter_summary"]

_ERROR_LETTERS = 100
_HEX_SHOWN = 256


def letter_cells(found: DeadLetter, mark: Mark | None) -> tuple[str, ...]:
    """A row of the list."""
    letter = found.letter
    error = readable(letter.error.encode())
    return (
        found.name,
        str(letter.origin),
        iso_time(letter.failed_ms) if letter.failed_ms else "-",
        letter.handler or "-",
        str(letter.tries),
        _replayed(mark) or (f"no; replay {letter.replay} failed" if letter.replay else "no"),
        error if len(error) <= _ERROR_LETTERS else f"{error[:_ERROR_LETTERS]}...",
    )


def _replayed(mark: Mark | None) -> str:
    if mark is None:
        return ""
    return iso_time(mark.replayed_ms) + (f" ({mark.times} times)" if mark.times > 1 else "")


def letter_summary(found: DeadLetter, mark: Mark | None) -> dict[str, object]:
    """What `list` says of it, for programs."""
    letter = found.letter
    return {
        "id": found.name,
        "topic": letter.origin.topic,
        "partition": letter.origin.partition,
        "offset": letter.origin.offset,
        "timestamp": iso_time(letter.origin.timestamp_ms) if letter.origin.timestamp_ms >= 0 else None,
        "given_up": iso_time(letter.failed_ms) if letter.failed_ms else None,
        "handler": letter.handler,
        "tries": letter.tries,
        "replay": letter.replay,
        "error": letter.error,
        "replayed": iso_time(mark.replayed_ms) if mark is not None else None,
        "replayed_times": mark.times if mark is not None else 0,
    }


def letter_document(found: DeadLetter, mark: Mark | None) -> dict[str, object]:
    """Everything, for programs."""
    headers = [{"name": name, **text_field("value", value)} for name, value in found.headers]
    return {
        **letter_summary(found, mark),
        "traceback": found.letter.traceback,
        "headers": headers,
        **text_field("key", found.key),
        **json_field("value", found.value),
    }


def letter_lines(found: DeadLetter, mark: Mark | None) -> Iterator[str]:
    """Everything, for people."""
    letter = found.letter
    yield f"dead letter {found.name}"
    stamp = letter.origin.timestamp_ms
    yield f"  record     {letter.origin}" + (f" of {iso_time(stamp)}" if stamp >= 0 else "")
    when = f"{iso_time(letter.failed_ms)}, " if letter.failed_ms else ""
    tries = f"{letter.tries} tries" if letter.tries > 1 else "1 try"
    yield f"  given up   {when}by {letter.handler or 'nobody: it has no handler'}, after {tries}"
    if letter.replay:
        yield f"  replay     number {letter.replay} of the record, which failed"
    yield f"  replayed   {_replayed(mark) or 'no'}"
    yield f"  error      {readable(letter.error.encode())}"
    for line in letter.traceback.splitlines():
        yield f"    {readable(line.encode())}"
    for name, value in found.headers:
        yield f"  header     {readable(name.encode())}: {readable(value)}"
    yield from _bytes("key", found.key)
    yield from _bytes("value", found.value)


def _bytes(name: str, data: bytes | None) -> Iterator[str]:
    size = "" if data is None else f"  ({counted(len(data), 'byte')})"
    yield f"  {name:<10} {readable(data)}{size}"
    if data:
        for line in hex_lines(data[:_HEX_SHOWN]):
            yield f"    {line}"
        if len(data) > _HEX_SHOWN:
            yield f"    ... {len(data) - _HEX_SHOWN:,} bytes more: --json has all of them"
