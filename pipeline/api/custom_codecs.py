"""Codecs that users define: the protocols `Codec` and `MessageCodec`, and their check at the declaration."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from pipeline.errors import ConfigError

__all__ = ["Codec", "MessageCodec", "check_codec", "giving_bytes"]

V = TypeVar("V")


class Codec(Protocol[V]):
    """A codec for values of topics and tables that you define: any object with these two methods.

    Example:
        ```python
        class Upper:
            def encode(self, value: str, /) -> bytes:
                return value.upper().encode()

            def decode(self, data: bytes, /) -> str:
                return data.decode()


        names = app.topic("names", key=str, value=str, codec=Upper())
        ```
    """

    def encode(self, value: V, /) -> bytes:
        """Encode a value.

        Args:
            value: Of the declared type.

        Returns:
            The bytes.

        Raises:
            ValueError: The value cannot be encoded. This error and any other exception are treated as an error of the
                record that is processed.
        """

    def decode(self, data: bytes, /) -> V:
        """Decode a value.

        Args:
            data: The bytes of a record's value or of a row. Never None.

        Returns:
            The value.

        Raises:
            ValueError: The bytes cannot be decoded. This error and any other exception are treated as an error of the
                record.
        """


class MessageCodec(Protocol[V]):
    """A codec for a topic that you define, whose `decode` also gets the message, for example a schema id in a header.

    A value that is sent is encoded, but not decoded again as a check, because there is no message yet.

    Example:
        ```python
        class BySchemaId:
            def encode(self, value: Order, /) -> bytes:
                return msgspec.json.encode(value)

            def decode(self, data: bytes, message: Any, /) -> Order:
                schema = dict(message.headers() or ())["schema-id"]
                return decoders[schema](data)
        ```
    """

    def encode(self, value: V, /) -> bytes:
        """Encode a value. The same as `Codec.encode`.

        Args:
            value: Of the declared type.

        Returns:
            The bytes.
        """

    def decode(self, data: bytes, message: Any, /) -> V:
        """Decode a value.

        Args:
            data: The bytes of the record's value.
            message: The Kafka client's message: `headers()` is None or a list of (str, bytes or None); `topic()`,
                `key()`, `timestamp()` and so on. Headers that cannot be read raise a ValueError.

        Returns:
            The value.

        Raises:
            ValueError: The bytes cannot be decoded. This error and any other exception are treated as an error of the
                record.
        """


def check_codec(codec: Any, where: str) -> bool:
    """Return whether `decode` takes a message. Raises ConfigError if `codec` is not a codec."""
    name = type(codec).__qualname__
    if isinstance(codec, type):
        raise ConfigError(
            f"{where}: codec is the class {codec.__qualname__}",
            hint=f"create an object: {codec.__qualname__}()",
        )
    for method in ("encode", "decode"):
        if not callable(getattr(codec, method, None)):
            raise ConfigError(
                f"{where}: the codec {codec!r} has no method {method}",
                hint="it needs encode(value) -> bytes and decode(data) -> value; or use 'json', 'msgpack' or 'raw'",
            )
    return _wants_message(codec.decode, where, name)


def giving_bytes(codec: Codec[Any]) -> Callable[[Any], bytes]:
    """The `encode` of a user's codec, with a check: it raises TypeError if the result is not bytes."""

    def encode(value: Any) -> bytes:
        data = codec.encode(value)
        if type(data) is not bytes:
            raise TypeError(f"{type(codec).__qualname__}.encode returned {type(data).__name__}, not bytes")
        return data

    return encode


def _wants_message(decode: Callable[..., Any], where: str, name: str) -> bool:
    """Whether `decode` requires a second argument, or has one called `message`. Other optional ones are ignored."""
    try:
        signature = inspect.signature(decode)
    except ValueError:
        return False  # some builtins have no signature
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
