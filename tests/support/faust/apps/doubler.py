"""A service over Kafka: a task asks an agent and publishes the answers; a forwarded value is cast to another agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import faust

from tests.support.faust.naming import name

QUESTIONS = 12

app = faust.App(name("doubler"), topic_partitions=2, reply_create_topic=True)
numbers = app.topic(name("numbers"), key_type=str, value_type=int)
answers = app.topic(name("answers"), key_type=str, value_type=int)
kept = app.topic(name("kept"), key_type=str, value_type=int)


@app.agent(value_type=int)
async def double(stream: Any) -> AsyncIterator[int]:
    async for number in stream:
        yield number * 2


@app.agent(key_type=str, value_type=int)
async def keep(stream: Any) -> None:
    async for key, number in stream.items():
        await kept.send(key=key, value=number + 1)


@app.agent(numbers)
async def take(stream: Any) -> None:
    async for key, number in stream.items():
        await keep.cast(number, key=key)


@app.task
async def ask() -> None:
    for number in range(QUESTIONS):
        answer = await double.ask(number)
        await answers.send(key=str(number), value=answer)
