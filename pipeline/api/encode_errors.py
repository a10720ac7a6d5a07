"""Adds the topic or table to the error of a codec, which knows only the types.

Also owns two limits that the Kafka client does not check: it truncates the name of a header at a NUL and ends the
process if the name cannot be encoded as UTF-8 (`check_header_name`), and its timestamps have 64 bits (`LATEST_MS`).
"""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec

from pipeline.api.keys import KeyCodec

__all__ = ["LATEST_MS", "REFUSALS", "check_header_name", "refuse_event", "refuse_key", "refuse_value"]

LATEST_MS = 2**63 - 1

REFUSALS = (TypeError, ValueError, OverflowError)

# These classes take the text as their only argument. Other errors, such as those of a user's codec, may not, so they
# are raised again unchanged, with a note.
_PLAIN = frozenset({TypeError, ValueError, OverflowError, msgspec.ValidationError, msgspec.EncodeError})


def check_header_name(name: str) -> None:
    """Raise ValueError if `name` cannot be the name of a header."""
    try:
        ends_early = b"\x00" in name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the header name {name!r} cannot be encoded as UTF-8") from None
    if ends_early:
        raise ValueError(f"the header name {name!r} contains a NUL, at which Kafka clients would truncate it")


def refuse_event(event: object, where: str) -> NoReturn:
    """Raise the TypeError of a method that was given something else, such as a key, where it takes an event."""
    raise TypeError(
        f"{where} takes the event that the handler was given, not {type(event).__name__}; pass another key as key="
    )


def refuse_value(error: Exception, where: str) -> NoReturn:
    """Raise the error of a codec again, in the same class, with `where` (the topic or table) before its text."""
    _again(error, where, str(error))


def refuse_key(error: Exception, where: str, codec: KeyCodec[Any], key: Any) -> NoReturn:
    """Like `refuse_value`, for a key."""
    text = str(error)
    # `str.encode` encodes these keys, and its text does not name the expected type.
    if codec.schema == "str" and not isinstance(key, str):
        text = f"expected a key of type str, got {type(key).__name__}"
    _again(error, where, text)


def _again(error: Exception, where: str, text: str) -> NoReturn:
    if type(error) in _PLAIN:
        raise type(error)(f"{where}: {text}") from error
    error.add_note(f"in {where}")
    raise error
