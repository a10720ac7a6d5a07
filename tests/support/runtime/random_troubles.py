"""The faults of the random histories: errors of Kafka, and other processes that act during a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from pipeline.core.names import TaskId
from pipeline.errors import AbortableError, FencedError, PipelineError, UnknownOutcomeError, UnreachableError
from pipeline.ports import Step
from tests.support.runtime.steps import SINK_STEPS

__all__ = ["AT", "STARTS", "Fault", "Meddler", "faults"]

STEPS = [step for step in Step if step not in SINK_STEPS]
# Half of the actions of other processes happen during a commit.
AT = st.tuples(
    st.sampled_from(STEPS[: STEPS.index(Step.AFTER_FENCE)]) | st.sampled_from(STEPS), st.integers(1, 4)
)
STARTS = st.sampled_from(["earliest", "latest", 0.3, 0.7])
Fault = tuple[str, PipelineError, bool]


def faults() -> st.SearchStrategy[Fault]:
    """(call, error, whether the call took effect before it failed)."""
    unknown = UnknownOutcomeError("no answer")
    abort = AbortableError("must be aborted")
    away = UnreachableError("away")
    return st.sampled_from(
        [
            ("commit", unknown, True),
            ("commit", unknown, False),
            ("commit", abort, False),
            ("flush", abort, False),
            ("flush", unknown, True),
            ("send", abort, False),
            ("append", abort, False),
            ("commit", FencedError("a time-out, or a newer owner"), False),
            ("abort", unknown, True),
            ("abort", unknown, False),
            ("init", away, False),
            ("bounds", away, False),
        ]
    )


class Meddler:
    """`ports.Steps` at which another process can act once, when a step is reached for the nth time."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.armed: dict[Step, int] = inner.armed
        self.busy = False
        self._plan: tuple[Step, int, Callable[[TaskId], None]] | None = None

    def arm(self, step: Step, nth: int, act: Callable[[TaskId], None]) -> None:
        self._plan = step, nth, act

    def clear(self) -> None:
        self._plan = None
        self.armed.clear()

    def reached(self, step: Step, task: TaskId) -> None:
        if self.busy:  # in the other process
            return
        if self._plan is not None and self._plan[0] is step:
            step, nth, act = self._plan
            self._plan = (step, nth - 1, act) if nth > 1 else None
            if nth == 1:
                act(task)
        self.inner.reached(step, task)
