"""Says which topic or table refused a key or a value: what a codec raises knows only the types.

And what of a record the Kafka client itself would not take, in ways that are none: it cuts a header's name at a NUL,
ends the process over one that has no UTF-8 form, and has no room for a later time.
"""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec

from pipeline.api.keys import KeyCodec

__all__ = ["LATEST_MS", "REFUSALS", "check_header_name", "refuse_key", "refuse_value"]

LATEST_MS = 2**63 - 1

REFUSALS = (TypeError, ValueError, OverflowError)

# Their one argument is their text. Others, a user's codec's among them, are raised again as they are.
_PLAIN = frozenset({TypeError, ValueError, OverflowError, msgspec.ValidationError, msgspec.EncodeError})


def check_header_name(name: str) -> None:
    """Raises ValueError for a name that is no header's."""
    try:
        ends_early = b"\x00" in name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the header name {name!r} cannot be encoded as UTF-8") from None
    if ends_early:
        raise ValueError(f"the header name {name!r} contains a NUL, at which Kafka clients would truncate it")


def refuse_value(error: Exception, where: str) -> NoReturn:
    """Raise the codec's error again, of its own class, with the place in front."""
    _again(error, where, str(error))


def refuse_key(error: Exception, where: str, codec: KeyCodec[Any], key: Any) -> NoReturn:
    """As `refuse_value`, for a key."""
    text = str(error)
    if codec.schema == "str" and not isinstance(
        key, str
    ):  # encoded by an unbound method with words of its own
        text = f"expected a key of type str, got {type(key).__name__}"
    _again(error, where, text)


def _again(error: Exception, where: str, text: str) -> NoReturn:
    if type(error) in _PLAIN:
        raise type(error)(f"{where}: {text}") from error
    error.add_note(f"in {where}")
    raise error
