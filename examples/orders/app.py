"""What customers and countries have paid for: a join of two topics, and two stages behind it.

    orders   \\
               main: join by order -> paid-orders -> customers -> customer-totals -> countries -> country-totals
    payments /

Each stage has a key of its own, so records go to other partitions from stage to stage. ORDERS_SUFFIX is appended to
the app's and all topics' names: `-2` makes it another app, on topics of its own.

Run it with: pipeline worker examples.orders.app:app
"""

from __future__ import annotations

import os

import msgspec

from pipeline import App, Context, Event

SUFFIX = os.environ.get("ORDERS_SUFFIX", "")


class Order(msgspec.Struct, frozen=True):
    """What somebody has ordered."""

    customer: str
    country: str
    cents: int


class Payment(msgspec.Struct, frozen=True):
    """A payment for an order; it may come before the order."""

    cents: int


class Account(msgspec.Struct, frozen=True):
    """An order and what has been paid for it, until the two agree."""

    order: Order | None = None
    paid: int = 0


class Total(msgspec.Struct, frozen=True):
    """Paid orders so far."""

    orders: int = 0
    cents: int = 0


class CustomerTotal(msgspec.Struct, frozen=True):
    """A customer after one more paid order, of `cents`."""

    customer: str
    cents: int
    total: Total


app = App(f"orders{SUFFIX}")
orders = app.topic(f"orders{SUFFIX}", key=str, value=Order)  # by order number
payments = app.topic(f"payments{SUFFIX}", key=str, value=Payment)  # by order number
paid_orders = app.topic(f"paid-orders{SUFFIX}", key=str, value=Order)  # by customer
customer_totals = app.topic(f"customer-totals{SUFFIX}", key=str, value=CustomerTotal)  # by country
country_totals = app.topic(f"country-totals{SUFFIX}", key=str, value=Total)  # by country

accounts = app.table("accounts", key=str, value=Account)

customers = app.group("customers")
by_customer = customers.table("by-customer", key=str, value=Total)

countries = app.group("countries")
by_country = countries.table("by-country", key=str, value=Total)


@app.handler(orders, on_error="dead_letter")
def ordered(event: Event[str, Order], ctx: Context) -> None:
    """Join an order with what has been paid for it already."""
    account = ctx.table(accounts).get(event.key, Account())
    settle(event.key, Account(event.value, account.paid), ctx)


@app.handler(payments, on_error="dead_letter")
def paid(event: Event[str, Payment], ctx: Context) -> None:
    """Join a payment with its order, if that is known."""
    account = ctx.table(accounts).get(event.key, Account())
    settle(event.key, Account(account.order, account.paid + event.value.cents), ctx)


def settle(number: str, account: Account, ctx: Context) -> None:
    """Send an order that is paid, and forget it; else keep what is known."""
    table = ctx.table(accounts)
    if account.order is None or account.paid < account.order.cents:
        table[number] = account
        return
    if number in table:
        del table[number]
    ctx.send(paid_orders, account.order.customer, account.order)


@customers.handler(paid_orders)
def add_to_customer(event: Event[str, Order], ctx: Context) -> None:
    """Keep a customer's total."""
    order, table = event.value, ctx.table(by_customer)
    before = table.get(event.key, Total())
    total = Total(before.orders + 1, before.cents + order.cents)
    table[event.key] = total
    ctx.send(customer_totals, order.country, CustomerTotal(event.key, order.cents, total))


@countries.handler(customer_totals)
def add_to_country(event: Event[str, CustomerTotal], ctx: Context) -> None:
    """Keep a country's total."""
    table = ctx.table(by_country)
    before = table.get(event.key, Total())
    total = Total(before.orders + 1, before.cents + event.value.cents)
    table[event.key] = total
    ctx.send(country_totals, event.key, total)
