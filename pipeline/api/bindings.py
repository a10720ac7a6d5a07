"""The uses of an input topic in a group: a `Binding` for each handler, a `SinkBinding` for each sink."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from pipeline.api.annotations import check_annotations, described
from pipeline.api.declarations import DeclaredTopic
from pipeline.api.sinks import Sink
from pipeline.errors import ConfigError

__all__ = ["RETRY_DELAY_S", "Binding", "OnError", "SinkBinding", "check_function", "check_retries"]

OnError = Literal["stop", "skip", "dead_letter"]
RETRY_DELAY_S = 1.0
BACKOFF_CAP_S = 60.0
MAX_CONFIGURED_DELAY_S = 3600
# A call only creates a coroutine or generator; the body does not run.
_BODY_DOES_NOT_RUN = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)


class Binding:
    """One handler of one input topic. `batch`: it takes a Batch."""

    __slots__ = ("batch", "function", "on_error", "retries", "retry_delay_s", "topic")

    def __init__(
        self,
        topic: DeclaredTopic[Any, Any],
        function: Callable[..., None],
        on_error: OnError,
        batch: bool,
        retries: int = 0,
        retry_delay_s: float = RETRY_DELAY_S,
    ) -> None:
        self.topic = topic
        self.function = function
        self.on_error = on_error
        self.batch = batch
        self.retries = retries
        self.retry_delay_s = retry_delay_s

    def retry_wait_s(self, failures: int) -> float:
        """The wait after `failures` failures of a record. Doubles up to BACKOFF_CAP_S, or a longer `retry_delay_s`."""
        longest = max(BACKOFF_CAP_S, self.retry_delay_s)
        doubled: float = self.retry_delay_s * 2 ** min(failures - 1, 30)
        return min(doubled, longest)


class SinkBinding(NamedTuple):
    """One sink of one input topic."""

    topic: DeclaredTopic[Any, Any]
    sink: Sink[Any, Any]
    on_error: OnError


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


def check_function(group: str, binding: Binding) -> None:
    """Raise ConfigError if the function of `binding` cannot be a handler of its topic."""
    function = binding.function
    if not callable(function):
        raise ConfigError(f"group {group}: the handler {function!r} is not a function")
    if any(kind(function) for kind in _BODY_DOES_NOT_RUN):
        raise ConfigError(
            f"group {group}: {described(function)} is async or a generator; a handler must be a plain function",
            hint="write it as def handle(event, ctx)",
        )
    _check_arguments(group, function)
    check_annotations(group, binding.topic, function, batch=binding.batch)


def _check_arguments(group: str, function: Callable[..., None]) -> None:
    """Check at the start: otherwise every record would fail."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # some builtins have no signature
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise ConfigError(
            f"group {group}: {described(function)} cannot be called with an event (or a batch) and a context: {error}; "
            f"its parameters are {signature}",
            hint="give it two parameters, as in def handle(event, ctx)",
        ) from None
