"""`AppLoop`: what an application runs outside of its agents, on an event loop in a thread of the worker's process.

Timers, crontabs, tasks and pages. They start when every task that is assigned to this worker is live for the first
time, as in Faust after the recovery of the tables; pages answer earlier.

    worker started --> signal on_worker_init --> thread: pages --> tasks live --> timers, crontabs, tasks
    worker stops   --> timers and tasks end  --> signal on_before_shutdown --> pages end --> sends are delivered

A timer that raises is logged, and called again when it is due. A task that raises ends the worker, as in Faust.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from traceback import format_exception
from typing import Any

import structlog

from pipeline.config import Settings
from pipeline.core.membership import TaskRole
from pipeline.errors import ConfigError, FatalTaskError, PipelineError
from pipeline.faust.outside import OutsideSender
from pipeline.faust.pages import FaustPages, has_pages
from pipeline.faust.replies import Replies
from pipeline.faust.routing import EngineRouter, Leader
from pipeline.faust.translation import FaustApp
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.source import KafkaSources
from pipeline.ports import Cluster, Logger, Sources
from pipeline.producing.kafka_producers import Producer
from pipeline.producing.producer import EventProducer
from pipeline.runtime.metrics.figures import WorkerFigures
from pipeline.runtime.worker import Worker

__all__ = ["AppLoop", "Outside"]

_LOOK_S = 0.1  # between two looks at the tasks, until they are live
_END_S = 5.0  # for timers and tasks; then they are cancelled
_JOIN_S = 10.0  # for the thread
_FLUSH_S = 10.0
_PERIODIC = (
    "App.timer.",
    "App.crontab.",
)  # where Faust makes the functions that call a timer again and again


class Outside:
    """What an application sends and asks outside of its agents, in a worker or a command.

    Args:
        declared: The application.
        open_producer: Opens the producer of the sends.
        open_sources: Opens what reads the replies.
        open_cluster: Opens what describes the reply topic.
        log: The log.
    """

    def __init__(
        self,
        declared: FaustApp,
        open_producer: Callable[[], EventProducer],
        open_sources: Callable[[], Sources],
        open_cluster: Callable[[], Cluster],
        log: Logger,
    ) -> None:
        self._declared = declared
        self._open_producer = open_producer
        self._open_sources = open_sources
        self._open_cluster = open_cluster
        self._log = log
        self._sender: OutsideSender | None = None
        self._replies: Replies | None = None

    def start(self) -> None:
        """From now on, the application may send and ask outside of its agents."""
        declared = self._declared
        self._sender = OutsideSender(declared.topics, self._open_producer(), self._log)
        self._replies = Replies(declared, self._open_sources, self._open_cluster, self._log)
        declared.outputs.outside = self._sender
        declared.faust_app._reply_consumer = self._replies  # noqa: SLF001 - Faust's own `ask` calls it

    def stop(self) -> None:
        """Wait for the sends, and end."""
        self._declared.outputs.outside = None
        if self._replies is not None:
            self._replies.close()
        if self._sender is not None:
            self._sender.close(_FLUSH_S)


def outside_on_kafka(declared: FaustApp, settings: Settings, log: Logger) -> Outside:
    """`Outside` on a real Kafka."""
    kafka = settings.kafka
    return Outside(
        declared,
        lambda: Producer(settings),
        lambda: KafkaSources(kafka),
        lambda: KafkaCluster(kafka),
        log,
    )


class AppLoop:
    """The `Companion` of a Faust application.

    Args:
        declared: The application.
        outside: Its sends outside of agents.
        log: The log.
    """

    def __init__(self, declared: FaustApp, outside: Outside, log: Logger) -> None:
        app = declared.faust_app
        _refuse_services(app)
        self._declared = declared
        self._app = app
        self._outside = outside
        self._log = log
        self.pages = FaustPages(app) if has_pages(app) else None
        group = declared.main.name
        app._leader_assignor = Leader(declared.committed, group)  # noqa: SLF001 - what `is_leader` asks
        app.router = EngineRouter(app, declared, declared.committed, group)
        self._thread = threading.Thread(target=self._run, name="pipeline-faust", daemon=True)
        self._begun = threading.Event()
        self._failure: PipelineError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._live = asyncio.Event()
        self._stopping = asyncio.Event()
        self._seen_live = False
        self._next_look_s = 0.0

    def start(self, worker: Worker) -> None:
        """Start the loop. Raises ConfigError if a receiver of `on_worker_init` or the start of the pages fails."""
        self._declared.committed.queries = worker.row_queries
        self._outside.start()
        try:
            self._app.on_worker_init.send()
        except Exception as error:
            raise ConfigError(f"a receiver of the signal on_worker_init has raised {error!r}") from error
        self._thread.start()
        self._begun.wait()
        self._raise_failure()

    def turn(self, worker: Worker) -> None:
        """Start timers and tasks once the tasks of the worker are live. Raises what ended the loop."""
        self._raise_failure()
        if self._seen_live:
            return
        now_s = worker.environment.clock.monotonic_s()
        if now_s >= self._next_look_s:
            self._next_look_s = now_s + _LOOK_S
            if _settled(worker.figures()):
                self._seen_live = True
                self._call(self._live.set)

    def stop(self) -> None:
        """End the loop, and wait for the sends."""
        self._call(self._stopping.set)
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)
        if self._thread.is_alive():
            self._log.warning(
                "faust_loop_blocked",
                app=self._declared.name,
                hint="a timer, a task or a page does not return. Await what takes time, such as asyncio.sleep",
            )
        self._outside.stop()
        self._declared.committed.queries = None

    def _call(self, function: Callable[[], None]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(function)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, what: str, error: BaseException) -> None:
        failure = FatalTaskError(
            f"{what} of Faust application {self._declared.name} has raised {type(error).__name__}: {error}",
            hint="the worker stops, as in Faust. Fix it, or catch the error there",
        )
        failure.__cause__ = error
        self._failure = self._failure or failure

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._main())
        except BaseException as error:  # noqa: BLE001 - the processing thread raises it
            if self._failure is None:
                self._fail("the event loop", error)
        finally:
            self._begun.set()

    async def _main(self) -> None:
        app = self._app
        app.loop = self._loop = asyncio.get_running_loop()
        app._stopped.clear()  # noqa: SLF001 - what timers look at
        if self.pages is not None:
            await self.pages.start()
        self._begun.set()
        running = [asyncio.create_task(self._stopping.wait()), asyncio.create_task(self._live.wait())]
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        tasks: list[asyncio.Task[None]] = []
        if not self._stopping.is_set():
            if app.on_startup_finished is not None:
                await app.on_startup_finished()
            tasks = [asyncio.create_task(self._repeat(function)) for function in app._app_tasks]  # noqa: SLF001
            await self._stopping.wait()
        app._stopped.set()  # noqa: SLF001 - ends the sleep of timers
        await _end([*tasks, *running])
        await app.on_before_shutdown.send()
        if self.pages is not None:
            await self.pages.stop()
        await app._maybe_close_http_client()  # noqa: SLF001 - as Faust does at its end

    async def _repeat(self, function: Callable[[], Any]) -> None:
        """Run a task, or a timer until the worker stops."""
        name = getattr(function, "__qualname__", str(function))
        while not self._stopping.is_set():
            try:
                await function()
            except Exception as error:  # noqa: BLE001 - of the user's code
                if not is_periodic(function):
                    self._fail(f"task {name}", error)
                    return
                self._log.error(
                    "faust_timer_failed",
                    timer=name,
                    error=type(error).__name__,
                    message=str(error),
                    traceback="".join(format_exception(error)),
                )
                await asyncio.sleep(0)  # a timer without an interval must not stop the loop
            else:
                return


def is_periodic(function: Any) -> bool:
    """Whether a function that Faust keeps for the start of an app is that of a timer or a crontab."""
    inner = getattr(function, "__wrapped__", function)
    code = getattr(inner, "__code__", None)
    return code is not None and code.co_qualname.startswith(_PERIODIC)


def app_loop(declared: FaustApp, settings: Settings) -> AppLoop:
    """The companion of a Faust application on a real Kafka. Raises ConfigError."""
    log: Logger = structlog.get_logger("pipeline")
    return AppLoop(declared, outside_on_kafka(declared, settings, log), log)


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    """Wait for tasks for a while, then cancel them."""
    if not tasks:
        return
    _, rest = await asyncio.wait(tasks, timeout=_END_S)
    for task in rest:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _settled(figures: WorkerFigures) -> bool:
    """Whether each assigned task is live, or has failed."""
    return figures.assigned is not None and all(
        (found := figures.tasks.get(task)) is not None and found.role is TaskRole.FAILED
        for task in figures.not_live
    )


def _refuse_services(app: Any) -> None:
    if not app.agents:
        raise ConfigError(
            f"Faust application {app.conf.id} has no agent, so a worker of it would have no tasks",
            hint="run its timers and tasks in a program of their own, with pipeline.Producer; or add an agent",
        )
    services = app._extra_services  # noqa: SLF001 - Faust has no public list of them
    if services:
        named = ", ".join(getattr(each, "__name__", str(each)) for each in services)
        raise ConfigError(
            f"@app.service {named} is not carried over: a service runs in the life cycle of Faust's worker",
            hint="use @app.task, and the signal app.on_before_shutdown",
        )
    if app._web_server_service is not None:  # noqa: SLF001 - as above
        raise ConfigError(
            "@app.web_server is not carried over: pages are served on the HTTP port of the worker",
            hint="use @app.page",
        )
