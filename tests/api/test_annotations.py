"""Annotations that contradict the topic end the start; all others are accepted."""

# Without `from __future__ import annotations`: one function below has strings, as that import makes them.

from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Annotated, Any, Generic, Literal, NewType, Optional, Protocol, TypedDict, TypeVar, Union

import msgspec
import pytest

from pipeline import App, Batch, Context, Event
from pipeline.app import declared_app
from pipeline.errors import ConfigError

V = TypeVar("V")
UserId = NewType("UserId", str)


class Base(msgspec.Struct, frozen=True):
    at: int


class Click(Base, frozen=True):
    page: str


class User(msgspec.Struct, frozen=True):
    name: str


class Fields(TypedDict):
    page: str


class HasPage(Protocol):
    page: str


class Box(msgspec.Struct, Generic[V], frozen=True):
    content: V


def swapped(ctx: Context, event: Event[str, Click]) -> None: ...
def swapped_as_text(ctx: "Context", event: "Event[str, Click]") -> None: ...
def event_second(ctx: Any, event: Event[str, Click]) -> None: ...
def other_value(event: Event[str, User], ctx: Context) -> None: ...
def other_value_as_text(event: "Event[str, User]", ctx: "Context") -> None: ...
def other_value_inside(event: Event[str, "User"], ctx: Context) -> None: ...
def other_key(event: Event[int, Click], ctx: Context) -> None: ...
def other_union(event: Event[str, User | int], ctx: Context) -> None: ...
def other_events(event: Event[str, User] | Event[int, Click], ctx: Context) -> None: ...
def a_batch(event: Batch[str, Click], ctx: Context) -> None: ...


class Method:
    def handle(self, event: Event[str, User], ctx: Context) -> None: ...
    def __call__(self, event: Event[str, User], ctx: Context) -> None: ...


def configured(event: Event[str, User], ctx: Context, more: int) -> None: ...


SWAPPED = "is passed first and the context second"
VALUE = "the values of the topic are declared as Click"
KEY = "the keys of the topic are declared as str"


@pytest.mark.parametrize(
    ("function", "name", "error"),
    [
        (swapped, "swapped", f"(ctx: Context, event: Event[str, Click]), but the event {SWAPPED}"),
        (swapped_as_text, "swapped_as_text", SWAPPED),
        (event_second, "event_second", SWAPPED),
        (other_value, "other_value", f"event is annotated Event[str, User], but {VALUE}"),
        (other_value_as_text, "other_value_as_text", VALUE),
        (other_value_inside, "other_value_inside", VALUE),
        (other_key, "other_key", f"event is annotated Event[int, Click], but {KEY}"),
        (other_union, "other_union", VALUE),
        (other_events, "other_events", VALUE),
        (a_batch, "a_batch", "is annotated Batch[str, Click], but the handler is called with an Event"),
        (Method().handle, "Method.handle", VALUE),
        (Method(), "Method.__call__", VALUE),
        (partial(configured, more=1), "configured", VALUE),
    ],
)
def test_an_annotation_that_contradicts_the_topic_is_refused(
    function: Callable[..., None], name: str, error: str
) -> None:
    """Such a handler would start, and fail for every record."""
    app = App("shop")
    clicks = app.topic("clicks", key=str, value=Click)
    with pytest.raises(ConfigError) as refused:
        app.handler(clicks)(function)
    assert f"group main: handler {name} (" in refused.value.message
    assert "test_annotations.py:" in refused.value.message
    assert "of topic clicks: " in refused.value.message
    assert error in refused.value.message
    assert refused.value.hint
    assert declared_app(app).main.bindings == []


def test_a_batch_handler_is_compared_too() -> None:
    """Its parameter is a Batch, with the same types."""
    app = App("shop")
    clicks = app.topic("clicks", key=str, value=Click)
    with pytest.raises(ConfigError, match="but the handler is called with a Batch"):
        app.batch_handler(clicks)(other_value)  # type: ignore[arg-type]
    app.batch_handler(clicks)(a_batch)


