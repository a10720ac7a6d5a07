"""What outlives a process that crashes, in memory: `MemoryCrashLog`."""

from __future__ import annotations

from pipeline.errors import InvariantError
from pipeline.ports import Ending

__all__ = ["MemoryCrashLog"]

_THREAD = 1
_FOREIGN = 2


class MemoryCrashLog:
    """`ports.CrashLog`. It outlives the worker, as files outlive a process; `crash` does what a fatal signal does."""

    def __init__(self) -> None:
        self._process = ""
        self._begun = False
        self._place = b""
        self._span = (0, 0)
        self._left = False
        self._trace = ""
        self._saved: dict[str, bytes] = {}
        self._app = ""

    def crash(self, reason: str = "Segmentation fault", *, here: bool = True) -> None:
        """The fault handler's trace of a fatal signal. `here`: the processing thread got it."""
        thread = _THREAD if here else _FOREIGN
        self._trace = (
            f"Fatal Python error: {reason}\n\nCurrent thread 0x{thread:016x} (most recent call first):\n"
            '  File "library.py", line 1 in crash\n'
        )

    def previous(self, app: str) -> Ending | None:
        self._app, self._begun = app, False
        if not self._process:
            return None
        return Ending(self._process, self._left, self._place, *self._span, _THREAD, self._trace)

    def load(self) -> bytes:
        return self._saved.get(self._app, b"")

    def save(self, data: bytes) -> None:
        self._saved[self._app] = data

    def begin(self, process: str) -> None:
        self._process, self._begun = process, True
        self._place, self._span, self._left, self._trace = b"", (0, 0), False, ""

    def handling(self, place: bytes, first: int, last: int) -> None:
        if not self._begun:
            raise InvariantError("records are handled before the crash log has begun")
        self._place, self._span = place, (first, last)

    def handled(self) -> None:
        if not self._trace:  # a process that is gone does nothing more
            self._place = b""

    def leave(self) -> None:
        if self._begun:
            self._left, self._begun = True, False
