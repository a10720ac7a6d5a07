"""What other parts of the package read of a real `faust.App`: `Reader`, the HTTP rows, `pipeline debug` and schemas."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import faust
import pytest

from pipeline import Settings, faust_error_policy
from pipeline.app import declared_app
from pipeline.core.names import TaskId
from pipeline.errors import InputError
from pipeline.http.application import Request
from pipeline.http.rows import ROWS, RowDocuments
from pipeline.ops.history.debugging import debug_record, prepare
from pipeline.queries.reader import Reader, _decode_row
from pipeline.testing import TestDriver
from pipeline.testing.memory_store import MemoryStores
from tests.faust.test_agents import Order, new_app
from tests.support.ops.past_flights import reading


class Shop:
    """An app that keeps the last order of each account, and the words of all."""

    def __init__(self) -> None:
        self.app = new_app()
        self.orders = self.app.topic("orders", key_type=str, value_type=Order)
        self.last = self.app.Table("last", key_type=str, value_type=Order)
        self.tags = self.app.SetTable("tags", key_type=str, value_type=str)
        self.bills = self.app.topic("bills", value_type=Order)

        @self.app.agent(self.orders)
        async def keep(stream: Any) -> None:
            async for order in stream:
                self.last[order.account] = order
                self.tags[order.account].add(str(order.amount))
                await self.bills.send(value=order)

        self.driver = TestDriver(self.app)
        for amount in (1, 2):
            self.driver.send(self.orders, "ann", Order("ann", amount))
        self.driver.run()


class _OwnSchema(faust.Schema):
    """Values are the amount alone; the account is in a header."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> Any:
        return None if message.key is None else message.key.decode().upper()

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:
        return Order(dict(message.headers)["account"].decode(), int(message.value))


class _ReaderOfWorker(Reader):
    """A reader whose requests are answered by the worker of a test."""

    def __init__(self, shop: Shop) -> None:
        super().__init__(shop.app, Settings())
        self._rows = rows_of(shop)

    def _counts_of(self, group: str) -> tuple[int, int]:
        return 1, 1

    def _ask(self, task: TaskId, path: str, until_s: float) -> Any:
        place, _, query = path.partition("?")
        answer = self._rows.answer(Request(place, query=dict(parse_qsl(query))))
        return (_decode_row(answer.body), "") if answer.status == HTTPStatus.OK else (None, str(answer.body))


def rows_of(shop: Shop) -> RowDocuments:
    """The HTTP rows of the worker of a test."""
    made = RowDocuments(declared_app(shop.app), "w")
    made.queries = shop.driver.worker.row_queries
    return made


def test_a_reader_takes_and_returns_what_agents_use() -> None:
    """A web service has the objects of Faust, not the bytes of rows."""
    shop = Shop()
    with _ReaderOfWorker(shop) as reader:
        assert reader.get(shop.last, "ann", partition=0).value == Order("ann", 2)
        assert reader.get(shop.tags, "ann", partition=0).value == {"1", "2"}
        assert reader.get(shop.last, "bob", partition=0).value is None


def test_a_reader_asks_for_the_partition_of_a_row() -> None:
    """A row of a Faust table belongs to the partition of its event, which the key of the row does not determine."""
    shop = Shop()
    with (
        _ReaderOfWorker(shop) as reader,
        pytest.raises(InputError, match="the partition of a row is not known"),
    ):
        reader.get(shop.last, "ann")


def test_a_row_over_http_is_found_by_the_key_as_text() -> None:
    """The bytes of a key in the table are those of its serializer."""
    app = new_app()
    words = app.topic("words", value_type=str)
    counts = app.Table("counts", default=int)

    @app.agent(words)
    async def count(stream: Any) -> None:
        async for word in stream:
            counts[word] += 1

    driver = TestDriver(app)
    driver.send(words, None, "be")
    driver.run()
    rows = RowDocuments(declared_app(app), "w")
    rows.queries = driver.worker.row_queries
    answer = rows.answer(Request(f"{ROWS}main/counts", query={"key": "be", "partition": "0"}))
    assert (answer.status, json.loads(answer.body)["value"]) == (HTTPStatus.OK, 1)
    answer = rows.answer(Request(f"{ROWS}main/counts", query={"key": "7", "partition": "0"}))
    assert answer.status == HTTPStatus.BAD_REQUEST
    assert "can be a number or a text" in json.loads(answer.body)["error"]


def test_debug_runs_an_event_again_as_it_was_committed() -> None:
    """Its writes and sends are those of the commit, and nothing is written."""
    shop = Shop()
    app, environment = declared_app(shop.app), reading(shop.driver)
    prepared = prepare(app, app.main, TaskId(app.name, "main", 0), "orders", 1, environment)
    run = debug_record(prepared, environment, MemoryStores())
    assert (run.outcome, run.error) == ("handled", "")
    assert [row.same for row in run.writes.values()] == [True, True]
    assert [made.committed is not None and made.committed.equal for made in run.outputs] == [True]


def test_a_schema_of_the_user_decodes_with_the_message() -> None:
    """Schemas exist for values whose format is in the headers."""
    app = new_app()
    orders = app.topic("orders", schema=_OwnSchema(key_type=str, value_type=Order))
    totals = app.Table("totals", key_type=str, default=int)

    @app.agent(orders)
    async def add(stream: Any) -> None:
        async for account, order in stream.items():
            totals[account] += order.amount
            assert order.account == "ann"

    driver = TestDriver(app)
    for amount in (b"3", b"4"):
        driver.send_raw(orders, b"k", amount, headers=[("account", b"ann")])
    driver.run()
    assert driver.table(totals) == {"K": 7}


def test_what_a_schema_raises_is_an_error_of_its_record() -> None:
    """As for the schemas of Faust itself."""
    app = new_app()
    orders = app.topic("orders", schema=_OwnSchema(value_type=Order))
    faust_error_policy(app, on_error="dead_letter")

    @app.agent(orders)
    async def read(stream: Any) -> None:
        async for _ in stream:
            pass

    driver = TestDriver(app)
    driver.send_raw(orders, b"k", b"not a number", headers=[("account", b"ann")])
    driver.run()
    assert [letter.value for letter in driver.dead_letters()] == [b"not a number"]
