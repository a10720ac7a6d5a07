"""The three best players after each game, from all rows of a table. One partition has all players."""

from __future__ import annotations

from typing import Any

import faust

from tests.support.faust.naming import name

app = faust.App(name("leaderboard"), topic_partitions=1)
games = app.topic(name("games"), key_type=str, value_type=int, partitions=1)
leaders = app.topic(name("leaders"), value_serializer="json", partitions=1)
points = app.Table("points", key_type=str, value_type=int, default=int, partitions=1)


@app.agent(games)
async def play(stream: Any) -> None:
    async for player, won in stream.items():
        points[player] += won
        if points[player] < 0:
            del points[player]
        best = sorted(points.items(), key=lambda row: (-row[1], row[0]))[:3]
        await leaders.send(value={"players": len(points), "best": best})
