"""What a group does with an input topic: a `Binding` for each handler, a `SinkBinding` for each sink."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from pipeline.api.declarations import DeclaredTopic
from pipeline.api.sinks import Sink
from pipeline.errors import ConfigError

__all__ = ["RETRY_DELAY_S", "Binding", "OnError", "SinkBinding", "check_function", "check_retries"]

OnError = Literal["stop", "skip", "dead_letter"]
RETRY_DELAY_S = 1.0
MAX_RETRY_DELAY_S = 60.0
LONGEST_RETRY_DELAY_S = 3600
# Calling such a function runs nothing of it.
_NOT_RUN_BY_A_CALL = (
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
        """How long to wait after so many failures of a record: twice as long each time, up to a minute."""
        longest = max(MAX_RETRY_DELAY_S, self.retry_delay_s)
        doubled: float = self.retry_delay_s * 2 ** min(failures - 1, 30)
        return min(doubled, longest)


class SinkBinding(NamedTuple):
    """One sink of one input topic."""

    topic: DeclaredTopic[Any, Any]
    sink: Sink[Any, Any]
    on_error: OnError


def check_retries(group: str, binding: Binding) -> None:
    retries, delay_s = binding.retries, binding.retry_delay_s
    if type(retries) is not int or retries < 0:
        raise ConfigError(f"group {group}: retries is {retries!r}; it must be a whole number, 0 or above")
    if type(delay_s) not in {int, float} or not 0 <= delay_s <= LONGEST_RETRY_DELAY_S:
        raise ConfigError(
            f"group {group}: retry_delay_s is {delay_s!r}; it must be a number of seconds, 0 to {LONGEST_RETRY_DELAY_S}"
        )


def check_function(group: str, function: Callable[..., None]) -> None:
    """Refuse what would not run as a handler. Raises ConfigError."""
    if not callable(function):
        raise ConfigError(f"group {group}: the handler {function!r} is not a function")
    if any(kind(function) for kind in _NOT_RUN_BY_A_CALL):
        raise ConfigError(
            f"group {group}: {function.__qualname__} is async or a generator, and would not run",
            hint="write a plain function",
        )
    _check_arguments(group, function)


def _check_arguments(group: str, function: Callable[..., None]) -> None:
    """Found here, a missing argument stops the start; later it would fail every record."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # some builtins have none to look at
    try:
        signature.bind(None, None)
    except TypeError as error:
        name = getattr(function, "__qualname__", repr(function))
        raise ConfigError(
            f"group {group}: {name}{signature} cannot be called with an event (or a batch) and a context: {error}",
            hint="give it two parameters, as in def handle(event, ctx)",
        ) from None
