"""Decides on applications for credit by the limit of the account, which is in another topic.

An application that is read before its account waits in a table.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import faust

from tests.support.faust.naming import name

app = faust.App(name("credit-checks"), topic_partitions=2)


class Account(faust.Record, coerce=True):  # type: ignore[call-arg]
    account: str
    limit: Decimal


class Application(faust.Record, coerce=True):  # type: ignore[call-arg]
    account: str
    number: int
    amount: Decimal


class Credit(faust.Record, coerce=True):  # type: ignore[call-arg]
    limit: Decimal
    used: Decimal


class Decision(faust.Record, coerce=True):  # type: ignore[call-arg]
    account: str
    number: int
    granted: bool
    left: Decimal


accounts = app.topic(name("accounts"), key_type=str, value_type=Account)
applications = app.topic(name("applications"), key_type=str, value_type=Application)
decisions = app.topic(name("decisions"), value_type=Decision)
credits_used = app.Table("credits", key_type=str, value_type=Credit, partitions=2)
waiting = app.Table("waiting", key_type=str, partitions=2)


def decide(application: Application) -> Decision:
    """Grant the amount if the limit allows it."""
    credit = credits_used[application.account]
    granted = credit.used + application.amount <= credit.limit
    if granted:
        credit.used += application.amount
        credits_used[application.account] = credit
    return Decision(application.account, application.number, granted, credit.limit - credit.used)


@app.agent(accounts, sink=[decisions])
async def open_account(stream: Any) -> AsyncIterator[Decision]:
    async for account in stream:
        credits_used[account.account] = Credit(account.limit, Decimal(0))
        for application in waiting.pop(account.account, []):
            yield decide(Application.from_data(application))


@app.agent(applications, sink=[decisions])
async def apply(stream: Any) -> AsyncIterator[Decision]:
    async for application in stream:
        if application.account in credits_used:
            yield decide(application)
        else:
            before = waiting.get(application.account, [])
            waiting[application.account] = [*before, application.asdict()]
