"""Senders outside of agents: a timer, a timer of the leader alone, a crontab, a task and a command. An agent counts.

While the file $FAUST_QUIET exists, they send nothing, so that all that was sent before can be counted.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import faust
from faust.cli import option

from tests.support.faust.naming import name

QUIET = Path(os.environ.get("FAUST_QUIET", "/nonexistent"))

app = faust.App(name("schedule"), topic_partitions=2)


class Tick(faust.Record):
    sender: str
    number: int


ticks = app.topic(name("ticks"), key_type=str, value_type=Tick)
seen = app.topic(name("seen"), key_type=str, value_type=Tick)
totals = app.Table("tick-totals", key_type=str, value_type=int, default=int, partitions=2)


def is_quiet() -> bool:
    return QUIET.exists()


async def tick(sender: str, number: int = 0) -> None:
    if not is_quiet():
        await ticks.send(key=sender, value=Tick(sender, number))


@app.agent(ticks)
async def count(stream: Any) -> None:
    async for each in stream:
        totals[each.sender] += 1
        await seen.send(key=each.sender, value=Tick(each.sender, totals[each.sender]))


@app.timer(interval=0.3)
async def often() -> None:
    await tick("timer")


@app.timer(interval=0.3, on_leader=True)
async def only_one() -> None:
    if app.is_leader():
        await tick("leader")


@app.crontab("* * * * *")
async def every_minute() -> None:
    await tick("crontab")


@app.on_worker_init.connect
def prepare(app: Any, **kwargs: Any) -> None:
    app.prepared = True


@app.task
async def once() -> None:
    if app.prepared:
        await tick("task")


@app.command(option("--number", type=int, default=7, help="the number that is sent"))
async def send_one(self: Any, number: int) -> None:
    """Send one tick by hand."""
    await tick("command", number)
    self.say(f"sent {number}")
