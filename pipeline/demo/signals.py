"""How a demonstration ends early: a signal closes everything that it has started."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Ended", "ended_by_signals", "signals_postponed"]

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Ended(BaseException):
    """A signal has arrived. `exit_code`: what a shell reports for a process that this signal ended."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise `Ended` inside the block at the first SIGHUP, SIGINT or SIGTERM, so that `finally` clauses run.

    Later signals are ignored until the block has ended: they would interrupt the cleanup, and a held Ctrl-C sends
    many. Only for the main thread.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Ended(number)

    with _handled_by(end):
        yield


@contextmanager
def signals_postponed() -> Iterator[None]:
    """Handle signals that arrive inside the block when it has ended. For blocks of some seconds at most.

    Python runs handlers on the main thread, so they cannot interrupt a block on another one. There, this does nothing.

    A handler that raises while `Popen` waits for its child would leave a process that no one can end; one that raises
    during the cleanup would end the cleanup. A signal mask would not do: a child would inherit it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    try:
        with _handled_by(note):
            yield
    finally:
        for number in arrived:
            signal.raise_signal(number)


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {each: signal.signal(each, handler) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, earlier in before.items():
            signal.signal(each, earlier)
