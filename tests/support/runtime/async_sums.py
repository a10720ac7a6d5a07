"""An app of async handlers over two inputs, whose rows show every lost, repeated or misplaced write: `AsyncSums`.

The row of a key is a fold that depends on the order of its records. Each output has the row after its record. So the
committed outputs alone tell whether each call saw exactly what the calls before it wrote.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import NamedTuple

from pipeline import App, AsyncContext, Event, OnError
from pipeline.config import WorkerSettings
from pipeline.testing import TestDriver
from tests.support.checker import made_from

__all__ = ["AsyncSums", "Call", "folded"]

GROUP = "async.main"
FOREVER_S = 1e9


class Call(NamedTuple):
    """What the handler does with a record.

    `delay_s`: how long it waits. `failures`: how often it raises. `hangs`: it never returns by itself. `swallows`: it
    returns when it is cancelled, as if nothing had happened.
    """

    key: str
    delay_s: float = 0.0
    failures: int = 0
    hangs: bool = False
    swallows: bool = False

    def succeeds(self, retries: int) -> bool:
        return self.failures <= retries and not self.hangs and not self.swallows


def folded(row: int, number: int) -> int:
    """The next row of a key."""
    return (row * 31 + number + 1) % 1_000_003


class AsyncSums:
    """`calls`: by the value of a record. `attempts`: so far, by the same."""

    def __init__(
        self,
        *,
        retries: int = 0,
        on_error: OnError = "dead_letter",
        concurrency: int = 8,
        timeout_s: float = 3.0,
        tasks: int | None = None,
        partitions: int = 1,
        settings: WorkerSettings | None = None,
        seed: int = 0,
        deferred: bool = False,
    ) -> None:
        self.retries = retries
        self.app = App("async", tasks=tasks)
        self.numbers = self.app.topic("numbers", key=str, value=int)
        self.others = self.app.topic("others", key=str, value=int)
        self.sums = self.app.topic("sums", key=str, value=tuple[int, int])
        self.rows = self.app.table("rows", key=str, value=int)
        self.calls: list[Call] = []
        self.attempts = Counter[int]()
        self.running: list[int] = []  # in the order of their start
        self.most = 0  # calls that ran at once
        for topic in (self.numbers, self.others):
            self.app.async_handler(
                topic,
                retries=retries,
                retry_delay_s=0.5,
                on_error=on_error,
                concurrency=concurrency,
                timeout_s=timeout_s,
            )(self.handle)
        self.driver = TestDriver(
            self.app, partitions=partitions, settings=settings, seed=seed, deferred=deferred
        )
        self.driver.run()  # live, and nothing to do

    async def handle(self, event: Event[str, int], ctx: AsyncContext) -> None:
        """Write and send before every wait and error."""
        call, running = self.calls[event.value], self.running
        assert call.key not in [self.calls[number].key for number in running], "two calls of one key"
        running.append(event.value)
        self.most = max(self.most, len(running))
        try:
            await self._handle(call, event, ctx)
        finally:
            running.remove(event.value)

    async def _handle(self, call: Call, event: Event[str, int], ctx: AsyncContext) -> None:
        row = ctx.row(self.rows, event)
        row.value = after = folded(row.get(0), event.value)
        ctx.send(self.sums, event.key, (event.value, after), headers=made_from(GROUP, event))
        self.attempts[event.value] += 1
        await asyncio.sleep(call.delay_s)
        if call.hangs:
            await asyncio.sleep(FOREVER_S)
        if call.swallows:
            try:
                await asyncio.sleep(FOREVER_S)
            except asyncio.CancelledError:
                return
        if self.attempts[event.value] <= call.failures:
            raise ConnectionError("the service is unreachable")

    def send(self, *calls: Call, other: bool = False, partition: int | None = None) -> None:
        """Send a record for each call."""
        for call in calls:
            self.calls.append(call)
            topic = self.others if other else self.numbers
            self.driver.send(topic, call.key, len(self.calls) - 1, partition=partition)

    def turn(self, steps: int = 1, seconds: float = 0.1) -> None:
        """Some turns of the worker, with time between them."""
        for _ in range(steps):
            self.driver.step()
            self.driver.clock.advance(seconds)

    def crash(self, *, empty_disk: bool = False) -> None:
        self.driver.crash()
        self.running = []
        self.driver.restart(empty_disk=empty_disk)

    @property
    def handled(self) -> list[int]:
        """The numbers of the committed outputs, in order."""
        return [event.value[0] for event in self.driver.outputs(self.sums)]

    def check(self) -> None:
        """Each call that succeeds has one output; outputs and rows are a fold, in the order of each input."""
        rows: dict[int, dict[str, int]] = defaultdict(dict)
        last: dict[tuple[str, int], int] = {}
        for event in self.driver.outputs(self.sums):
            number, after = event.value
            topic, partition, offset = place_of(event)
            own = rows[partition]
            own[event.key] = folded(own.get(event.key, 0), number)
            assert after == own[event.key], f"{number} did not see what was written before it"
            assert last.get((topic, partition), -1) < offset, f"{topic} {offset} is not in its order"
            last[topic, partition] = offset
        expected = [n for n, call in enumerate(self.calls) if call.succeeds(self.retries)]
        assert sorted(self.handled) == expected
        stored = self.driver.table_by_partition(self.rows)
        assert {p: found for p, found in stored.items() if found} == dict(rows)


def place_of(output: Event[str, tuple[int, int]]) -> tuple[str, int, int]:
    """Topic, partition and offset of the record that an output was made from."""
    (made,) = (value for _, value in output.headers if value is not None)
    _, topic, partition, offset = made.decode().split(" ")
    return topic, int(partition), int(offset)
