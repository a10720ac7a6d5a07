"""The app of async handlers that worker processes under test run: each call asks a service over a socket.

Names and the port of the service come from the environment. The row of a key is a fold that depends on the order of its
records, and each output has the row after its record.
"""

from __future__ import annotations

import asyncio
import os

from pipeline import App, AsyncContext, Event
from tests.support.checker import made_from
from tests.support.runtime.async_sums import folded

PREFIX = os.environ.get("ASYNC_PREFIX", "async")
PORT = int(os.environ.get("ASYNC_PORT", "0"))
CONCURRENCY = 16

app = App(PREFIX)
numbers = app.topic(f"{PREFIX}-numbers", key=str, value=int)
others = app.topic(f"{PREFIX}-others", key=str, value=int)
sums = app.topic(f"{PREFIX}-sums", key=str, value=tuple[int, int])
rows = app.table("rows", key=str, value=int)


@app.async_handler(others, concurrency=CONCURRENCY, timeout_s=10.0, retries=3, retry_delay_s=0.05)
@app.async_handler(numbers, concurrency=CONCURRENCY, timeout_s=10.0, retries=3, retry_delay_s=0.05)
async def add(event: Event[str, int], ctx: AsyncContext) -> None:
    """Ask the service, which answers after a time that depends on the number; then fold the number into the row."""
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    try:
        writer.write(f"{event.effect_key()} {event.topic} {event.value}\n".encode())
        if not await reader.readline():
            raise ConnectionError("the service has closed the connection")
    finally:
        writer.close()
    row = ctx.row(rows, event)
    row.value = after = folded(row.get(0), event.value)
    await asyncio.sleep(event.value % 5 / 500)
    ctx.send(sums, event.key, (event.value, after), headers=made_from(f"{PREFIX}.main", event))
