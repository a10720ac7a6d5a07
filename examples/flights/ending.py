"""How the demonstration ends early: by a signal, or by what this machine lacks. Either way nothing of it stays."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Ended", "ended_by_signals"]

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Ended(BaseException):
    """A signal has come. `exit_code`: what a shell says of a process that it ended."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within it the first signal that asks for the end raises Ended, so that what is open is closed.

    Those after it are not heard: they would cut the closing short, and Ctrl-C held down sends many.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Ended(number)

    before = {each: signal.signal(each, end) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
