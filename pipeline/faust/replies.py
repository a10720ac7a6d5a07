"""`Replies`: answers to `agent.ask`, `map` and `join` outside of agents, from the reply topic of the app.

An agent sends its answer in the commit of the question. All processes of an app share one reply topic, and each takes
the answers to its own questions from it, by their correlation id. An answer is lost if its process ends.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from typing import Any

from faust.agents.models import ReqRepResponse
from faust.models import maybe_model

from pipeline.core.names import TopicPartition
from pipeline.errors import ConfigError, PipelineError
from pipeline.faust.current import CURRENT
from pipeline.faust.serializers import decoder_of
from pipeline.ports import Cluster, Logger, Source, Sources, error_fields

__all__ = ["Replies", "answerable"]

_POLL_S = 0.1
_POLL_RECORDS = 500
_TIMEOUT_S = 60.0
_KEPT = 1_000  # answers that came before the question was noted
_ATTRIBUTE = "_pipeline_asks"


def answerable(app: Any) -> None:
    """Let the agents of an app be asked: their `ask_nowait` waits until replies are read."""
    for agent in app.agents.values():
        if _ATTRIBUTE not in vars(agent):
            vars(agent)[_ATTRIBUTE] = True
            agent.ask_nowait = _asking(app, agent, agent.ask_nowait)

    async def started() -> None:
        """Nothing: the client of Faust is not started."""

    app.maybe_start_client = started


def _asking(app: Any, agent: Any, ask_nowait: Callable[..., Any]) -> Callable[..., Any]:
    async def ask(value: Any = None, **options: Any) -> Any:
        if CURRENT.get() is not None:
            raise ConfigError(
                f"agent {agent.name} is asked inside of an agent: the question is sent by the commit that the answer "
                "would have to precede",
                hint="use cast, and let the other agent send its result to a topic",
            )
        replies = app._reply_consumer  # noqa: SLF001 - of Faust, or ours
        if not isinstance(replies, Replies):
            raise ConfigError(
                f"agent {agent.name} is asked, and no worker of this process reads the replies",
                hint="ask in a timer, a task, a page or a command of the app",
            )
        options["reply_to"] = options.get("reply_to") or app.conf.reply_to
        await asyncio.to_thread(replies.ready, options["reply_to"])
        return await ask_nowait(value, **options)

    return ask


class Replies:
    """Takes the place of Faust's reply consumer. Any event loop may wait for answers.

    Args:
        declared: The application.
        open_sources: Opens the input.
        open_cluster: Opens what describes the reply topic.
        log: The log.
    """

    def __init__(
        self,
        declared: Any,
        open_sources: Callable[[], Sources],
        open_cluster: Callable[[], Cluster],
        log: Logger,
    ) -> None:
        self._declared = declared
        self._open_cluster = open_cluster
        self._open_sources = open_sources
        self._log = log
        self._lock = threading.Lock()
        self._source: Source | None = None
        self._topic = ""
        self._waiting: dict[str, Any] = {}
        self._early: OrderedDict[str, Any] = OrderedDict()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name="pipeline-faust-replies", daemon=True)

    def ready(self, topic: str) -> None:
        """Read a reply topic from its present end on. Raises ConfigError for a second topic, UnreachableError."""
        name = self._declared.faust_app.conf.reply_to
        if topic != name:
            raise ConfigError(
                f"an answer is wanted in topic {topic}; the reply topic of the app is {name}",
                hint="leave reply_to= out, or set it in faust.App(reply_to=...)",
            )
        if name not in self._declared.topics:
            raise ConfigError(
                "no agent of the app yields, so none answers",
                hint="let the agent yield its answer",
            )
        with self._lock:
            if self._source is not None:
                return
            with closing(self._open_cluster()) as cluster:
                found = cluster.describe([name]).get(name)
            if found is None:
                raise ConfigError(
                    f"the reply topic {name} does not exist",
                    hint="start a worker of the app: it creates the topic",
                )
            source = self._open_sources().open(f"{self._declared.name}.replies")
            partitions = [TopicPartition(name, number) for number in range(found.partitions)]
            source.assign({partition: source.bounds(partition)[1] for partition in partitions})
            self._source, self._topic = source, name
            self._thread.start()

    async def add(self, correlation_id: str, promise: Any) -> None:
        """Note who waits for an answer. After the time-out, it gets TimeoutError."""
        with self._lock:
            early = self._early.pop(correlation_id, None)
            if early is None:
                self._waiting[correlation_id] = promise
        if early is not None:
            promise.fulfill(correlation_id, early)
            return
        promise.get_loop().call_later(_TIMEOUT_S, self._expire, correlation_id, promise)

    def close(self) -> None:
        """Stop reading. Who waits gets an error."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for promise in waiting.values():
            _tell(promise, _fail, promise, ConfigError("the worker has stopped before the agent answered"))

    def _expire(self, correlation_id: str, promise: Any) -> None:
        with self._lock:
            waited = self._waiting.pop(correlation_id, None)
        if waited is not None:
            _fail(promise, TimeoutError(f"no agent has answered within {_TIMEOUT_S:.0f} s"))

    def _read(self) -> None:
        source = self._source
        if source is None:
            return
        app = self._declared.faust_app
        decode = decoder_of(app, app.topic(self._topic, value_type=ReqRepResponse)).value
        try:
            while not self._closed.is_set():
                polled = source.poll(_POLL_RECORDS, _POLL_S)
                for failure in polled.failures:
                    raise failure.error
                for record in polled.records:
                    reply = decode(record.value())
                    self._fulfill(reply.correlation_id, maybe_model(reply.value))
        except PipelineError as error:
            self._log.error("faust_replies_failed", topic=self._topic, **error_fields(error))
        finally:
            source.close()

    def _fulfill(self, correlation_id: str, value: Any) -> None:
        with self._lock:
            promise = self._waiting.pop(correlation_id, None)
            if promise is None:
                self._early[correlation_id] = value
                while len(self._early) > _KEPT:
                    self._early.popitem(last=False)
                return
        _tell(promise, _set, promise, correlation_id, value)


def _tell(promise: Any, function: Callable[..., None], *args: Any) -> None:
    loop = promise.get_loop()
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, *args)


def _set(promise: Any, correlation_id: str, value: Any) -> None:
    if not promise.done():
        promise.fulfill(correlation_id, value)


def _fail(promise: Any, error: BaseException) -> None:
    if not promise.done():
        promise.set_exception(error)
