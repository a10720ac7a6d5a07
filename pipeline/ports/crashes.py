"""The port to the log that survives a crash of the process: `CrashLog`."""

from __future__ import annotations

from typing import NamedTuple, Protocol

__all__ = ["CrashLog", "Ending"]


class Ending(NamedTuple):
    """How the previous process on this disk ended. `process`: its name.

    `left`: whether it closed its log. `place`, `first`, `last`: the records that it was handling; `place` is empty if
    there were none. `thread`: its processing thread. `trace`: the output of the fault handler; empty if there was none.
    """

    process: str
    left: bool
    place: bytes
    first: int
    last: int
    thread: int
    trace: str


class CrashLog(Protocol):
    """A small log next to the local states of an app. It survives the end of the process, not the loss of the disk.

    Call `previous`, `load` and `save` before `begin`. All calls come from the processing thread of the worker that
    has claimed the states. Raises ConfigError if the log cannot be written.
    """

    def previous(self, app: str) -> Ending | None:
        """How the previous process ended; None if there was none."""
        ...

    def load(self) -> bytes:
        """The bytes of the last `save`; empty if there was none."""
        ...

    def save(self, data: bytes) -> None:
        """Replace the saved bytes atomically; they survive a power loss."""
        ...

    def begin(self, process: str) -> None:
        """Discard the record of the previous process, and start recording this one."""
        ...

    def handling(self, place: bytes, first: int, last: int) -> None:
        """Record that the handling of `first` to `last` begins. Survives the process, not a power loss."""
        ...

    def handled(self) -> None:
        """Record that the handling ended."""
        ...

    def leave(self) -> None:
        """Record an orderly exit of this process. Does nothing before `begin`."""
        ...
