"""The estimated memory of decoded values, compared with what Python allocates."""

from __future__ import annotations

import enum
import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from sys import getsizeof

import msgspec
import pytest

from pipeline.api.footprint import footprint


class Point(msgspec.Struct, frozen=True):
    """Two numbers and a text."""

    x: int
    y: float
    name: str


@dataclass(frozen=True)
class Pair:
    """Two texts."""

    left: str
    right: str


class Colour(enum.Enum):
    """Members are shared."""

    RED = "red"


MAKERS: dict[str, Callable[[int], object]] = {
    "int": lambda n: n + 1_000,
    "text": lambda n: f"a text of some length with number {n}",
    "bytes": lambda n: b"%d" % n * 20,
    "struct": lambda n: Point(n + 1_000, n / 7, f"name {n}"),
    "dataclass": lambda n: Pair(f"left {n}", f"right {n}"),
    "tuple": lambda n: tuple(range(n + 1_000, n + 1_100)),
    "dict": lambda n: {f"key {n} {i}": n / 7 + i for i in range(8)},
    "nested": lambda n: tuple(Point(n + 1_000 + i, n / 7 + i, f"name {n} {i}") for i in range(5)),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_the_estimate_is_near_what_is_allocated(kind: str) -> None:
    """The budget of the cache is worth what its estimate is worth."""
    make = MAKERS[kind]
    gc.collect()
    tracemalloc.start()
    try:
        values = [make(number) for number in range(1_000)]
        allocated = tracemalloc.get_traced_memory()[0] - getsizeof(values)
    finally:
        tracemalloc.stop()
    assert sum(map(footprint, values)) == pytest.approx(allocated, rel=0.25)


@pytest.mark.parametrize("value", [None, True, Colour.RED, int])
def test_shared_objects_count_nothing(value: object) -> None:
    """A million values may refer to one of them."""
    assert footprint(value) == 0


def test_a_large_container_is_measured_by_its_first_parts() -> None:
    """The measurement must not take longer than the handler."""
    values = tuple(range(1_000, 1_000_000))
    assert footprint(values) == pytest.approx(8 * len(values) + 28 * len(values), rel=0.1)
