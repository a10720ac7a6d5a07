"""Counts the words of posts. Posts have no key, so each word goes through a topic that is keyed by the word."""

from __future__ import annotations

import re
from typing import Any

import faust

from tests.support.faust.naming import name

app = faust.App(name("word-count"), topic_partitions=2)
posts = app.topic(name("posts"), value_type=str, value_serializer="raw")
words = app.topic(name("words"), key_type=str, value_type=str)
counts = app.Table("counts", key_type=str, value_type=int, default=int, partitions=2)


@app.agent(posts)
async def split(stream: Any) -> None:
    async for post in stream:
        for word in re.findall(r"\w+", post.lower()):
            await words.send(key=word, value=word)


@app.agent(words)
async def count(stream: Any) -> None:
    async for word in stream:
        counts[word] += 1
