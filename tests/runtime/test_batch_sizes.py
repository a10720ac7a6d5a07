"""How many records a batch handler gets at once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipeline import App, Batch, Context, Event
from pipeline.config import WorkerSettings
from pipeline.testing import TestDriver

POLL, BATCH = 10, 40


class Sizes:
    """An app that notes the sizes of the batches of `rows`. `mixed`: another topic has a plain handler."""

    def __init__(self, *, mixed: bool = False, poll: int = POLL, batch: int = BATCH) -> None:
        self.app = App("sizes", tasks=1)
        self.rows = self.app.topic("rows", key=str, value=bytes)
        self.others = self.app.topic("others", key=str, value=bytes)
        self.seen: list[int] = []
        self.app.batch_handler(self.rows)(self.note)
        if mixed:
            self.app.handler(self.others)(self.ignore)
        settings = WorkerSettings(worker_id="test", max_poll_records=poll, max_batch_records=batch)
        self.driver = TestDriver(self.app, settings=settings)

    def note(self, batch: Batch[str, bytes], _ctx: Context) -> None:
        self.seen.append(len(batch))

    @staticmethod
    def ignore(_event: Event[str, bytes], _ctx: Context) -> None:
        pass

    def sizes_of(self, records: int, value: bytes = b"") -> Sequence[int]:
        """The sizes of the batches in which so many waiting records are processed."""
        for number in range(records):
            self.driver.send(self.rows, f"k{number % 3}", value)
        self.driver.run()
        return self.seen


def test_batches_are_larger_while_records_wait() -> None:
    """An aggregating handler writes a row for each key of a batch, so fewer batches are fewer writes."""
    assert Sizes().sizes_of(POLL + 2 * BATCH + 5) == [POLL, BATCH, BATCH, 5]


def test_a_batch_is_as_small_as_before_when_records_no_longer_wait() -> None:
    """A large poll without need would make a worker's first answer late."""
    sizes = Sizes()
    sizes.sizes_of(POLL + BATCH + 1)
    sizes.seen.clear()
    assert sizes.sizes_of(POLL + 1) == [POLL, 1]


def test_no_batch_is_larger_than_the_setting() -> None:
    """A handler may send a batch to a service that accepts no more."""
    assert Sizes(poll=100, batch=7).sizes_of(20) == [7, 7, 6]
    assert Sizes(poll=100, batch=7, mixed=True).sizes_of(20) == [7, 7, 6]


def test_a_group_with_plain_handlers_has_polls_of_the_usual_size() -> None:
    """They process a record at a time, and would only commit later."""
    assert Sizes(mixed=True).sizes_of(25) == [10, 10, 5]


@pytest.mark.parametrize(("kib", "size"), [(512, 16), (256, 32), (900, POLL)])
def test_large_values_make_smaller_batches(kib: int, size: int) -> None:
    """Batches of large values would take the memory of the process: a larger poll has at most 8 MiB of values."""
    assert Sizes().sizes_of(POLL + size, bytes(kib * 1024)) == [POLL, size]
