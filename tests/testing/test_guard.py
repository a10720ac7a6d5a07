"""Handles that a handler keeps after its call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline import App, Batch, Context, Resource, TaskTable
from pipeline.app import declared_app
from pipeline.errors import HandlerError
from pipeline.testing import TestDriver


def keep_context(ctx: Context, table: TaskTable[str, int]) -> Callable[[], object]:
    return lambda: ctx.table(counts_table)


def keep_send(ctx: Context, table: TaskTable[str, int]) -> Callable[[], object]:
    send = ctx.send
    return lambda: send(kept_topic, None, 1)


def keep_table(ctx: Context, table: TaskTable[str, int]) -> Callable[[], object]:
    return lambda: table.get("a")


def keep_write(ctx: Context, table: TaskTable[str, int]) -> Callable[[], object]:
    return lambda: table.update({"a": 1})


def keep_method(ctx: Context, table: TaskTable[str, int]) -> Callable[[], object]:
    get = table.get
    return lambda: get("a")


def keep_items(ctx: Context, table: TaskTable[str, int]) -> Callable[[], object]:
    rows = table.items()
    next(rows)
    return lambda: next(rows)


def keep_item_access(ctx: Context, table: TaskTable[str, int]) -> Callable[[], object]:
    return lambda: table["a"]


def keep_membership(ctx: Context, table: TaskTable[str, int]) -> Callable[[], object]:
    return lambda: "a" in table


kept_app = App("kept")
kept_topic = kept_app.topic("in", value=int)
counts_table = kept_app.table("counts", key=str, value=int)


@pytest.mark.parametrize(
    "keep",
    [
        keep_context,
        keep_send,
        keep_table,
        keep_write,
        keep_method,
        keep_items,
        keep_item_access,
        keep_membership,
    ],
)
@pytest.mark.parametrize("batch", [False, True])
def test_a_handle_kept_after_its_call_is_caught(
    keep: Callable[[Context, TaskTable[str, int]], Callable[[], object]], batch: bool
) -> None:
    """In production what it writes belongs to no record: lost with a crash, doubled by a retry."""
    own = App("kept")
    mine, kept_one = declared_app(own), declared_app(kept_app)
    mine.topics.update(kept_one.topics)
    mine.main.tables.update(kept_one.main.tables)
    kept: list[Callable[[], object]] = []

    def handle(given: object, ctx: Context) -> None:
        table = ctx.table(counts_table)
        table.update({"a": 1, "b": 2})
        if kept:
            kept[0]()
        kept.append(keep(ctx, table))

    if batch:
        own.batch_handler(kept_topic)(handle)
    else:
        own.handler(kept_topic)(handle)
    driver = TestDriver(own)
    driver.send(kept_topic, None, 1)
    driver.run()
    driver.send(kept_topic, None, 2)
    with pytest.raises(HandlerError, match="kept a context, table or row after its call"):
        driver.run()


def test_the_guard_is_invisible_to_a_handler_that_keeps_nothing() -> None:
    """Everything a table can do, inside the call."""
    own = App("guarded")
    topic = own.topic("in", value=int)
    table_def = own.table("t", key=str, value=int)
    numbers: Resource[list[int]] = own.resource(list)
    seen: list[Any] = []

    @own.batch_handler(topic)
    def handle(batch: Batch[None, int], ctx: Context) -> None:
        table = ctx.table(table_def)
        table["a"] = len(batch)
        table.update({"b": 2, "c": 3})
        del table["c"]
        ctx.resource(numbers).append(1)
        seen.append((table["a"], table.get("x", 5), "b" in table, "c" in table))
        seen.append((dict(table.items(prefix="b")), table.get_many(["a", "b"]), ctx.resource(numbers)))

    driver = TestDriver(own)
    driver.send(topic, None, 1)
    driver.run()
    assert seen == [(1, 5, True, False), ({"b": 2}, {"a": 1, "b": 2}, [1])]
    assert driver.table(table_def) == {"a": 1, "b": 2}
