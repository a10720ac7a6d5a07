"""`OtelTracer`: spans of commits, restores and checkpoints, by the semantic conventions for messaging.

A commit is linked to the traces of its records, because it belongs to many of them. The acquire entry of a restore is
committed inside the restore, so its span is a child. An error of the library never reaches the worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pipeline.config import OtelSettings
from pipeline.core.names import TaskId
from pipeline.ports import Operation, Span

__all__ = ["OtelTracer"]

_PROPAGATOR = TraceContextTextMapPropagator()
_NEW_TRACE = Context()


class OtelTracer:
    """`Tracer` on the library.

    Args:
        tracer: Of the library.
        settings: How many links, and whether outputs refer to their commit.
    """

    def __init__(self, tracer: trace.Tracer, settings: OtelSettings) -> None:
        self._tracer = tracer
        self.links = settings.links
        self.propagates = settings.propagate

    @contextmanager
    def span(
        self,
        operation: Operation,
        task: TaskId,
        records: int | None = None,
        links: Sequence[str] = (),
    ) -> Iterator[Span]:
        """A span while the context is entered."""
        with ExitStack() as current:
            span: trace.Span = trace.INVALID_SPAN
            with suppress(Exception):
                span = self._begin(operation, task, records, links)
                current.enter_context(
                    trace.use_span(span, record_exception=False, set_status_on_exception=False)
                )
            try:
                yield _OtelSpan(span)
            except BaseException as error:
                with suppress(Exception):
                    span.set_status(Status(StatusCode.ERROR, str(error)))
                    span.set_attribute("error.type", type(error).__name__)
                raise
            finally:
                with suppress(Exception):
                    span.end()

    def _begin(
        self, operation: Operation, task: TaskId, records: int | None, links: Sequence[str]
    ) -> trace.Span:
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.name": operation,
            "messaging.consumer.group.name": task.group_id.consumer_group,
            "pipeline.app": task.app,
            "pipeline.group": task.group,
            "pipeline.task": task.number,
        }
        if records is not None:
            attributes |= {
                "messaging.operation.type": "process",
                "messaging.batch.message_count": records,
                "pipeline.records": records,
            }
        return self._tracer.start_span(
            f"{operation} {task.group}",
            kind=SpanKind.INTERNAL if records is None else SpanKind.CONSUMER,
            attributes=attributes,
            links=_links_of(links),
        )


class _OtelSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        """Empty if the span could not be made."""
        carrier: dict[str, str] = {}
        with suppress(Exception):
            _PROPAGATOR.inject(carrier, trace.set_span_in_context(self._span))
        return carrier.get("traceparent", "")

    def note(self, **attributes: str | int) -> None:
        """Add attributes, whose names get the prefix of the package."""
        with suppress(Exception):
            self._span.set_attributes({f"pipeline.{name}": value for name, value in attributes.items()})


def _links_of(traceparents: Sequence[str]) -> list[Link]:
    """A link for each header that is valid."""
    parents = [_PROPAGATOR.extract({"traceparent": each}, _NEW_TRACE) for each in traceparents]
    contexts = [trace.get_current_span(parent).get_span_context() for parent in parents]
    return [Link(context) for context in contexts if context.is_valid]
