"""Writes the record of a call to the crash log during each step of its handler: `Noted`.

Usually the crash log says only that calls were in flight. After a native crash, it names the record whose handler the
processing thread is running. Between the steps it names none: a crash in a callback of the loop is not caused by a
record.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from pipeline.ports import Record
from pipeline.runtime.crashes import InputCrashes

__all__ = ["Noted"]


class Noted(Coroutine[Any, Any, None]):
    """Awaits a handler's coroutine, and writes its record to the crash log for each step."""

    def __init__(
        self, handler: Coroutine[Any, Any, None], crashes: InputCrashes, name: str, record: Record
    ) -> None:
        self._handler = handler
        self._crashes = crashes
        self._name = name
        self._records = [record]

    def __await__(self) -> Noted:  # `await` needs an iterator
        return self

    def __iter__(self) -> Noted:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any, /) -> Any:
        self._crashes.handling(self._name, self._records)
        try:
            return self._handler.send(value)
        finally:
            self._crashes.handling_calls()

    def throw(self, *error: Any) -> Any:
        self._crashes.handling(self._name, self._records)
        try:
            return self._handler.throw(*error)
        finally:
            self._crashes.handling_calls()

    def close(self) -> None:
        self._handler.close()
