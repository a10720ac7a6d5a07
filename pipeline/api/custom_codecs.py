"""What a user may bring instead of a named codec, checked where it is declared."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from pipeline.errors import ConfigError

__all__ = ["Codec", "MessageCodec", "check_codec", "giving_bytes"]

V = TypeVar("V")


class Codec(Protocol[V]):
    """`encode` and `decode` of one type, for values of topics and tables."""

    def encode(self, value: V, /) -> bytes: ...

    def decode(self, data: bytes, /) -> V: ...


class MessageCodec(Protocol[V]):
    """A codec of a topic whose `decode` also looks at the message: at its headers, for a schema's number say.

    `message` has the methods of the Kafka client's: `headers()` is None or a list of (str, bytes or None), `topic()`,
    `key()`, `timestamp()` and so on. Headers that cannot be read raise a ValueError when they are used. What is sent is
    encoded only: there is no message yet by which to decode it again.
    """

    def encode(self, value: V, /) -> bytes: ...

    def decode(self, data: bytes, message: Any, /) -> V: ...


def check_codec(codec: Any, where: str) -> bool:
    """Whether its `decode` wants a message. Raises ConfigError for what is no codec."""
    name = type(codec).__qualname__
    if isinstance(codec, type):
        raise ConfigError(
            f"{where}: codec is the class {codec.__qualname__}", hint=f"make one: {codec.__qualname__}()"
        )
    for method in ("encode", "decode"):
        if not callable(getattr(codec, method, None)):
            raise ConfigError(
                f"{where}: the codec {codec!r} has no method {method}",
                hint="it needs encode(value) -> bytes and decode(data) -> value; or use 'json', 'msgpack' or 'raw'",
            )
    return _wants_message(codec.decode, where, name)


def giving_bytes(codec: Codec[Any]) -> Callable[[Any], bytes]:
    """A user's encode, found out at the record when it returns anything but bytes."""

    def encode(value: Any) -> bytes:
        data = codec.encode(value)
        if type(data) is not bytes:
            raise TypeError(f"{type(codec).__qualname__}.encode returned {type(data).__name__}, not bytes")
        return data

    return encode


def _wants_message(decode: Callable[..., Any], where: str, name: str) -> bool:
    """Whether a second argument is needed, or is called `message`: any other default is the user's own."""
    try:
        signature = inspect.signature(decode)
    except ValueError:
        return False  # some builtins have none to look at
    for arguments in ((b"",), (b"", None)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return len(arguments) == 2 or list(signature.parameters)[1:2] == ["message"]
    raise ConfigError(
        f"{where}: {name}.decode{signature} cannot be called with bytes, nor with bytes and a message",
        hint="write it as decode(self, data), or decode(self, data, message)",
    )
