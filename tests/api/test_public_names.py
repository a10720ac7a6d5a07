"""What `help()` of the public classes shows: everything that users may call, documented, and nothing else."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

import pipeline
import pipeline.testing

# In-memory adapters that a driver gives access to: their classes also serve the package's own tests.
ADAPTERS = {"Faults", "LocalKafka", "MemoryBroker", "DriverDatabases", "MemoryEventClients"}
CLASSES = [
    (name, value)
    for module in (pipeline, pipeline.testing)
    for name in module.__all__
    if name not in ADAPTERS and isinstance(value := getattr(module, name), type)
]
# Users never make an object of these, so they have no constructor to show.
HANDED_OUT = [
    "AsyncContext",
    "Batch",
    "Context",
    "Group",
    "History",
    "Join",
    "Resource",
    "Row",
    "Table",
    "TaskHistory",
    "TaskTable",
    "TaskTimers",
    "TaskWindow",
    "Timers",
    "Topic",
    "Transaction",
    "Window",
    "WindowRow",
]
MEMBERS = {
    "App": "async_handler batch_handler every group handler history join name on_close on_timer resource run running "
    "sink table timers topic topics window",
    "AsyncContext": "resource row send",
    "Batch": "count index keys timestamps_ms values",
    "ClosedWindow": "effect_key end_ms key start_ms value",
    "Context": "clock_ms history resource send table timers window",
    "Delivered": "count id index offset partition timestamp_ms topic",
    "Delivery": "done exception future id key result topic",
    "Event": "effect_key headers id key offset partition timestamp_ms topic value",
    "Group": "async_handler batch_handler every handler history join name on_close on_timer sink table timers window",
    "History": "group name",
    "Join": "name on_match on_unmatched_left on_unmatched_right",
    "Producer": "aclose aflush asend close flush send",
    "Resource": "",
    "Row": "get value",
    "Table": "group name",
    "TaskHistory": "add between",
    "TaskTable": "get get_many items pop update",
    "TaskWindow": "get rows",
    "Topic": "name",
    "Transaction": "send",
    "TransactionalProducer": "close transaction",
    "Window": "group name",
    "WindowRow": "end_ms key start_ms value",
}


def members(cls: type) -> Iterator[tuple[str, object]]:
    """The public members that this package defines, with those of its base classes."""
    for base in cls.__mro__:
        if base.__module__.startswith("pipeline."):
            yield from ((name, value) for name, value in vars(base).items() if not name.startswith("_"))


def own_doc(value: object) -> str:
    return inspect.cleandoc(getattr(value, "__doc__", None) or "")


@pytest.mark.parametrize("name", MEMBERS)
def test_a_public_class_shows_these_members(name: str) -> None:
    """A member of the runtime that becomes public by accident would be called, and then could not change."""
    cls = getattr(pipeline, name)
    assert sorted(each for each in dir(cls) if not each.startswith("_")) == MEMBERS[name].split()


@pytest.mark.parametrize("name", HANDED_OUT)
def test_a_class_of_objects_that_users_are_given_has_no_constructor(name: str) -> None:
    """Its arguments would be internal objects."""
    assert getattr(pipeline, name).__init__ is object.__init__


@pytest.mark.parametrize(("name", "cls"), CLASSES)
def test_a_public_class_is_documented(name: str, cls: type) -> None:
    """The reference is made of docstrings. Parameters and fields are in the class's own."""
    text = own_doc(cls)
    assert text, name
    for field in getattr(cls, "__annotations__", {}):
        if not field.startswith("_") and not issubclass(cls, Exception):
            assert re.search(rf"^    {field}: ", text, re.MULTILINE), f"{name} does not describe {field}"
    made = vars(cls).get("__init__")
    if (
        inspect.isfunction(made)
        and not issubclass(cls, Exception)
        and not getattr(cls, "_is_protocol", False)
    ):
        for parameter in list(inspect.signature(made).parameters)[1:]:
            assert re.search(rf"^    {parameter}: ", text, re.MULTILINE), (
                f"{name} does not describe {parameter}"
            )


@pytest.mark.parametrize(("name", "cls"), CLASSES)
def test_a_public_member_is_documented(name: str, cls: type) -> None:
    """With each argument, the result, and an example where users call it."""
    for member, value in members(cls):
        if isinstance(value, property):
            assert own_doc(value), f"{name}.{member}"
        function = value.__wrapped__ if hasattr(value, "__wrapped__") else value
        if not inspect.isfunction(function):
            continue
        text, signature = own_doc(function), inspect.signature(function)
        assert text, f"{name}.{member}"
        for parameter in list(signature.parameters)[1:]:
            assert re.search(rf"^    {parameter}: ", text, re.MULTILINE), f"{name}.{member}: {parameter}"
        if signature.return_annotation not in {"None", None}:
            assert re.search(r"^Returns:$", text, re.MULTILINE), (
                f"{name}.{member} does not say what it returns"
            )


@pytest.mark.parametrize(
    "name",
    ["App", "AsyncContext", "Context", "Group", "Producer", "Row", "TaskTable", "TestDriver", "Transaction"],
)
def test_what_users_call_has_an_example(name: str) -> None:
    """An example tells more than the types."""
    cls = getattr(pipeline if name in pipeline.__all__ else pipeline.testing, name)
    for member, value in members(cls):
        if inspect.isfunction(value):
            assert "Example:" in own_doc(value), f"{name}.{member}"
