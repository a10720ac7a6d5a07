"""The app of the random histories in several versions, and its expected results: `make_app`, `Expected`.

It has two groups; the second reads the outputs of the first. Handlers are not deterministic: each call of `add` takes a
new ticket, stores it, and sends it with the previous ticket. So a table and outputs from two different histories of a
record are detected even if their sums are equal. The input of the first group has ids, some records fail once, some
always, and a table has another type in each version.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import msgspec

from pipeline import App, Batch, Context, Dedup, Event, Table, Topic
from pipeline.api.group import Group
from pipeline.core.records import partition_of
from tests.support.checker import Promise, made_from

__all__ = [
    "FLAKY",
    "KEYS",
    "PANIC",
    "PARTITIONS",
    "POISON",
    "PROMISES",
    "REFUSED",
    "REFUSED_HEADER",
    "ROW",
    "UNREADABLE",
    "Calls",
    "Expected",
    "Input",
    "RandomApp",
    "Seen",
    "Sum",
    "make_app",
]

PARTITIONS = 3
KEYS = ["a", "b", "c", "d", "e", "f"]
POISON = -1  # fails at every attempt
PANIC = -2  # the same, with an error that is not an Exception
REFUSED = -3  # the brokers refuse its output, which cannot be known before
UNREADABLE = -4  # its headers cannot be decoded, so it has no id
REFUSED_HEADER = ("refuse", b"this")
FLAKY = 5  # fails at every other call
ROW = 4  # after this many inputs of a key, its row of recent ones restarts

PROMISES = (
    Promise("random.main", "numbers", "sums", ids=True, row=True),
    Promise("random.second", "sums", "reports", ids=False),
)
tickets = count(1)
Calls = Counter[tuple[int, int]]


class Panic(BaseException):
    """Not an Exception, like the errors of some native libraries."""


class Sum(msgspec.Struct, frozen=True):
    """A key after `count` inputs. `ticket`: of the call that made this; `before`: of the one before it."""

    count: int
    total: int
    ticket: int
    before: int


class Seen(msgspec.Struct, frozen=True):
    """The second group's row of a key."""

    count: int
    ticket: int


@dataclass(frozen=True)
class RandomApp:
    """One version of the app.

    `recent`: which inputs of a key were its last. `counted`: how many, and the versions that have upgraded the row.
    """

    version: int
    app: App
    numbers: Topic[str, int]
    sums: Topic[str, Sum]
    reports: Topic[str, Seen | None]
    totals: Table[str, Sum]
    recent: Table[tuple[str, str], list[int]]
    counted: Table[str, Any]
    followed: Table[str, Seen]


def make_app(version: int, calls: Calls, tasks: Mapping[str, int]) -> RandomApp:
    """`version`: 1 and up; topics and tables have the same names in all. `calls`: of `add`, by partition and offset.

    `tasks`: of each group, at most PARTITIONS.
    """
    app = App("random", tasks=tasks["main"])
    second = app.group("second", tasks=tasks["second"])
    counted_type: Any = msgspec.defstruct(
        "Counted", [(f"count_{version}", int), ("upgraded", tuple[int, ...])], frozen=True
    )

    def upgrade(old: Any) -> Any:
        (before,) = (value for name, value in old.items() if name.startswith("count_"))
        return counted_type(before, (*old["upgraded"], version))

    made = RandomApp(
        version,
        app,
        numbers=app.topic("numbers", key=str, value=int, dedup=Dedup(ttl_s=24 * 3600)),
        sums=app.topic("sums", key=str, value=Sum),
        reports=app.topic("reports", key=str, value=Seen | None),
        totals=app.table("totals", key=str, value=Sum),
        recent=app.table("recent", key=tuple[str, str], value=list[int]),
        counted=app.table("counted", key=str, value=counted_type, upgrade=upgrade),
        followed=second.table("followed", key=str, value=Seen),
    )
    _add_first(made, counted_type, calls)
    _add_second(made, second)
    return made


