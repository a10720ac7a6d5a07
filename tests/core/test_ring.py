"""The ring: balanced, moving no more than it must, and the same everywhere."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.ring import Ring, assign, moves, shares
from pipeline.errors import InvariantError
from tests.support.core.ring_golden import PATH, cases

workers = st.integers(1, 200)
counts = st.integers(1, 4_096)


def named(count: int) -> dict[str, int]:
    return {f"worker-{number}": 1 for number in range(count)}


def tasks_of(count: int) -> list[str]:
    return [f"app/main/{number}" for number in range(count)]


def loads(assigned: dict[str, str], members: dict[str, int]) -> list[int]:
    counted = Counter(assigned.values())
    return [counted[worker] for worker in members]


@settings(max_examples=30, deadline=None)
@given(counts, workers)
def test_loads_differ_by_one_at_most(count: int, members: int) -> None:
    """The slowest worker decides how far an app is behind."""
    found = loads(assign(tasks_of(count), named(members)), named(members))
    assert sum(found) == count
    assert max(found) - min(found) <= 1


@settings(max_examples=30, deadline=None)
@given(counts, workers, st.randoms(use_true_random=False))
def test_a_join_moves_only_what_the_new_worker_gets(count: int, members: int, rng: random.Random) -> None:
    """Every move is a pause of that task, and a restore."""
    tasks, before = tasks_of(count), named(members)
    owners = assign(tasks, before)
    after = assign(tasks, {**before, "new": rng.randint(1, 1)}, owners)
    assert moves(owners, after) == sum(worker == "new" for worker in after.values())
    assert max(loads(after, {**before, "new": 1})) - min(loads(after, {**before, "new": 1})) <= 1


@settings(max_examples=30, deadline=None)
@given(counts, st.integers(2, 200), st.randoms(use_true_random=False))
def test_a_leave_moves_only_what_the_worker_had(count: int, members: int, rng: random.Random) -> None:
    """The others never stop."""
    tasks, before = tasks_of(count), named(members)
    owners = assign(tasks, before)
    gone = rng.choice(list(before))
    rest = {worker: weight for worker, weight in before.items() if worker != gone}
    after = assign(tasks, rest, owners)
    assert moves(owners, after) == sum(worker == gone for worker in owners.values())
    assert max(loads(after, rest)) - min(loads(after, rest)) <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.lists(st.integers(0, 9), max_size=12), st.randoms(use_true_random=False))
def test_whatever_happens_the_result_is_at_rest_and_balanced(
    count: int, events: list[int], rng: random.Random
) -> None:
    """After any joins and leaves, the assignment depends only on the members: no task moves without need."""
    tasks, members = tasks_of(count), named(3)
    owners = assign(tasks, members)
    for event in events:
        name = f"worker-{event}"
        if name in members and len(members) > 1:
            del members[name]
        else:
            members[name] = 1
        owners = assign(tasks, members, owners)
        assert assign(tasks, members, owners) == owners
        shuffled = tasks[:]
        rng.shuffle(shuffled)
        assert assign(shuffled, dict(reversed(members.items())), owners) == owners
        assert max(loads(owners, members)) - min(loads(owners, members)) <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(2, 12), st.randoms(use_true_random=False))
def test_a_change_that_is_half_done_leads_to_the_same_end(
    count: int, members: int, rng: random.Random
) -> None:
    """Workers see moves one by one, each at another time; what they work towards must not change meanwhile."""
    tasks, before = tasks_of(count), named(members)
    owners = assign(tasks, before)
    after = {**before, "new": 1}
    target = assign(tasks, after, owners)
    half = {task: target[task] if rng.random() < 0.5 else owner for task, owner in owners.items()}
    assert assign(tasks, after, half) == target


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 500), st.dictionaries(st.text("abcdef", min_size=1), st.integers(1, 8), min_size=1))
def test_shares_follow_weights(count: int, weights: dict[str, int]) -> None:
    """A machine twice as large takes twice as much, give or take less than one task."""
    counted = Counter(assign(tasks_of(count), weights).values())
    total = sum(weights.values())
    for worker, weight in weights.items():
        assert abs(counted[worker] - count * weight / total) < 1
    assert sum(shares(count, weights, {}).values()) == count


def test_a_task_whose_owner_is_gone_goes_to_the_next_on_its_way() -> None:
    """That is what makes it consistent hashing: the place of a task decides, not the order of events."""
    tasks, members = tasks_of(40), named(5)
    owners = assign(tasks, members)
    rest = {worker: 1 for worker in members if worker != "worker-2"}
    after = assign(tasks, rest, owners)
    ring = Ring(rest)
    moved = [task for task in tasks if owners[task] == "worker-2"]
    at_first_choice = [task for task in moved if after[task] == next(ring.walk(task))]
    assert len(at_first_choice) >= len(moved) / 4


def test_the_answer_is_the_same_as_ever() -> None:
    """Workers of different releases and Python versions run side by side in a rolling upgrade.

    `python -m tests.support.core.ring_golden` writes the file anew; that needs a new RING_VERSION.
    """
    assert json.loads(PATH.read_text()) == cases()


def test_the_answer_does_not_depend_on_the_process() -> None:
    """Python's own hash differs from process to process."""
    code = "from tests.support.core.ring_golden import cases; import json; print(json.dumps(cases()))"
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]


def test_no_worker_and_no_task_are_told_apart() -> None:
    """An empty group of workers is a mistake of the caller; an app without tasks is not."""
    assert assign([], named(3)) == {}
    with pytest.raises(InvariantError):
        assign(["t"], {})
    with pytest.raises(InvariantError):
        assign(["t"], {"w": 0})
