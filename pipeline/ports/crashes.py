"""What outlives a process that crashes."""

from __future__ import annotations

from typing import NamedTuple, Protocol

__all__ = ["CrashLog", "Ending"]


class Ending(NamedTuple):
    """How the process before this one ended on this disk. `process`: its name.

    `left`: it closed its log. `place`, `first`, `last`: what it was handling; an empty place: nothing. `thread`: its
    processing thread. `trace`: what the fault handler wrote; empty: nothing.
    """

    process: str
    left: bool
    place: bytes
    first: int
    last: int
    thread: int
    trace: str


class CrashLog(Protocol):
    """A small log beside the states of an app. It survives the end of the process, not the loss of the disk.

    `previous`, `load` and `save` come first, then `begin`; all on the processing thread, of the worker that has
    claimed the states. A log that cannot be written raises ConfigError.
    """

    def previous(self, app: str) -> Ending | None:
        """How the process before this one ended; None when there was none."""
        ...

    def load(self) -> bytes:
        """What was saved last; empty when nothing was."""
        ...

    def save(self, data: bytes) -> None:
        """Replace what is saved, as a whole, so that it survives a power loss."""
        ...

    def begin(self, process: str) -> None:
        """Forget how the process before this one ended, and record this one from now on."""
        ...

    def handling(self, place: bytes, first: int, last: int) -> None:
        """Records from `first` to `last` are about to be handled. Survives the process, not a power loss."""
        ...

    def handled(self) -> None:
        """They were handled."""
        ...

    def leave(self) -> None:
        """This process ends in order. Nothing happens when it has not begun."""
        ...