def _add_first(made: RandomApp, counted_type: Any, calls: Calls) -> None:
    @made.app.handler(made.numbers, on_error="dead_letter", retries=1, retry_delay_s=0.3)
    def add(event: Event[str, int], ctx: Context) -> None:
        """Write and send before raising, so that a failed record has effects to undo."""
        table, ticket = ctx.table(made.totals), next(tickets)
        found = table.get(event.key, Sum(0, 0, 0, 0))
        after = Sum(found.count + 1, found.total + event.value, ticket, found.ticket)
        table[event.key] = after
        headers = [*made_from("random.main", event), *[REFUSED_HEADER] * (event.value == REFUSED)]
        ctx.send(made.sums, event.key, after, headers=headers)
        rows, place = ctx.table(made.recent), (event.key, "recent")
        recent = rows.get(place, [])
        if after.count % ROW:
            row = [*recent, after.count]
            rows[place] = row
            row.append(-1)  # this changes no row
        else:
            del rows[place]
        recent.append(-1)  # nor does this
        counts = ctx.table(made.counted)
        old: Any = counts.get(event.key, counted_type(0, ()))
        counts[event.key] = counted_type(getattr(old, f"count_{made.version}") + 1, old.upgraded)
        calls[event.partition, event.offset] += 1
        if event.value == POISON or (event.value == FLAKY and calls[event.partition, event.offset] % 2):
            raise ValueError("cannot be processed")
        if event.value == PANIC:
            raise Panic


def _add_second(made: RandomApp, second: Group) -> None:
    @second.batch_handler(made.sums)
    def follow(batch: Batch[str, Sum], ctx: Context) -> None:
        """Report each sum; every third report is a tombstone."""
        table = ctx.table(made.followed)
        for event in batch:
            found = table.get(event.key, Seen(0, 0))
            after = Seen(found.count + 1, event.value.ticket)
            table[event.key] = after
            reported = after if after.count % 3 else None
            ctx.send(made.reports, event.key, reported, headers=made_from("random.second", event))


class Input(NamedTuple):
    """A record of `numbers`."""

    key: str
    value: int
    event_id: bytes


class _Result(NamedTuple):
    """The result of a record: a sum of its key, or, with `letter`, its offset in a dead letter."""

    key: str
    inputs: int
    total: int
    letter: int | None


@dataclass
class _History:
    """A partition since a reset of its task: its start, and its number of results at the next reset."""

    start: int
    results: int | None = None


@dataclass
class Expected:
    """The inputs and resets, and the expected results."""

    inputs: list[list[Input]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    histories: list[list[_History]] = field(
        default_factory=lambda: [[_History(0)] for _ in range(PARTITIONS)]
    )

    def sent(self, one: Input) -> None:
        """Record an input."""
        self.inputs[partition_of(one.key.encode(), PARTITIONS)].append(one)

    def reset(self, partition: int, start: int, results: int) -> None:
        """Record that the task restarts at offset `start`, after this many results in total."""
        histories = self.histories[partition]
        histories[-1].results = results - sum(history.results or 0 for history in histories[:-1])
        histories.append(_History(start))

    def check(self, partition: int, sums: Mapping[str, Sequence[Sum]], letters: Sequence[int]) -> bool:
        """Check that the results are those of the first inputs in each history. Returns whether all are there.

        `sums` by key, in order; `letters`: offsets of the dead letters, in order. Detects an
        output that was committed without its predecessor, its table or its dead letter.
        """
        found = {key: list(values) for key, values in sums.items()}
        letters = list(letters)
        left = sum(map(len, found.values())) + len(letters)
        done = False
        for history in self.histories[partition]:
            due = list(self._results(partition, history.start))
            number = left if history.results is None else history.results
            assert number <= len(due), f"{number} results of {len(due)} in partition {partition}"
            left -= number
            done = number == len(due)
            tickets_of: dict[str, int] = defaultdict(int)
            for key, made, total, letter in due[:number]:
                if letter is not None:
                    assert letters, f"the letter of {letter} is missing"
                    assert letters.pop(0) == letter
                    continue
                assert found.get(key), f"sum {made} of {key} is missing"
                one = found[key].pop(0)
                assert (one.count, one.total, one.before) == (made, total, tickets_of[key]), key
                tickets_of[key] = one.ticket
        assert not letters
        assert not any(found.values()), found
        return done

    def tables(self) -> dict[str, tuple[int, int]]:
        """(count, total) by key, after all inputs are processed."""
        return {
            result.key: (result.inputs, result.total)
            for partition, histories in enumerate(self.histories)
            for result in self._results(partition, histories[-1].start)
            if result.letter is None
        }

    def _results(self, partition: int, start: int) -> Iterator[_Result]:
        """The expected results. A failed record stores no id, so its duplicate fails again."""
        ids: set[bytes] = set()
        sums: dict[str, tuple[int, int]] = {}
        for offset, (key, value, event_id) in enumerate(self.inputs[partition][start:], start):
            if event_id in ids:
                continue
            if value in {POISON, PANIC, REFUSED, UNREADABLE}:
                yield _Result(key, 0, 0, offset)
                continue
            ids.add(event_id)
            made, total = sums.get(key, (0, 0))
            sums[key] = made + 1, total + value
            yield _Result(key, made + 1, total + value, None)
