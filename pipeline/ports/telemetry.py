"""The ports to an observer of a worker: spans of commits, restores and checkpoints (`Tracer`), and its metrics.

A tracer never raises and never waits: what it cannot send is lost. `NoTracer` is that of a worker without an observer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol

from pipeline.core.names import TaskId

__all__ = ["MetricFamily", "MetricPoint", "NoTracer", "Operation", "Span", "Tracer"]

Operation = Literal["commit", "restore", "checkpoint"]


class Span(Protocol):
    """One operation while it runs.

    `traceparent`: the value of the header by which others refer to the span; empty without an observer.
    """

    @property
    def traceparent(self) -> str: ...

    def note(self, **attributes: str | int) -> None:
        """Add attributes: `seq`, and other facts that are known at the end of the operation."""
        ...


class Tracer(Protocol):
    """Makes spans. Any thread may call it.

    `links`: the number of links that a commit should give at most. `propagates`: whether outputs get the
    `traceparent` of their commit.
    """

    @property
    def links(self) -> int: ...

    @property
    def propagates(self) -> bool: ...

    def span(
        self,
        operation: Operation,
        task: TaskId,
        records: int | None = None,
        links: Sequence[str] = (),
    ) -> AbstractContextManager[Span]:
        """A span from the entry to the exit of the context. An exception marks it as failed, and passes.

        Args:
            operation: Its kind.
            task: The task.
            records: The number of input records.
            links: The `traceparent` headers of some of these records (W3C Trace Context). Malformed ones are ignored.
        """
        ...


class _NoSpan:
    traceparent = ""

    def note(self, **attributes: str | int) -> None:
        """Do nothing."""


_NOTHING = nullcontext(_NoSpan())


class NoTracer:
    """`Tracer` that makes no spans."""

    links = 0
    propagates = False

    def span(
        self,
        operation: Operation,  # noqa: ARG002 - the port names it
        task: TaskId,  # noqa: ARG002 - as above
        records: int | None = None,  # noqa: ARG002 - as above
        links: Sequence[str] = (),  # noqa: ARG002 - as above
    ) -> AbstractContextManager[Span]:
        return _NOTHING


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One value of a metric.

    `value`: of a histogram, the sum of the observed values. `bounds` and `counts`: of a histogram, the upper bounds of
    its buckets, and the number of values in each; the last count is that of the bucket without a bound.
    """

    labels: Mapping[str, str]
    value: float
    bounds: Sequence[float] = ()
    counts: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """A metric with its values at one moment. `name`: as a query writes it."""

    name: str
    help: str
    kind: Literal["counter", "gauge", "histogram"]
    points: Sequence[MetricPoint]
