"""Events with their headers: filtered, copied to a topic, forwarded as they are, and sent without waiting."""

from __future__ import annotations

from typing import Any

import faust

from tests.support.faust.naming import name

app = faust.App(name("click-paths"), topic_partitions=2)


class Click(faust.Record):
    user: str
    path: str
    number: int


clicks = app.topic(name("path-clicks"), key_type=str, value_type=Click)
copies = app.topic(name("copies"), key_type=str, value_type=Click)
bought = app.topic(name("bought"), key_type=str, value_type=Click)
paths = app.topic(name("paths"), key_type=str, value_serializer="json")
steps = app.Table("steps", key_type=str, default=list, partitions=2)


@app.agent(clicks)
async def follow(stream: Any) -> None:
    async for event in stream.echo(copies).events():
        click = event.value
        if click.path == "/buy":
            await event.forward(bought)
        path = [*steps[click.user], click.path][-3:]
        steps[click.user] = path
        tests = dict(event.headers or {}).get("test") == b"yes"
        paths.send_soon(key=event.key, value={"path": path, "test": tests})
