"""The uses of an input topic in a group: a `Binding` for each handler, a `SinkBinding` for each sink."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from pipeline.api.annotations import check_annotations, check_pair_annotations, described
from pipeline.api.declarations import DeclaredTopic
from pipeline.api.event import Batch, Event
from pipeline.api.sinks import Sink
from pipeline.errors import ConfigError

__all__ = [
    "CONCURRENCY",
    "RETRY_DELAY_S",
    "TIMEOUT_S",
    "Binding",
    "OnError",
    "RuntimeBinding",
    "SinkBinding",
    "check_calls",
    "check_function",
    "check_pair_function",
    "check_policy",
    "check_retries",
]

OnError = Literal["stop", "skip", "dead_letter"]
RETRY_DELAY_S = 1.0
CONCURRENCY = 64
TIMEOUT_S = 30.0
BACKOFF_CAP_S = 60.0
MAX_CONFIGURED_DELAY_S = 3600
MAX_CONCURRENCY = 10_000
# A call only creates a coroutine or generator; the body does not run.
_BODY_DOES_NOT_RUN = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)


class Binding:
    """One handler of one input topic, or of the pseudo-topic of a window's ends. `batch`: it takes a Batch.

    `concurrency`: the most calls of an async handler that run at once, each for at most `timeout_s`; 0 for a plain one.
    """

    __slots__ = (
        "batch",
        "concurrency",
        "function",
        "on_error",
        "retries",
        "retry_delay_s",
        "timeout_s",
        "topic",
    )

    def __init__(
        self,
        topic: DeclaredTopic[Any, Any],
        function: Callable[..., Any],
        on_error: OnError,
        batch: bool,
        retries: int = 0,
        retry_delay_s: float = RETRY_DELAY_S,
        concurrency: int = 0,
        timeout_s: float = 0.0,
    ) -> None:
        self.topic = topic
        self.function = function
        self.on_error = on_error
        self.batch = batch
        self.retries = retries
        self.retry_delay_s = retry_delay_s
        self.concurrency = concurrency
        self.timeout_s = timeout_s

    @property
    def is_async(self) -> bool:
        """Whether it is an async handler."""
        return self.concurrency > 0

    def retry_wait_s(self, failures: int) -> float:
        """The wait after `failures` failures of a record. Doubles up to BACKOFF_CAP_S, or a longer `retry_delay_s`."""
        longest = max(BACKOFF_CAP_S, self.retry_delay_s)
        doubled: float = self.retry_delay_s * 2 ** min(failures - 1, 30)
        return min(doubled, longest)


class RuntimeBinding(Binding):
    """A handler of this package. Its function needs the context of the runtime, so nothing wraps it."""

    __slots__ = ()


class SinkBinding(NamedTuple):
    """One sink of one input topic."""

    topic: DeclaredTopic[Any, Any]
    sink: Sink[Any, Any]
    on_error: OnError


def check_policy(group: str, on_error: object) -> None:
    """Raise ConfigError if it is not a policy for records of a handler."""
    if on_error not in {"stop", "skip", "dead_letter"}:
        raise ConfigError(f"group {group}: on_error is {on_error!r}; it must be stop, skip or dead_letter")


def check_retries(group: str, binding: Binding) -> None:
    """Raise ConfigError if the number of retries or the delay of a handler is out of range."""
    retries, delay_s = binding.retries, binding.retry_delay_s
    if type(retries) is not int or retries < 0:
        raise ConfigError(f"group {group}: retries is {retries!r}; it must be a whole number, 0 or more")
    if type(delay_s) not in {int, float} or not 0 <= delay_s <= MAX_CONFIGURED_DELAY_S:
        raise ConfigError(
            f"group {group}: retry_delay_s is {delay_s!r}; it must be a number of seconds, "
            f"0 to {MAX_CONFIGURED_DELAY_S}"
        )


def check_calls(group: str, concurrency: int, timeout_s: float) -> None:
    """Raise ConfigError if an option of an async handler is out of range."""
    if type(concurrency) is not int or not 1 <= concurrency <= MAX_CONCURRENCY:
        raise ConfigError(
            f"group {group}: concurrency is {concurrency!r}; it must be a whole number, 1 to {MAX_CONCURRENCY:,}"
        )
    if type(timeout_s) not in {int, float} or not 0 < timeout_s <= MAX_CONFIGURED_DELAY_S:
        raise ConfigError(
            f"group {group}: timeout_s is {timeout_s!r}; it must be a number of seconds, "
            f"more than 0 and at most {MAX_CONFIGURED_DELAY_S}"
        )


def check_function(group: str, binding: Binding, given: type = Event) -> None:
    """Raise ConfigError if the function of `binding` cannot be a handler of its topic. `given`: its first argument."""
    function = binding.function
    if not callable(function):
        raise ConfigError(f"group {group}: the handler {function!r} is not a function")
    if binding.is_async:
        if not _is_async(function):
            raise ConfigError(
                f"group {group}: {described(function)} is not async; async_handler needs an async function",
                hint="write it as async def handle(event, ctx), or register it with handler(topic)",
            )
    elif any(kind(function) for kind in _BODY_DOES_NOT_RUN):
        raise ConfigError(
            f"group {group}: {described(function)} is async or a generator; a handler must be a plain function",
            hint="write it as def handle(event, ctx), or register an async function with "
            "group.async_handler(topic), in a group of its own",
        )
    kind = Batch if binding.batch else given
    _check_arguments(group, function, f"({kind.__name__}, {'Async' if binding.is_async else ''}Context)")
    check_annotations(group, binding.topic, function, kind, is_async=binding.is_async)


def check_pair_function(
    group: str, left: DeclaredTopic[Any, Any], right: DeclaredTopic[Any, Any], function: Callable[..., Any]
) -> None:
    """Raise ConfigError if a function cannot be called with an event of each topic and a context."""
    if not callable(function):
        raise ConfigError(f"group {group}: {function!r} is not a function")
    if any(kind(function) for kind in _BODY_DOES_NOT_RUN):
        raise ConfigError(
            f"group {group}: {described(function)} is async or a generator; the function of a join must be a plain one",
            hint="write it as def match(left, right, ctx)",
        )
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # some builtins have no signature
    try:
        signature.bind(None, None, None)
    except TypeError as error:
        raise ConfigError(
            f"group {group}: {described(function)} cannot be called with two events and a context: {error}; its "
            f"parameters are {signature}",
            hint="give it three parameters, as in def match(left, right, ctx)",
        ) from None
    check_pair_annotations(group, (left, right), function)


def _is_async(function: Callable[..., Any]) -> bool:
    called = getattr(type(function), "__call__", None)  # noqa: B004 - of an object that is called like a function
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def _check_arguments(group: str, function: Callable[..., None], arguments: str) -> None:
    """Check at the start: otherwise every record would fail."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # some builtins have no signature
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise ConfigError(
            f"group {group}: {described(function)} cannot be called with {arguments}: {error}; "
            f"its parameters are {signature}",
            hint="give it two parameters, as in def handle(event, ctx)",
        ) from None
