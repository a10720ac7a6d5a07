"""What is left of a failed attempt."""

from __future__ import annotations

import gc
import weakref

import pytest

from pipeline import App, Context, Event
from pipeline.testing import TestDriver


class Connection:
    """What an error may hold, such as the socket of an HTTP response."""


class FailedError(Exception):
    """An error of a handler."""

    def __init__(self, connection: Connection) -> None:
        super().__init__("refused")
        self.connection = connection


@pytest.mark.parametrize("batch", [False, True])
def test_an_error_is_freed_with_its_attempt(batch: bool) -> None:
    """A cycle would keep its socket open until the collector runs, which is seldom in a worker."""
    app = App("visits")
    visits = app.topic("visits", key=str, value=int)
    held: list[weakref.ref[Connection]] = []

    def fail_once(_event: object, _ctx: Context) -> None:
        if not held:
            connection = Connection()
            held.append(weakref.ref(connection))
            raise FailedError(connection)

    def fail_event(event: Event[str, int], ctx: Context) -> None:
        fail_once(event, ctx)

    if batch:
        app.batch_handler(visits, retries=1)(fail_once)
    else:
        app.handler(visits, retries=1)(fail_event)
    driver = TestDriver(app)
    driver.send(visits, "a", 1)
    gc.collect()
    gc.disable()
    try:
        driver.run()
        assert [each() for each in held] == [None]
    finally:
        gc.enable()
