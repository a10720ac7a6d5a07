"""The expected results of the programs, folded from their inputs in Kafka. Does not import the package."""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from tests.support.checker.log import Record
from tests.support.checker.tracing import trace_of
from tests.support.compat.topics import Input

__all__ = ["Main", "Stretch", "Tallies", "check_sums", "expected_main", "expected_tallies", "firsts"]

BLOBS = 5
BLOB_BYTES = 150_000

Rows = dict[Any, Any]


class Stretch(NamedTuple):
    """The group `counting` has read a partition from `start` to `end` under a schema. `reset`: its table was empty."""

    partition: int
    schema: int
    start: int
    end: int
    reset: bool = False


class Main(NamedTuple):
    """The tables of the group `main`, as `table show --json` prints them, and how many inputs were repeated."""

    totals: Rows
    toggles: Rows
    blobs: Rows
    repeats: int


class Tallies(NamedTuple):
    """The results of the group `counting`: outputs by key, and its table."""

    outputs: dict[str, list[int]]
    table: Rows


def expected_main(partitions: Sequence[Sequence[Input]]) -> Main:
    """The tables after every refused record was replayed. None depends on the order of a key's inputs."""
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    toggles: Counter[tuple[str, int]] = Counter()
    blobs: Rows = {}
    repeats = 0
    for inputs in partitions:
        found = firsts(inputs)
        repeats += len(inputs) - len(found)
        for each in found:
            totals[each.key][0] += 1
            totals[each.key][1] += each.n
            toggles[each.key, each.n % 5] += 1
            if each.n % 200 == 50:
                for number in range(BLOBS):
                    blob = f"{each.n}.{number};".encode().ljust(BLOB_BYTES, b"-")
                    blobs[each.n * BLOBS + number] = base64.b64encode(blob).decode()
    return Main(
        {key: {"count": count, "total": total} for key, (count, total) in totals.items()},
        {key: {"count": 1, "total": key[1]} for key, times in toggles.items() if times % 2},
        blobs,
        repeats,
    )


def check_sums(partitions: Sequence[Sequence[Input]], outputs: Sequence[Sequence[Record]]) -> list[str]:
    """The errors of the sums: each input must have one, and each must continue the previous one of its key."""
    due = {(each.partition, each.offset): each for inputs in partitions for each in firsts(inputs)}
    problems = []
    sums: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for record in (record for records in outputs for record in records):
        trace = trace_of(record)
        each = due.pop((trace.partition, trace.offset), None) if trace is not None else None
        if each is None:
            problems.append(f"{trace} has a sum too many")
            continue
        count, total = sums[each.key]
        sums[each.key] = count + 1, total + each.n
        found = msgspec.json.decode(record.value or b"")
        if found != {"count": count + 1, "total": total + each.n} or record.key != each.key.encode():
            problems.append(f"{trace}: {found} follows ({count}, {total}) of {each.key}")
    return problems + [f"{each} has no sum" for each in due.values()]


def expected_tallies(partitions: Sequence[Sequence[Input]], stretches: Sequence[Stretch]) -> Tallies:
    """The outputs of each key in order; the table in the schema of the last stretch."""
    outputs: dict[str, list[int]] = defaultdict(list)
    table: Rows = {}
    for number, inputs in enumerate(partitions):
        counts: Counter[str] = Counter()
        since: dict[str, int] = {}
        seen: set[str] = set()
        schema = 1
        for stretch in (each for each in stretches if each.partition == number):
            if stretch.reset:
                counts.clear()
                since.clear()
                seen.clear()
            schema = stretch.schema
            for each in _unrepeated((i for i in inputs if stretch.start <= i.offset < stretch.end), seen):
                counts[each.key] += 1
                since.setdefault(each.key, schema)
                outputs[each.key].append(counts[each.key])
        name = {2: "count", 3: "times"}.get(schema)
        table.update({key: {name: n, "since": since[key]} if name else n for key, n in counts.items()})
    return Tallies(dict(outputs), table)


def firsts(inputs: Sequence[Input]) -> list[Input]:
    """A partition's inputs without those whose ids are repeated."""
    return list(_unrepeated(inputs, set()))


def _unrepeated(inputs: Iterable[Input], seen: set[str]) -> Iterator[Input]:
    """The inputs whose ids were not seen before."""
    for each in inputs:
        if each.id not in seen:
            seen.add(each.id)
            yield each
