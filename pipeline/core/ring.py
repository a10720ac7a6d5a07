"""The ring of a group: which worker runs which task. Pure: equal inputs give equal assignments in every process.

Consistent hashing with virtual nodes (Karger et al., 1997) and bounded loads (Mirrokni, Thorup and
Zadimoghaddam, 2016), with the tightest possible bound: a worker's load is its share rounded down or up, so
max - min <= 1 between workers of equal weight. With such a tight bound, an assignment by the members alone would move
far more tasks than necessary when a worker joins or leaves, because a task whose worker is full displaces others. So
the current owners are also an input:

    1 a worker keeps the tasks that it owns, up to its share
    2 it gives up the tasks beyond its share for which it comes last on the ring
    3 a task without an owner walks the ring from its own point to the first worker with room

This moves the minimum number of tasks. Without owners, it is consistent hashing with bounded loads.

Each group has its own ring, because not every worker runs every group. A worker whose share was rounded down in one
group has priority in the next groups. So the total loads over all groups are also balanced, even if each group has a
single task.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b

from pipeline.errors import InvariantError

__all__ = ["RING_VERSION", "VIRTUAL_NODES", "Ring", "assign", "exact_shares", "moves", "shares"]

RING_VERSION = 2
VIRTUAL_NODES = 64


def _point(kind: str, name: str, number: int = 0) -> int:
    """A point on the ring: 64 bits of BLAKE2b, equal on every machine."""
    text = f"{kind}\0{name}\0{number}".encode()
    return int.from_bytes(blake2b(text, digest_size=8, person=b"xj-ring").digest(), "big")


@lru_cache(maxsize=4096)
def _points_of(worker: str, weight: int) -> tuple[int, ...]:
    """The points of a worker. Cached, because nearly all workers are the same when one joins or leaves."""
    return tuple(_point("worker", worker, number) for number in range(VIRTUAL_NODES * weight))


class Ring:
    """The points of the workers. A weight of 2 gives twice as many points and twice the share."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        if any(weight < 1 for weight in weights.values()):
            raise InvariantError("the weight of a worker must be 1 or more")
        self.weights = dict(sorted(weights.items()))
        places = sorted(
            (point, worker) for worker, weight in self.weights.items() for point in _points_of(worker, weight)
        )
        self._points = [point for point, _ in places]
        self._workers = [worker for _, worker in places]

    def walk(self, task: str) -> Iterator[str]:
        """Every worker once, in the order in which a walk from the task's point reaches them."""
        start = bisect_right(self._points, _point("task", task))
        seen = set()
        for step in range(len(self._workers)):
            worker = self._workers[(start + step) % len(self._workers)]
            if worker not in seen:
                seen.add(worker)
                yield worker


@lru_cache(maxsize=2)
def _ring_of(weights: tuple[tuple[str, int], ...]) -> Ring:
    """The ring of these workers. Cached, because owners change much more often than workers."""
    return Ring(dict(weights))


def exact_shares(count: int, weights: Mapping[str, int]) -> dict[str, Fraction]:
    """The share of `count` tasks for each worker, by weight, before rounding."""
    total = sum(weights.values())
    return {worker: Fraction(count * weight, total) for worker, weight in weights.items()}


def shares(
    count: int,
    weights: Mapping[str, int],
    owned: Mapping[str, int],
    owed: Mapping[str, Fraction] | None = None,
) -> dict[str, int]:
    """The number of tasks of each worker, for `count` tasks: its exact share, rounded down or up.

    The shares with the largest fractions are rounded up. `owed`: for each worker, its exact shares minus its tasks in
    the groups so far, which is added to the fraction. Among equal fractions, workers that own more than the
    rounded-down share come first, so that rounding alone moves no task; then the order on the ring decides.
    """
    exact = exact_shares(count, weights)
    due = owed or {}
    result = {worker: share.numerator // share.denominator for worker, share in exact.items()}
    order = sorted(
        weights,
        key=lambda worker: (
            result[worker] - exact[worker] - due.get(worker, 0),
            owned.get(worker, 0) <= result[worker],
            _point("share", worker),
            worker,
        ),
    )
    for worker in order[: count - sum(result.values())]:
        result[worker] += 1
    return result


def assign(
    tasks: Collection[str],
    weights: Mapping[str, int],
    owners: Mapping[str, str] | None = None,
    owed: Mapping[str, Fraction] | None = None,
) -> dict[str, str]:
    """The worker of each task of a group.

    `weights`: by worker. `owners`: the current owner by task; it may have left. `owed`: see `shares`.
    Raises InvariantError if there are no workers.
    """
    if not weights:
        raise InvariantError("tasks cannot be assigned without workers")
    ring = _ring_of(tuple(sorted(weights.items())))
    kept: dict[str, list[str]] = defaultdict(list)
    for task in tasks:
        owner = (owners or {}).get(task)
        if owner in ring.weights:
            kept[owner].append(task)
    room = shares(len(tasks), ring.weights, {worker: len(own) for worker, own in kept.items()}, owed)
    result: dict[str, str] = {}
    for worker, own in kept.items():
        if len(own) > room[worker]:
            own.sort(key=lambda task: (_rank(ring, task, worker), _point("task", task), task))
        for task in own[: room[worker]]:
            result[task] = worker
        room[worker] -= min(len(own), room[worker])
    for task in sorted(set(tasks) - result.keys(), key=lambda task: (_point("task", task), task)):
        worker = next(worker for worker in ring.walk(task) if room[worker])
        result[task] = worker
        room[worker] -= 1
    return result


def _rank(ring: Ring, task: str, worker: str) -> int:
    return next(rank for rank, met in enumerate(ring.walk(task)) if met == worker)


def moves(before: Mapping[str, str], after: Mapping[str, str]) -> int:
    """The number of tasks that have another worker in `after`."""
    return sum(after[task] != worker for task, worker in before.items())
