"""The visitors who are in each room: sets that grow, shrink and are emptied."""

from __future__ import annotations

from typing import Any

import faust

from tests.support.faust.naming import name

app = faust.App(name("visitors"), topic_partitions=2)


class Visit(faust.Record):
    room: str
    visitor: str
    action: str


visits = app.topic(name("visits"), key_type=str, value_type=Visit)
present = app.topic(name("present"), key_type=str, value_type=int)
rooms = app.SetTable("rooms", key_type=str, value_type=str, partitions=2)


@app.agent(visits)
async def follow(stream: Any) -> None:
    async for visit in stream:
        room = rooms[visit.room]
        if visit.action == "enter":
            room.add(visit.visitor)
        elif visit.action == "leave":
            room.discard(visit.visitor)
        elif visit.action == "group":
            room.update({visit.visitor, visit.visitor + "-guest"})
        else:
            room.clear()
        await present.send(key=visit.room, value=len(room))
