"""A worker inside of another asyncio program, such as a web service: `running`.

The worker has a thread of its own, as the main thread of `pipeline worker` is. It shares the interpreter with the
program: a handler that computes delays the program's coroutines, and the other way round.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from pipeline.api.app import DeclaredApp
from pipeline.config import Settings
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
        """Whether it runs. False after an error, and when it was stopped."""
        return not self._ended

    @property
    def error(self) -> BaseException | None:
        """Why it has ended, usually a `PipelineError`; None while it runs, and after a clean stop."""
        return self._error


class _Running(RunningWorker):
    """A running worker, with what this module sets."""

    def end(self, error: BaseException | None) -> None:
        """Its thread has ended."""
        self._error, self._ended = error, True


@asynccontextmanager
async def running(app: DeclaredApp, settings: Settings) -> AsyncIterator[RunningWorker]:
    """Run a worker for the time of the block: `App.running`."""
    app = app.only(settings.worker.groups)
    settings = replace(settings, worker=with_worker_id(settings.worker))
    loop, stop, started = asyncio.get_running_loop(), threading.Event(), asyncio.Event()
    worker = _Running()

    def run() -> None:
        error: BaseException | None = None
        try:
            with observed(app, settings, "MODULE:APP", None) as observers:
                made = build_worker(app, settings, stop=stop, observers=observers)
                run_worker(made, stop, settings.worker, lambda *_: tell(), observers)
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
        # Not cancelled: a worker that is left alone would hold its tasks until Kafka misses it.
        await asyncio.shield(asyncio.to_thread(thread.join))
    if worker.error is not None:
        raise worker.error
