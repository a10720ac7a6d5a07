"""Detects a `Context`, a table or a row that a handler uses after its call. Such a write would belong to no record."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.api.bindings import Binding, RuntimeBinding
from pipeline.api.context import Context
from pipeline.api.declared_group import DeclaredGroup
from pipeline.errors import InvariantError, PipelineError

__all__ = ["StaleHandleError", "guarded"]


class StaleHandleError(PipelineError):
    """A Context or TaskTable was used after the handler call it was given to."""


class _Handle:
    """Wraps a Context or a TaskTable, and refuses every use after the handler's call has ended.

    A TaskTable or an iterator that it returns is wrapped, too.
    """

    def __init__(self, target: Any, call: _Call) -> None:
        self._target = target
        self._call = call

    def __getattr__(self, name: str) -> Any:
        self._call.check()
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def method(*args: Any, **kwargs: Any) -> Any:
            self._call.check()  # `get = table.get` may be kept, too
            return found(*args, **kwargs)

        return method

    def table(self, definition: Any) -> Any:
        self._call.check()
        return _Handle(self._target.table(definition), self._call)

    def window(self, definition: Any) -> Any:
        self._call.check()
        return _Handle(self._target.window(definition), self._call)

    def history(self, definition: Any) -> Any:
        self._call.check()
        return _Handle(self._target.history(definition), self._call)

    def between(self, *arguments: Any) -> Any:
        self._call.check()
        return self._checked(self._target.between(*arguments))

    def timers(self, definition: Any) -> Any:
        self._call.check()
        return _TimersHandle(self._target.timers(definition), self._call)

    def rows(self, *event: Any, **key: Any) -> Any:
        self._call.check()
        return [_Row(row, self._call) for row in self._target.rows(*event, **key)]

    def items(self, **prefix: Any) -> Any:
        self._call.check()
        return self._checked(self._target.items(**prefix))

    def _checked(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self._call.check()
            yield item

    def __getitem__(self, key: Any) -> Any:
        self._call.check()
        return self._target[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._call.check()
        self._target[key] = value

    def __delitem__(self, key: Any) -> None:
        self._call.check()
        del self._target[key]

    def __contains__(self, key: object) -> bool:
        self._call.check()
        return key in self._target


class _TimersHandle(_Handle):
    """Wraps timers, which can also be counted and iterated over."""

    def __iter__(self) -> Iterator[Any]:
        self._call.check()
        return self._checked(iter(self._target))

    def __len__(self) -> int:
        self._call.check()
        return len(self._target)

    def items(self, **_: Any) -> Any:
        self._call.check()
        return self._checked(iter(self._target.items()))


class _Row:
    """Wraps a row of a window."""

    def __init__(self, target: Any, call: _Call) -> None:
        self.key, self.start_ms, self.end_ms = target.key, target.start_ms, target.end_ms
        self._target = target
        self._call = call

    @property
    def value(self) -> Any:
        self._call.check()
        return self._target.value

    @value.setter
    def value(self, value: Any) -> None:
        self._call.check()
        self._target.value = value


class _Call:
    """One handler call."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.over = False

    def check(self) -> None:
        if self.over:
            raise StaleHandleError(
                f"{self.name} kept a context, table or row after its call and used it",
                hint="ask the context of each call for its tables; keep keys and values, not handles",
            )


def guarded(groups: Sequence[DeclaredGroup]) -> list[DeclaredGroup]:
    """The same groups with wrapped handlers: the context of a call cannot be used after it."""
    if not all(isinstance(group, DeclaredGroup) for group in groups):
        raise InvariantError("only groups can be guarded")
    return [group.with_functions(_guard) for group in groups]


def _guard(binding: Binding) -> Binding:
    if binding.is_async or isinstance(binding, RuntimeBinding):
        return binding  # its context ends with its call in every worker, or is not given to the user
    function: Callable[..., None] = binding.function
    name = getattr(function, "__qualname__", str(function))

    def call(given: Any, context: Context) -> None:
        current = _Call(name)
        try:
            function(given, _Handle(context, current))
        finally:
            current.over = True

    call.__qualname__ = name
    twin = copy.copy(binding)
    twin.function = call
    return twin
