"""The jobs as apps of this package: `pipeline worker benchmarks.peers.programs.ours:app`, with default settings."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from benchmarks.peers.programs.plan import Mark, Plan, read_plan
from pipeline import App, Batch, Context, Dedup, Event

__all__ = ["app"]

DAY_S = 24 * 3600


class Payment(msgspec.Struct, frozen=True, omit_defaults=True):
    """An input."""

    number: int
    amount: int
    branch: str
    note: str = ""


class Balance(msgspec.Struct, frozen=True):
    """A row: the running sum of a key."""

    total: int
    count: int


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """An output."""

    number: int
    total: int
    count: int
    note: str = ""


NOTHING = Balance(0, 0)


def _running_sum(app: App, plan: Plan) -> None:
    dedup: Dedup[str, Payment] | None = Dedup(ttl_s=DAY_S) if plan.job == "dedup" else None
    payments = app.topic(plan.source, key=str, value=Payment, dedup=dedup)
    results = app.topic(plan.target, key=str, value=Result)
    sums = app.table("sums", key=str, value=Balance)
    mark = Mark(plan)

    @app.handler(payments)
    def add(event: Event[str, Payment], ctx: Context) -> None:
        table, payment = ctx.table(sums), event.value
        before = table.get(event.key, NOTHING)
        after = Balance(before.total + payment.amount, before.count + 1)
        table[event.key] = after
        ctx.send(results, event.key, Result(payment.number, after.total, after.count, payment.note))
        mark.left -= 1
        if not mark.left:
            mark.write()


def _two_stages(app: App, plan: Plan) -> None:
    payments = app.topic(plan.source, key=str, value=Payment)
    by_branch = app.topic(plan.middle, key=str, value=Payment)
    results = app.topic(plan.target, key=str, value=Result)
    accounts = app.table("accounts", key=str, value=Balance)
    branches = app.group("branches")
    sums = branches.table("sums", key=str, value=Balance)
    mark = Mark(plan)

    @app.handler(payments)
    def add(event: Event[str, Payment], ctx: Context) -> None:
        table = ctx.table(accounts)
        before = table.get(event.key, NOTHING)
        table[event.key] = Balance(before.total + event.value.amount, before.count + 1)
        ctx.send(by_branch, event.value.branch, event.value)

    @branches.handler(by_branch)
    def add_branch(event: Event[str, Payment], ctx: Context) -> None:
        table, payment = ctx.table(sums), event.value
        before = table.get(event.key, NOTHING)
        after = Balance(before.total + payment.amount, before.count + 1)
        table[event.key] = after
        ctx.send(results, event.key, Result(payment.number, after.total, after.count))
        mark.left -= 1
        if not mark.left:
            mark.write()


def _batch(app: App, plan: Plan) -> None:
    payments = app.topic(plan.source, key=str, value=Payment)
    results = app.topic(plan.target, key=str, value=Balance)
    sums = app.table("sums", key=str, value=Balance)
    mark = Mark(plan)

    @app.batch_handler(payments)
    def add(batch: Batch[str, Payment], ctx: Context) -> None:
        totals: dict[str, int] = {}
        counts: dict[str, int] = {}
        for key, payment in zip(batch.keys, batch.values, strict=True):
            totals[key] = totals.get(key, 0) + payment.amount
            counts[key] = counts.get(key, 0) + 1
        table = ctx.table(sums)
        for key, total in totals.items():
            before = table.get(key, NOTHING)
            after = Balance(before.total + total, before.count + counts[key])
            table[key] = after
            ctx.send(results, key, after)
        mark.count(sum(counts.values()))


_JOBS: dict[str, Callable[[App, Plan], None]] = {
    "sum": _running_sum,
    "dedup": _running_sum,
    "two-stages": _two_stages,
    "batch": _batch,
}


def _made() -> App:
    plan = read_plan()
    made = App(plan.name)
    _JOBS[plan.job](made, plan)
    return made


app = _made()
