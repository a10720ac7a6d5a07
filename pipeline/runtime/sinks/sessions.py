"""The open sessions of one group's database, `Sessions`, and whether it answers, `Health`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.errors import FatalTaskError, PipelineError, SinkUnreachableError, UnknownOutcomeError
from pipeline.ports.databases import SinkSession
from pipeline.runtime.environment import Environment
from pipeline.runtime.outage import Outage

__all__ = ["Health", "Sessions"]


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


class Health:
    """Processing thread only."""

    def __init__(self, place: str, environment: Environment) -> None:
        self._place = place
        self._clock = environment.clock
        self._outage = Outage(
            environment.clock,
            environment.log,
            unreachable="database_unreachable",
            reachable="database_reachable",
            to_check="the database runs and can be reached",
        )
        self._problem = ""
        self._reported = ""

    def unanswered(self, error: PipelineError) -> None:
        self._outage.unanswered(self._clock.monotonic_s(), error)
        refused = isinstance(error, SinkUnreachableError) and error.refused
        if not self._problem or refused:  # a more specific problem than the outage before it
            hint = error.hint or "check that it runs and can be reached. Its tasks wait; no data is lost"
            self._problem = f"the database {self._place} is unreachable: {error.message}\n  -> {hint}"

    def answered(self) -> None:
        self._outage.answered()
        self._problem = ""

    def poll_problem(self) -> str | None:
        """The problem, or empty; None if it has not changed since the last call."""
        if self._problem == self._reported:
            return None
        self._reported = self._problem
        return self._problem
