"""A worker inside another asyncio program, such as a web service: `running`.

The worker runs on a thread of its own, where `pipeline worker` uses the main thread. It shares the interpreter with the
program: a handler that uses the CPU delays the program's coroutines, and the other way round.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from pipeline.api.app import DeclaredApp
from pipeline.config import Settings
from pipeline.processes.companion import Companion
from pipeline.processes.observers import observed
from pipeline.processes.wiring import build_worker, run_worker, with_worker_id

__all__ = ["RunningWorker", "running"]


class RunningWorker:
    """A worker in this process. Made by `App.running`.

    Example:
        ```python
        async with app.running() as worker:
            ...
            if worker.error is not None:
                print(worker.error)
        ```
    """

    _error: BaseException | None = None
    _ended = False

    @property
    def alive(self) -> bool:
        """Whether the worker runs. False after it has ended, with an error or by a stop."""
        return not self._ended

    @property
    def error(self) -> BaseException | None:
        """The error that ended the worker, usually a `PipelineError`; None while it runs, and after an orderly stop."""
        return self._error


class _Running(RunningWorker):
    """The same, with the method by which this module records the end."""

    def end(self, error: BaseException | None) -> None:
        """Record that the worker has ended."""
        self._error, self._ended = error, True


@asynccontextmanager
async def running(
    app: DeclaredApp, settings: Settings, companion: Companion | None = None
) -> AsyncIterator[RunningWorker]:
    """Run a worker for the duration of the block: see `App.running`. `companion`: what runs outside of its tasks."""
    app = app.only(settings.worker.groups)
    settings = replace(settings, worker=with_worker_id(settings.worker))
    loop, stop, started = asyncio.get_running_loop(), threading.Event(), asyncio.Event()
    worker = _Running()

    def run() -> None:
        error: BaseException | None = None
        try:
            pages = companion.pages if companion is not None else None
            with observed(app, settings, "MODULE:APP", None, pages) as observers:
                made = build_worker(app, settings, stop=stop, observers=observers)
                run_worker(made, stop, settings.worker, lambda *_: tell(), observers, companion)
        except BaseException as failure:  # noqa: BLE001 - it is raised in the program
            error = failure
        worker.end(error)
        tell()

    def tell() -> None:
        if not (started.is_set() or loop.is_closed()):
            loop.call_soon_threadsafe(started.set)

    thread = threading.Thread(target=run, name="pipeline-worker", daemon=True)
    thread.start()
    try:
        await started.wait()
        if worker.error is None:
            yield worker
    finally:
        stop.set()
        # Shielded from cancellation: otherwise the thread could outlive the block, and keep its tasks.
        await asyncio.shield(asyncio.to_thread(thread.join))
    if worker.error is not None:
        raise worker.error
