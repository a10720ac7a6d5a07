"""Formats keys and values of records: as JSON fields, and as a hex dump."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress

import msgspec

__all__ = ["hex_lines", "json_field", "text_field"]

_HEX_BYTES = 16


def json_field(name: str, data: bytes | None) -> dict[str, object]:
    """A JSON field with the data: JSON unchanged, otherwise text, otherwise base64 as `NAME_base64`."""
    if data is not None:
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            msgspec.json.decode(data)
            return {name: msgspec.Raw(data)}
    return text_field(name, data)


def text_field(name: str, data: bytes | None) -> dict[str, object]:
    """A JSON field with the data: text, otherwise base64 as `NAME_base64`. None for a null."""
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(data).decode()}


def hex_lines(data: bytes) -> Iterator[str]:
    """Lines of a hex dump, as `00000010  7b 22 61 22  {"a"`, with sixteen bytes per line."""
    for start in range(0, len(data), _HEX_BYTES):
        part = data[start : start + _HEX_BYTES]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        yield f"{start:08x}  {part.hex(' '):<{_HEX_BYTES * 3 - 1}}  {text}"
