"""Compares the annotations of a handler with the types of its topic: `check_annotations`.

Only what is certainly wrong is refused. An annotation that cannot be evaluated, such as the name of a local class in a
string, is ignored. So is a function that another one wraps, because the wrapper may pass other arguments.
"""

from __future__ import annotations

import enum
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pipeline.api.async_context import AsyncContext
from pipeline.api.closed_windows import ClosedWindow
from pipeline.api.context import Context
from pipeline.api.declarations import DeclaredTopic
from pipeline.api.event import Batch, Event
from pipeline.api.ticks import Tick
from pipeline.api.timers import FiredTimer
from pipeline.api.type_schema import show
from pipeline.errors import ConfigError

__all__ = ["check_annotations", "check_pair_annotations", "described"]

_GIVEN: dict[type, str] = {
    Event: "event",
    Batch: "batch",
    ClosedWindow: "window",
    FiredTimer: "timer",
    Tick: "tick",
}
_UNIONS = (Union, types.UnionType)
# Where a float is expected, PEP 484 also accepts an int.
_PROMOTIONS = {(int, float), (int, complex), (float, complex)}


def described(function: Callable[..., Any]) -> str:
    """The name of a function with its file and line, for messages: `add_delay (delays.py:17)`."""
    plain = _plain(function)
    name = getattr(function, "__qualname__", None) or getattr(plain, "__qualname__", repr(function))
    code = getattr(plain, "__code__", None)
    if code is None:
        return str(name)
    file = Path(code.co_filename)
    here = Path.cwd()
    shown = file.relative_to(here) if file.is_relative_to(here) else file
    return f"{name} ({shown}:{code.co_firstlineno})"


def check_annotations(
    group: str,
    topic: DeclaredTopic[Any, Any],
    function: Callable[..., Any],
    kind: type,
    *,
    is_async: bool = False,
) -> None:
    """Raise ConfigError if the annotations of a handler contradict its topic, or the order of the arguments.

    `kind`: what it is given, such as an Event.
    """
    annotations = _annotations(function)
    if annotations is None:
        return
    where = f"group {group}: handler {described(function)} of topic {topic.name}"
    expected = _expected(kind, topic)
    given = AsyncContext if is_async else Context
    (first, event), (second, context) = annotations
    if _is(event, Context, AsyncContext) or (_is(context, *_GIVEN) and not _is(event, *_GIVEN)):
        raise ConfigError(
            f"{where}: the parameters are ({first}: {_shown(event)}, {second}: {_shown(context)}), but the "
            f"{_GIVEN[kind]} is passed first and the context second",
            hint=f"write ({_GIVEN[kind]}: {expected}, ctx: {given.__name__})",
        )
    if _is(context, AsyncContext if given is Context else Context):
        raise ConfigError(
            f"{where}: parameter {second} is annotated {_shown(context)}, but the handler is given "
            f"{'an AsyncContext' if is_async else 'a Context'}",
            hint=f"write {second}: {given.__name__}, and use what it has",
        )
    alternatives = _members(event)
    if any(get_origin(each) is not kind and each is not kind for each in alternatives):
        if all(_is(each, *_GIVEN) for each in alternatives) and not any(
            _is(each, kind) for each in alternatives
        ):
            raise ConfigError(
                f"{where}: parameter {first} is annotated {_shown(event)}, but the handler is called with "
                f"{'an' if kind is Event else 'a'} {kind.__name__}",
                hint="use @app.handler(topic) for an Event, @app.batch_handler(topic) for a Batch, "
                "@app.on_close(window) for a ClosedWindow, @app.on_timer(timers) for a FiredTimer, and "
                "@app.every(seconds, name=...) for a Tick",
            )
        return
    wrong = [_difference(each, topic) for each in alternatives]
    if wrong and all(wrong):
        raise ConfigError(
            f"{where}: parameter {first} is annotated {_shown(event)}, but {wrong[0]}",
            hint=f"write {first}: {expected}, or register the handler for a topic with the annotated types",
        )


def check_pair_annotations(
    group: str, topics: Sequence[DeclaredTopic[Any, Any]], function: Callable[..., Any]
) -> None:
    """Raise ConfigError if the annotations of a function for pairs contradict the topics of its events."""
    for (name, annotation), topic in zip(_annotations(function, 3) or (), topics, strict=False):
        wrong = [_difference(each, topic) for each in _members(annotation) if _is(each, Event)]
        if wrong and all(wrong):
            raise ConfigError(
                f"group {group}: {described(function)}: parameter {name} is annotated {_shown(annotation)}, but it is "
                f"given an event of topic {topic.name}, and {wrong[0]}",
                hint=f"write {name}: Event[{show(topic.key_type)}, {show(topic.value_type)}]: the left event is first",
            )


def _expected(kind: type, topic: DeclaredTopic[Any, Any]) -> str:
    """The annotation of what a handler is given."""
    types = [show(topic.key_type), show(topic.value_type)][: len(getattr(kind, "__parameters__", ()))]
    return f"{kind.__name__}[{', '.join(types)}]" if types else kind.__name__


