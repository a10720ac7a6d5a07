"""Faust's JSON codec as functions of bytes: `load_json` and `dump_json`, without the calls in between.

The results and the bytes are those of Faust's codec. With the json module of Python, which Faust uses if neither
orjson nor simplejson is installed, its encoder is made once, and short values take the direct way.
"""

from __future__ import annotations

import json
from typing import Any

from faust.utils import json as faust_json

__all__ = ["JSON_LIBRARY", "dump_json", "load_json"]

# Strings that are not ASCII have other bytes in each, and so have keys.
JSON_LIBRARY: str = "orjson" if faust_json.orjson is not None else faust_json.json.__name__

_encode = faust_json.JSONEncoder(separators=(",", ":")).encode
_escaped = json.encoder.encode_basestring_ascii
_scan: Any = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def _load(data: bytes) -> Any:
    text = data.decode()
    try:
        value, end = _scan(text, 0)
    except StopIteration:  # nothing, or white space first
        return json.loads(text)
    return value if end == len(text) else json.loads(text)


def _dump(value: Any) -> bytes:
    kind = type(value)
    if kind is int:
        return b"%d" % value
    return (_escaped(value) if kind is str else _encode(value)).encode()


def _load_by_faust(data: bytes) -> Any:
    return faust_json.loads(data.decode())


def _dump_by_faust(value: Any) -> bytes:
    text: Any = faust_json.dumps(value)
    return text if isinstance(text, bytes) else text.encode()


load_json, dump_json = (_load, _dump) if JSON_LIBRARY == "json" else (_load_by_faust, _dump_by_faust)
