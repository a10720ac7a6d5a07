"""The open sessions of one group's database: `Sessions`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.errors import FatalTaskError, PipelineError, SinkUnreachableError, UnknownOutcomeError
from pipeline.ports.databases import SinkSession

__all__ = ["Sessions"]


class Sessions:
    """Lends each session to one step at a time. The number of sessions is the maximum of concurrent steps."""

    def __init__(self, connect: Callable[[], SinkSession]) -> None:
        self._connect = connect
        self._idle: list[SinkSession] = []
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def one(self) -> Iterator[SinkSession]:
        """A session without a transaction. A session that failed is closed."""
        with self._lock:
            session = self._idle.pop() if self._idle else None
        if session is None:
            session = self._connect()
        try:
            yield session
        except (SinkUnreachableError, UnknownOutcomeError):
            session.close()
            self._close_idle()  # they are as old, and would probably fail in the next steps, too
            raise
        except PipelineError as error:
            session.rollback()
            if isinstance(error, FatalTaskError):
                session.close()  # a write function may have changed its settings
            else:
                self._put_back(session)
            raise
        except BaseException:
            session.close()
            raise
        self._put_back(session)

    def close(self) -> None:
        self._closed = True
        self._close_idle()

    def _put_back(self, session: SinkSession) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(session)
                return
        session.close()

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()
