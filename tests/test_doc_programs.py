"""The programs of the how-to and reference pages do what their pages say."""

from __future__ import annotations

import threading
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import pytest

from examples.effects.provider import Provider
from pipeline import Dedup
from pipeline.ports import Step
from pipeline.testing import TestDriver
from tests.support.pages import ROOT, blocks, import_program

HOW_TO = ROOT / "docs" / "how-to"
REFERENCE = ROOT / "docs" / "reference"


class Programs:
    """Writes the programs of a page to files and imports them."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        self._monkeypatch = monkeypatch

    def of(self, page: Path, *names: str) -> list[Any]:
        """The page's Python blocks as modules of these names: one name for each block, in order."""
        sources = blocks(page, "python")
        assert len(sources) == len(names), f"{page.name} has {len(sources)} programs"
        return [self._imported(name, source) for name, source in zip(names, sources, strict=True)]

    def _imported(self, name: str, source: str) -> Any:
        (self._directory / f"{name}.py").write_text(source, encoding="utf-8")
        return import_program(name, self._directory, self._monkeypatch)


@pytest.fixture(name="programs")
def programs_of_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs(tmp_path, monkeypatch)


def test_the_handler_that_charges_makes_one_charge(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers copy it for calls that cost money."""
    provider = Provider()
    thread = threading.Thread(target=provider.server.serve_forever, daemon=True)
    thread.start()
    try:
        monkeypatch.setenv("PAYMENTS_URL", provider.url)
        billing, its_test = programs.of(HOW_TO / "effects.md", "billing", "billing_test")
        driver = TestDriver(billing.app)
        driver.run()
        driver.send(billing.orders, "o1", billing.Order("ann", 500))
        driver.crash_at(Step.BEFORE_BEGIN)
        driver.run()
        assert driver.crashed
        driver.restart()
        driver.run()
        assert (provider.requests, len(provider.charges)) == (2, 1)
        assert [event.value for event in driver.outputs(billing.receipts)] == [billing.Receipt("ch-1")]
        its_test.test_a_crash_before_the_commit_repeats_the_call_with_the_same_key(monkeypatch)
    finally:
        provider.server.shutdown()
        provider.server.server_close()
        thread.join(timeout=10)


def test_the_async_handler_keeps_the_order_of_its_records(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers copy it for calls that take long."""
    _, its_test = programs.of(HOW_TO / "async-handlers.md", "scoring", "scoring_test")
    keys: Any = its_test.keys.__wrapped__
    for check in (
        its_test.test_outputs_have_the_order_of_the_payments,
        its_test.test_a_payment_without_an_answer_becomes_a_dead_letter,
        its_test.test_a_crash_repeats_a_call_with_the_same_key,
    ):
        check(keys(monkeypatch))


def test_the_stages_count_orders_and_customers(programs: Programs) -> None:
    """A reader builds the first app of several stages from it."""
    sales, its_test = programs.of(HOW_TO / "multi-stage.md", "sales", "sales_test")
    driver = TestDriver(sales.app, partitions=3)
    for number, customer, country in [("o1", "ann", "DE"), ("o2", "bob", "FR"), ("o3", "ann", "DE")]:
        driver.send(sales.orders, number, sales.Order(customer, country))
    driver.run()
    assert driver.table(sales.order_counts) == {"ann": 2, "bob": 1}
    assert driver.table(sales.customer_counts) == {"DE": 1, "FR": 1}
    its_test.test_a_crash_between_stages_counts_no_record_twice()


def test_rows_expire_as_their_page_says(programs: Programs) -> None:
    """The page has an app and its test."""
    _, its_test = programs.of(HOW_TO / "expiring-rows.md", "carts", "carts_test")
    its_test.test_a_cart_is_forgotten_after_an_hour()


def test_a_history_and_its_recipes_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipes are parts of handlers: each gets the values that its text names."""
    program, late, pause, rate, highest, its_test = blocks(HOW_TO / "history.md", "python")
    for name, source in (("cards", program), ("cards_test", its_test)):
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        module = import_program(name, tmp_path, monkeypatch)
    module.test_ten_minutes_are_over_after_ten_minutes()
    cards = import_program("cards", tmp_path, monkeypatch)
    too_late = cards.app.topic("too-late", key=str, value=cards.Payment)
    seen: list[tuple[Any, ...]] = []

    def recipes(event: Any, ctx: Any) -> None:
        names = {
            "event": event,
            "ctx": ctx,
            "recent": cards.recent,
            "too_late": too_late,
            "rates_by_currency": cards.recent,
            "order": SimpleNamespace(currency=event.key, at_ms=event.value.at_ms),
        }
        for source in (late, pause, rate, highest):
            exec(dedent(source), names)  # noqa: S102 - of the page
        seen.append((names["pause_ms"], names["rate"], names["highest"]))

    cards.app.handler(cards.payments)(recipes)
    driver = TestDriver(cards.app)
    now_ms = driver.clock.wall_ms()
    for seconds, cents in ((0, 10), (60, 30), (90, 20), (-5_000, 40)):
        at_ms = now_ms + seconds * 1000 - 3_600_000
        driver.send(cards.payments, "4711", cards.Payment("4711", cents, at_ms))
    driver.run()
    assert seen[0] == (None, 10, [10, 10])
    assert [each[0] for each in seen[1:3]] == [60_000, 30_000]
    assert seen[2][2] == [30, 30, 20, 20, 10]
    assert [event.value.cents for event in driver.outputs(too_late)] == [40]


def test_joins_and_their_recipes_do_what_they_say(programs: Programs) -> None:
    """A reader copies the one that fits."""
    _, streams, tables, keys, its_test = programs.of(
        HOW_TO / "joins.md", "shop", "stream_table", "table_table", "foreign_key", "shop_test"
    )
    its_test.test_an_order_that_is_not_paid_is_reported()

    driver = TestDriver(streams.app)
    driver.send(streams.customers, "c1", "ann")
    driver.run()
    for customer, cents in (("c1", 500), ("c2", 900)):
        driver.send(streams.orders, customer, cents)
    driver.run()
    assert [event.value for event in driver.outputs(streams.named_orders)] == [("ann", 500), ("unknown", 900)]

    driver = TestDriver(tables.app)
    for topic, number in ((tables.prices, 5), (tables.stocks, 3), (tables.prices, 7)):
        driver.send(topic, "hat", number)
        driver.run()
    assert [event.value for event in driver.outputs(tables.values)] == [15, 21]

    driver = TestDriver(keys.app, partitions=3)
    driver.send(keys.orders, "o1", keys.Order("c1", 500))
    driver.run()
    driver.send(keys.customers, "c1", "ann")
    driver.run()
    driver.send(keys.customers, "c1", "Ann")
    driver.send(keys.orders, "o2", keys.Order("c1", 900))
    driver.run()
    named = {(event.key, *event.value) for event in driver.outputs(keys.named_orders)}
    assert named == {("o1", "ann", 500), ("o1", "Ann", 500), ("o2", "Ann", 900)}


def test_a_session_is_published_when_it_is_over(programs: Programs) -> None:
    """The test on the page is one that a reader keeps."""
    _, its_test = programs.of(HOW_TO / "sessions.md", "shop", "shop_test")
    its_test.test_a_visit_is_published_when_it_is_over()


def test_a_payment_that_was_sent_twice_counts_once(programs: Programs) -> None:
    """The page promises that, also for an id that a function returns."""
    accounts, its_test = programs.of(HOW_TO / "dedup.md", "accounts", "accounts_test")
    its_test.test_a_payment_counts_once_within_a_week()
    payments = accounts.payments
    payments.dedup = Dedup(ttl_s=accounts.WEEK_S, id=lambda event: event.value.payment)
    driver = TestDriver(accounts.app)
    for payment in ["p1", "p2", "p2"]:
        driver.send(payments, "bob", accounts.Payment(payment, "bob", 900))
    driver.run()
    assert driver.table(accounts.balances) == {"bob": 1800}


def test_the_upgrade_converts_the_rows_of_the_old_version(programs: Programs) -> None:
    """A reader runs such a function on all rows of a production table."""
    _, its_test = programs.of(HOW_TO / "changes.md", "payments", "payments_test")
    its_test.test_the_new_version_converts_euros_to_cents()


def test_the_failed_record_becomes_a_dead_letter_and_is_replayed(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is the reference for what a handler's exception does."""
    _, its_test = programs.of(REFERENCE / "errors.md", "delays", "delays_test")
    its_test.test_a_dead_letter_is_replayed_after_the_fix(monkeypatch)


def test_the_programs_of_the_types_page_run(programs: Programs) -> None:
    """A reader who brings Avro or Protobuf starts from the codec."""
    airports, till, scores = programs.of(REFERENCE / "types.md", "airports", "till", "scores")
    driver = TestDriver(airports.app)
    for destination, delay in [("JFK", 10), ("LAX", None), ("JFK", 5)]:
        driver.send(airports.flights, "SFO", airports.Flight(destination, delay))
    driver.send(airports.flights, "SFOX", airports.Flight("JFK", 100))
    driver.run()
    assert driver.table(airports.routes)["SFO", "JFK"] == airports.Total(2, 15)
    assert driver.outputs(airports.airports)[2].value == airports.Total(3, 15)

    driver = TestDriver(till.app)
    driver.send(till.payments, "ann", 5, headers=[("version", b"1")])
    driver.send(till.payments, "ann", 7)
    driver.run()
    assert driver.table(till.totals) == {"ann": 507}

    driver = TestDriver(scores.app)
    driver.send(scores.texts, "t1", "four")
    driver.run()
    assert [event.value for event in driver.outputs(scores.scores)] == [4.0]
