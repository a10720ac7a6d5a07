"""The probes: `Liveness` and `readiness`.

Liveness says whether a restart of the process would help. So it fails only if the processing loop makes no progress for
longer than a handler may take. It says nothing about Kafka, because a restart does not repair a broker. Readiness says
whether every task that is assigned to this worker is live here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus

from pipeline.http.application import Answer, json_answer
from pipeline.runtime.metrics.figures import WorkerFigures

__all__ = ["Liveness", "readiness"]

_SHOWN_TASKS = 20


class Liveness:
    """Compares the mark of the processing loop with the mark of earlier requests.

    Args:
        limit_s: How long the mark may stay the same: `worker.handler_warning_s`.
        monotonic_s: The clock.
    """

    def __init__(self, limit_s: float, monotonic_s: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._now_s = monotonic_s
        self._lock = threading.Lock()
        self._mark: object = None
        self._since_s = 0.0

    def look(self, mark: object) -> Answer:
        """The answer to a request. `mark`: of the loop; None while it starts or stops, which has its own time-outs."""
        now_s = self._now_s()
        with self._lock:
            if mark is None or mark != self._mark:
                self._mark, self._since_s = mark, now_s
            stuck_s = now_s - self._since_s
        if mark is None or stuck_s <= self._limit_s:
            return json_answer({"live": True})
        return json_answer(
            {
                "live": False,
                "error": f"the processing loop has made no progress for at least {stuck_s:.0f} s",
                "hint": "find the handler in the log (handler_has_not_returned): runbooks/handler-hangs.md",
            },
            HTTPStatus.SERVICE_UNAVAILABLE,
        )


def readiness(figures: WorkerFigures | None, *, stopping: bool) -> Answer:
    """The answer to a request. `figures`: None until the worker has started."""
    if stopping:
        return _not_ready("the worker is stopping")
    if figures is None or figures.assigned is None:
        return _not_ready("the worker is starting")
    missing = figures.not_live
    if not missing:
        return json_answer({"ready": True, "tasks": len(figures.assigned)})
    named = {str(task): figures.phase(task) for task in missing[:_SHOWN_TASKS]}
    return _not_ready(
        f"{len(missing)} of {len(figures.assigned)} assigned tasks are not live here", tasks=named
    )


def _not_ready(reason: str, **details: object) -> Answer:
    return json_answer({"ready": False, "error": reason, **details}, HTTPStatus.SERVICE_UNAVAILABLE)
