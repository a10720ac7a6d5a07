"""What runs in the process of a worker outside of its tasks: `Companion`, such as the timers of a Faust application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pipeline.runtime.worker import Worker

if TYPE_CHECKING:
    from pipeline.http.application import Pages

__all__ = ["Companion"]


class Companion(Protocol):
    """Lives as long as the loop of a worker. Processing thread only, except for its pages."""

    @property
    def pages(self) -> Pages | None:
        """What it serves on the HTTP port; None for nothing. Before `start`, it answers that the worker is starting."""
        ...

    def start(self, worker: Worker) -> None:
        """Start, after the worker has. Raises PipelineError."""
        ...

    def turn(self, worker: Worker) -> None:
        """Called after each step of the worker. Raises PipelineError if the companion has ended."""
        ...

    def stop(self) -> None:
        """End, before the worker commits its last work. It may take a part of `stop_timeout_s`. Raises nothing."""
        ...
