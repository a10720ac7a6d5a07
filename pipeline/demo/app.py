"""The app of `pipeline demo`: accepts or refuses payments, and keeps the balance of each account.

A withdrawal is refused if the balance is too small, so a result depends on the order of the account's payments: a
payment that is lost, processed twice or reordered changes later results.
"""

from __future__ import annotations

import msgspec

from pipeline import App, Context, Event

__all__ = ["Account", "Payment", "Result", "accounts", "app", "payments", "results"]


class Payment(msgspec.Struct, frozen=True):
    """One payment. `number`: unique in the run. `cents`: negative for a withdrawal."""

    number: int
    cents: int


class Account(msgspec.Struct, frozen=True):
    """The state of an account, in cents."""

    payments: int = 0
    refused: int = 0
    balance: int = 0


class Result(msgspec.Struct, frozen=True):
    """What happened to the payment `number`, and the account's balance after it."""

    number: int
    accepted: bool
    balance: int


app = App("demo")
payments = app.topic("demo-payments", key=str, value=Payment)
results = app.topic("demo-results", key=str, value=Result)
accounts = app.table("accounts", key=str, value=Account)


@app.handler(payments)
def pay(event: Event[str, Payment], ctx: Context) -> None:
    """Apply one payment to the account that is the key."""
    table = ctx.table(accounts)
    before = table.get(event.key, Account())
    balance = before.balance + event.value.cents
    accepted = balance >= 0
    if not accepted:
        balance = before.balance
    table[event.key] = Account(before.payments + 1, before.refused + (not accepted), balance)
    ctx.send(results, event.key, Result(event.value.number, accepted, balance))