def no_annotations(event, ctx): ...  # type: ignore[no-untyped-def]
def as_declared(event: Event[str, Click], ctx: Context) -> None: ...
def as_text(event: "Event[str, Click]", ctx: "Context") -> None: ...
def a_supertype(event: Event[object, Base], ctx: Context) -> None: ...
def a_union(event: Event[str, User | Click], ctx: Context) -> None: ...
def an_old_union(event: Event[str, Union[User, Click]], ctx: Context) -> None: ...  # noqa: UP007
def several_topics(event: Event[str, User] | Event[str, Click], ctx: Context) -> None: ...
def nullable(event: Event[str | None, Optional[Click]], ctx: Context) -> None: ...  # noqa: UP045
def anything(event: Event[Any, Any], ctx: Context) -> None: ...
def generic(event: Event[str, V], ctx: Context) -> None: ...
def bare(event: Event, ctx: Context) -> None: ...  # type: ignore[type-arg]
def unknown(event: "Event[str, Missing]", ctx: "Context") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def an_object(event: object, ctx: object) -> None: ...
def annotated(event: Annotated[Event[Annotated[str, 1], Click], 2], ctx: Context) -> None: ...
def renamed(event: Event[UserId, Click], ctx: Context) -> None: ...
def a_protocol(event: Event[str, HasPage], ctx: Context) -> None: ...


@wraps(other_value)
def wrapper(event: Any, ctx: Context) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        no_annotations, as_declared, as_text, a_supertype, a_union, an_old_union, several_topics, nullable, anything,
        generic, bare, unknown, an_object, annotated, renamed, a_protocol, wrapper, print,
    ],
)  # fmt: skip
def test_every_annotation_that_may_be_right_is_accepted(function: Callable[..., None]) -> None:
    """A false alarm would refuse a program that works."""
    app = App("shop")
    app.handler(app.topic("clicks", key=str, value=Click))(function)
    assert [binding.function for binding in declared_app(app).main.bindings] == [function]


@pytest.mark.parametrize(
    ("declared", "annotated_as", "accepted"),
    [
        (Click | None, Click, True),
        (Click | None, None, True),
        (Click | None, User | None, False),
        (Click | int, int, True),
        (list[int], Sequence[int], True),
        (list[int], list[int], True),
        (list[int], list[str], False),
        (list[int], list, True),
        (dict[str, int], Mapping[str, int], True),
        (dict[str, int], dict[str, str], False),
        (dict[str, int], list[int], False),
        (dict[str, Any], dict[str, int], True),
        (Fields, dict[str, str], True),
        (Fields, User, True),
        (Literal["a", "b"], str, True),
        (Literal["a", "b"], int, False),
        (int, float, True),
        (bool, int, True),
        (str, bytes, False),
        (Box[int], Box[int], True),
        (Box[int], Box[str], False),
        (tuple[int, ...], tuple[int, int], True),
        (tuple[int, str], tuple[int, int], False),
        (tuple[int, str], tuple[int], False),
        (Any, User, True),
        (bytes, None, False),
    ],
)
def test_types_are_compared_as_a_type_checker_does(declared: Any, annotated_as: Any, accepted: bool) -> None:
    """But a type that some values have is accepted, because the handler may know which."""

    def handle(event: Any, ctx: Context) -> None: ...

    handle.__annotations__["event"] = Event[str, annotated_as]
    app = App("shop")
    topic = app.topic("things", key=str, value=declared)
    if accepted:
        app.handler(topic)(handle)
        return
    with pytest.raises(ConfigError, match="the values of the topic are declared as"):
        app.handler(topic)(handle)


def test_a_local_class_with_the_name_of_another_is_accepted() -> None:
    """In a string, the name may be that of the local class, which cannot be evaluated here."""

    class User(msgspec.Struct, frozen=True):
        name: str

    alias = User

    def by_text(event: "Event[str, User]", ctx: "Context") -> None: ...
    def by_alias(event: "Event[str, alias]", ctx: "Context") -> None: ...  # type: ignore[valid-type]
    def by_class(event: Event[str, User], ctx: Context) -> None: ...
    def wrong(event: Event[str, Click], ctx: Context) -> None: ...
    def reversed_(ctx: "Context", event: "Event[str, User]") -> None: ...

    app = App("shop")
    users = app.topic("users", key=str, value=User)
    for function in (by_text, by_alias, by_class):
        app.handler(users)(function)
    with pytest.raises(ConfigError, match="the values of the topic are declared as User"):
        app.handler(users)(wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=SWAPPED):
        app.handler(users)(reversed_)  # type: ignore[arg-type]
