"""Three agents in a row: yielded values go to a topic, to another agent and to a function."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import faust

from tests.support.faust.naming import name

app = faust.App(name("chain"), topic_partitions=2)


class Text(faust.Record):
    author: str
    text: str


class Length(faust.Record):
    author: str
    characters: int


texts = app.topic(name("texts"), key_type=str, value_type=Text)
cleaned = app.topic(name("cleaned"), value_type=Text)
lengths = app.topic(name("lengths"), key_type=str, value_type=Length)
longest = app.topic(name("longest"), key_type=str, value_type=Length)


async def publish_longest(length: Length) -> None:
    """A function as a sink."""
    if length.characters >= 10:
        await longest.send(key=length.author, value=length)


@app.agent(value_type=Length)
async def announce(stream: Any) -> None:
    async for length in stream:
        await lengths.send(key=length.author, value=length)


@app.agent(cleaned, sink=[announce, publish_longest])
async def measure(stream: Any) -> AsyncIterator[Length]:
    async for text in stream:
        yield Length(text.author, len(text.text))


@app.agent(texts, sink=[cleaned])
async def clean(stream: Any) -> AsyncIterator[Text]:
    async for text in stream:
        if text.text.strip():
            yield Text(text.author, " ".join(text.text.split()))