def _difference(annotation: Any, topic: DeclaredTopic[Any, Any]) -> str | None:
    """How the type arguments of an Event or Batch contradict the topic. None if they do not."""
    arguments = get_args(annotation)
    declared_types = (("keys", topic.key_type), ("values", topic.value_type))
    for (what, declared), argument in zip(declared_types, arguments, strict=False):
        if not _may_be(declared, argument):
            return f"the {what} of the topic are declared as {show(declared)}"
    return None


def _may_be(declared: Any, annotated: Any) -> bool:
    """Whether a value of the declared type can have the annotated type."""
    mine, others = _members(declared), _members(annotated)
    null = type(None)
    if null in mine and null in others and len(mine) > 1 and len(others) > 1:
        mine, others = [a for a in mine if a is not null], [b for b in others if b is not null]
    return any(_overlap(a, b) for a in mine for b in others)


def _overlap(declared: Any, annotated: Any) -> bool:  # noqa: PLR0911 - one rule for each return
    if declared == annotated or Any in (declared, annotated):
        return True
    a, b = get_origin(declared) or declared, get_origin(annotated) or annotated
    if not isinstance(a, type) or not isinstance(b, type):
        return True  # Any, a TypeVar, a name that is not evaluated
    # A module that was imported twice, or reloaded, has two classes of one name.
    if a is not b and a.__name__ == b.__name__:
        return True
    if a is b:
        mine, others = get_args(declared), get_args(annotated)
        if len(mine) != len(others) or Ellipsis in (*mine, *others):
            # Only two tuples of fixed lengths are certainly different.
            return not (a is tuple and mine and others and Ellipsis not in (*mine, *others))
        return all(_may_be(one, other) for one, other in zip(mine, others, strict=True))
    try:
        return issubclass(a, b) or issubclass(b, a) or (a, b) in _PROMOTIONS
    except TypeError:
        return True  # protocols and TypedDicts do not support issubclass


def _members(annotation: Any) -> list[Any]:  # noqa: PLR0911 - one kind of type for each return
    """The alternatives of a type, without the wrappers that have no effect at run time."""
    if annotation is None:
        return [type(None)]
    origin = get_origin(annotation)
    if origin in _UNIONS:
        return [member for each in get_args(annotation) for member in _members(each)]
    if origin is typing.Annotated:
        return _members(get_args(annotation)[0])
    if origin is Literal:
        return [type(each) for each in get_args(annotation)]
    if isinstance(annotation, typing.NewType):
        return _members(annotation.__supertype__)
    alias = getattr(annotation, "__value__", None)  # `type Name = ...` of Python 3.12
    if alias is not None and not isinstance(annotation, type | enum.Enum):
        return _members(alias)
    return [annotation]


def _is(annotation: Any, *kinds: type) -> bool:
    return annotation in kinds or get_origin(annotation) in kinds


def _shown(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return "no annotation"
    arguments = get_args(annotation)
    if _is(annotation, *_GIVEN) and arguments:
        return f"{get_origin(annotation).__name__}[{', '.join(show(each) for each in arguments)}]"
    return show(annotation)


def _plain(function: Any) -> Any:
    """The Python function behind a partial, a method or a callable object."""
    while isinstance(function, partial):
        function = function.func
    if not inspect.isroutine(function) and not isinstance(function, type):
        function = getattr(type(function), "__call__", function)  # noqa: B004 - its code is wanted
    return inspect.unwrap(getattr(function, "__func__", function))


def _annotations(function: Callable[..., Any], count: int = 2) -> list[tuple[str, Any]] | None:
    """The names and annotations of the first parameters. None if the function has others, or is wrapped."""
    inner: Any = function
    while isinstance(inner, partial):
        inner = inner.func
    if hasattr(inner, "__wrapped__"):
        return None
    try:
        parameters = list(inspect.signature(function).parameters.values())[:count]
    except (TypeError, ValueError):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) != count or any(each.kind not in positional for each in parameters):
        return None
    plain = _plain(function)
    return [(each.name, _evaluated(each.annotation, plain)) for each in parameters]


def _evaluated(annotation: Any, plain: Any) -> Any:
    """The annotation, with its strings evaluated. `Any` if that is impossible.

    In a nested function, a name in a string may be a local one of the outer function, which cannot be seen from here.
    Then only these classes are known, without their type arguments.
    """
    names = getattr(plain, "__globals__", {})
    nested = "<locals>" in getattr(plain, "__qualname__", "")
    if nested and not isinstance(annotation, str):
        return annotation
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        if nested:
            bare = str(annotation).partition("[")[0].strip()
            found = names.get(bare)
            return found if found in (*_GIVEN, Context, AsyncContext) else Any
        return typing.get_type_hints(holder, names, None).get("it", Any)
    except Exception:  # noqa: BLE001 - an annotation may be any expression
        return annotation if not isinstance(annotation, str) else Any
