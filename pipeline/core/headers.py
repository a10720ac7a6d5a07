"""The headers of a consumed record: `headers_of`, the only place in the package that asks the Kafka client for them.

Kafka accepts any bytes as a header name, and the client cannot represent a name that is not valid UTF-8. It returns a
list in which that name is a null pointer, with an exception set. Three rules follow:

1. The list is never returned to a caller: reading the null pointer ends the process. The client keeps the list and
   returns it, without an error, to the next caller. So the list is replaced, in the message, by `Unreadable`.
2. The call is made from C code (`methodcaller`), which notices a result with an exception set. The interpreter's own
   call instruction does not notice it once it is specialized: the exception then appears somewhere else, later.
3. `gc.get_referents` leaves null pointers out, so it shows which of the headers are complete.

A record with such headers is processed like any other as long as no code reads its headers. Each read raises
`UnreadableHeadersError`, which is handled like any other error of a record.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from operator import methodcaller
from typing import Any, NoReturn

__all__ = ["Headers", "UnreadableHeadersError", "headers_of", "readable_headers", "shielded"]

Headers = Sequence[tuple[str, bytes | None]]

_ask = methodcaller("headers")


class UnreadableHeadersError(ValueError):
    """A header name of a record is not valid UTF-8."""


class Unreadable:
    """What a message has instead of headers that cannot be read: raises UnreadableHeadersError when it is used.

    `readable`: the headers whose names are valid, in order.
    """

    def __init__(self, readable: Headers, count: int, names: Sequence[bytes]) -> None:
        self.readable = readable
        self.reason = (
            f"{count - len(readable)} of {count} headers cannot be read: the name is not valid UTF-8"
        )
        if names:
            self.reason += f" ({', '.join(map(repr, names))})"

    def fail(self) -> NoReturn:
        """Raise what any use of the headers raises."""
        raise UnreadableHeadersError(self.reason) from None

    def __iter__(self) -> Iterator[Any]:
        self.fail()

    def __bool__(self) -> bool:
        return self.fail()

    def __len__(self) -> int:
        return self.fail()

    def __getitem__(self, index: Any) -> NoReturn:
        self.fail()

    def __contains__(self, item: object) -> bool:
        self.fail()


def headers_of(record: Any) -> Headers:
    """A record's headers, in order; empty without any. Raises UnreadableHeadersError."""
    try:
        found: Headers | None = _ask(record)
    except SystemError as error:
        _replace(record, error).fail()
    return found or ()


def readable_headers(record: Any) -> tuple[Headers, str]:
    """The headers that can be read, and why others cannot; the reason is empty when all can."""
    headers = _ask(shielded(record))
    if isinstance(headers, Unreadable):
        return headers.readable, headers.reason
    return headers or (), ""


def shielded(record: Any) -> Any:
    """The record, once its own `headers` is safe to call: for code that is not ours."""
    try:
        _ask(record)
    except SystemError as error:
        _replace(record, error)
    return record


def _replace(record: Any, error: SystemError) -> Unreadable:
    """Put `Unreadable` in the place of the list that the client keeps."""
    kept = _ask(record)
    whole = [header for header in kept if len(gc.get_referents(header)) == len(header)]
    unreadable = Unreadable(whole, len(kept), _names_in(error))
    record.set_headers(unreadable)
    return unreadable


def _names_in(error: BaseException) -> list[bytes]:
    """The name that the client failed on last, which is all that it reports."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UnicodeDecodeError):
        cause = cause.__cause__
    return [bytes(cause.object)] if isinstance(cause, UnicodeDecodeError) else []
