"""Results do not depend on the number of tasks: each partition has the same outputs, rows, dead letters and ids."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import App, Batch, Context, Dedup, Event
from pipeline.config import WorkerSettings
from pipeline.testing import Step, TestDriver
from tests.support.runtime.steps import OWNER_STEPS

PARTITIONS = 10
COUNTS = [1, 2, 5, PARTITIONS]
BAD, LUCKY_AT_THE_THIRD_TRY = 13, 17


@dataclass(frozen=True)
class Sent:
    """A record to send. `topic`: 0 drops duplicates, 1 is processed in batches."""

    topic: int
    partition: int
    key: str
    value: int
    id: int


class Sums:
    """An app that reads and writes rows of other keys than the record's, and all rows of its partition."""

    def __init__(self) -> None:
        self.app = app = App("sums")
        self.numbers = app.topic("numbers", key=str, value=int, dedup=Dedup(ttl_s=3600))
        self.more = app.topic("more", key=str, value=int)
        self.out = app.topic("out", key=str, value=int)
        self.sums = app.table("sums", key=str, value=int)
        self.tries: dict[Any, int] = defaultdict(int)
        app.handler(self.numbers, on_error="dead_letter", retries=3, retry_delay_s=0.01)(self.add)
        app.batch_handler(self.more, on_error="skip")(self.add_all)

    def add(self, event: Event[str, int], ctx: Context) -> None:
        if event.value == BAD:
            raise ValueError("unlucky")
        place = event.partition, event.offset
        if event.value == LUCKY_AT_THE_THIRD_TRY:
            self.tries[place] += 1
            if self.tries[place] < 3:
                raise ValueError("not yet")
        table = ctx.table(self.sums)
        table["of all"] = table.get("of all", 0) + event.value
        table[event.key] = table.get(event.key, 0) + event.value
        total = sum(value for _, value in table.items())
        ctx.send(self.out, event.key, total, headers=[("from", f"numbers/{event.partition}".encode())])

    def add_all(self, batch: Batch[str, int], ctx: Context) -> None:
        table = ctx.table(self.sums)
        for event in batch:
            if event.value == BAD:
                raise ValueError("unlucky")
            # A sum of one row by one topic: how two topics interleave is not determined.
            table[f"more {event.key}"] = table.get(f"more {event.key}", 0) + event.value
            ctx.send(self.out, event.key, event.value, headers=[("from", f"more/{event.partition}".encode())])


records = st.lists(
    st.builds(
        Sent,
        topic=st.just(0),
        partition=st.integers(0, PARTITIONS - 1),
        key=st.sampled_from("abc"),
        value=st.sampled_from([1, 2, 3, BAD, LUCKY_AT_THE_THIRD_TRY]),
        id=st.integers(0, 40),
    )
    | st.builds(
        Sent,
        topic=st.just(1),
        partition=st.integers(0, PARTITIONS - 1),
        key=st.sampled_from("abc"),
        value=st.sampled_from([1, 2, BAD]),
        id=st.just(0),
    ),
    max_size=30,
)
crashes = st.lists(st.tuples(st.sampled_from(OWNER_STEPS), st.integers(1, 12), st.booleans()), max_size=3)


def results(tasks: int | None, sent: list[Sent], crashes: list[tuple[Step, int, bool]]) -> Any:
    """What each partition has after all records, with a crash at each of `crashes`."""
    sums = Sums()
    driver = TestDriver(
        sums.app,
        partitions=PARTITIONS,
        tasks=tasks,
        settings=WorkerSettings(worker_id="w", max_records_per_commit=7, max_poll_records=3),
    )
    half = len(sent) // 2
    for part in (sent[:half], sent[half:]):
        for each in part:
            topic = sums.more if each.topic else sums.numbers
            event_id = None if each.topic else str(each.id).encode()
            driver.send(topic, each.key, each.value, partition=each.partition, event_id=event_id)
        for step, nth, empty_disk in crashes:
            driver.crash_at(step, nth=nth)
            driver.run()
            driver.restart(empty_disk=empty_disk)
        for _ in range(30):  # retries are due later
            driver.run()
            driver.clock.advance(0.1)
    outputs, letters = defaultdict(list), defaultdict(list)
    for event in driver.outputs(sums.out):
        outputs[dict(event.headers)["from"], event.partition].append((event.key, event.value))
    for letter in driver.dead_letters():
        origin = dict(letter.headers)
        letters[origin["dead-letter-topic"], origin["dead-letter-partition"]].append(
            origin["dead-letter-offset"]
        )
    rows = driver.table_by_partition(sums.sums)
    return dict(outputs), {key: sorted(map(str, found)) for key, found in letters.items()}, rows


def only_first_topic(sent: list[Sent]) -> list[Sent]:
    return [each for each in sent if each.topic == 0]


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_one_history_has_the_same_results_for_each_number_of_tasks(tasks: int) -> None:
    """Without a search: two records of each partition, before and after a crash and a lost disk."""
    sent = [
        Sent(0, partition, key, value, value * PARTITIONS + partition)
        for key, value in (("a", 1), ("b", 2))
        for partition in range(PARTITIONS)
    ]
    crashes = [(Step.AFTER_COMMIT, 3, True)]
    assert results(tasks, sent, crashes) == results(None, sent, [])


@settings(max_examples=6, deadline=None)
@given(records)
def test_results_do_not_depend_on_the_number_of_tasks(sent: list[Sent]) -> None:
    """Otherwise a state could never be split, and an app would work in a test and not in production."""
    sent = only_first_topic(sent)
    expected = results(None, sent, [])
    for tasks in COUNTS:
        assert results(tasks, sent, []) == expected, tasks


@settings(max_examples=12, deadline=None)
@given(records, crashes, st.sampled_from(COUNTS))
def test_crashes_do_not_change_results(
    sent: list[Sent], crashes: list[tuple[Step, int, bool]], tasks: int
) -> None:
    """A commit of several partitions is visible for all of them or for none."""
    sent = only_first_topic(sent)
    assert results(tasks, sent, crashes) == results(None, sent, [])


@pytest.mark.parametrize("tasks", COUNTS)
def test_batches_contain_records_of_one_partition(tasks: int) -> None:
    """A batch handler that raises leaves its partition without writes, and no other."""
    sent = [Sent(1, partition, "a", BAD if partition == 3 else 2, 0) for partition in range(PARTITIONS)]
    outputs, _, rows = results(tasks, sent, [])
    assert sorted(outputs) == sorted({(f"more/{p}".encode(), out) for (p, out) in _places(outputs)})
    assert rows == {p: {} if p == 3 else {"more a": 2} for p in range(PARTITIONS)}


def _places(outputs: dict[tuple[bytes, int], Any]) -> list[tuple[int, int]]:
    return [(int(name.removeprefix(b"more/")), out) for name, out in outputs]
