"""A Faust application with pages, a timer of the leader, a task, a question and a command, for real workers."""

from __future__ import annotations

import os
from typing import Any

import faust
from faust.cli import argument, option

PREFIX = os.environ.get("SUMS_PREFIX", "outside")

app = faust.App(PREFIX, topic_partitions=4, broker=f"kafka://{os.environ.get('FAUST_BROKER', 'localhost')}")
words = app.topic(f"{PREFIX}-words", key_type=str, value_type=str)
counts = app.Table("counts", default=int)


@app.agent(words)
async def count(stream: Any) -> Any:
    """Count words, and answer with the count."""
    async for word in stream:
        counts[word] += 1
        yield counts[word]


@app.timer(0.05, on_leader=True)
async def tick() -> None:
    """Only the leader sends ticks."""
    await words.send(key="tick", value="tick")


@app.task
async def began() -> None:
    """Each worker sends one."""
    await words.send(key="began", value="began")


@app.page("/count/{word}/")
@app.table_route(table=counts, match_info="word")
async def get_count(view: Any, _request: Any, word: str) -> Any:
    """The count, from the worker that owns the word."""
    return view.json({"word": word, "count": counts[word], "leader": app.is_leader()})


@app.page("/words/")
class Words(faust.web.View):
    """Takes words."""

    async def post(self, request: Any) -> Any:
        """Count a word, and answer with its count."""
        posted = await request.json()
        return self.json(await count.ask(posted["word"], key=posted["word"]))


@app.command(argument("word"), option("--times", type=int, default=1))
async def add(self: Any, word: str, times: int) -> None:
    """Count a word several times."""
    for _ in range(times):
        found = await count.ask(word, key=word)
    self.say(f"{word}: {found}")
