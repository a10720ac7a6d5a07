"""The demonstration's judge: it must see what it is there to see."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from examples.flights.outputs import Outputs, TopicPartition
from examples.flights.reference import Expected, Fields
from examples.flights.verdict import Verdict

FIRST: Fields = {"n": 1}
SECOND: Fields = {"n": 2}
ROWS: dict[tuple[int, str], object] = {(0, "a"): SECOND, (1, "b"): FIRST}


def _expected() -> Expected:
    return Expected(
        flights=3,
        outputs={"tail-hops": {"a": [FIRST, SECOND], "b": [FIRST]}},
        tables={"latest": {"a": SECOND, "b": FIRST}},
    )


def _found() -> Outputs:
    found = Outputs(("tail-hops",))
    encode = msgspec.json.encode
    found.values["tail-hops"] = {"a": [encode(FIRST), encode(SECOND)], "b": [encode(FIRST)]}
    found.where["tail-hops"] = {"a": {0}, "b": {1}}
    return found


def test_outputs_equal_to_the_fold_are_exact() -> None:
    """Else every run would fail."""
    verdict = Verdict(_expected())
    verdict.outputs("live", _found())
    assert verdict.exact


def _lose(found: Outputs) -> None:
    found.values["tail-hops"]["a"].pop()


def _double(found: Outputs) -> None:
    found.values["tail-hops"]["b"] *= 2


def _swap(found: Outputs) -> None:
    found.values["tail-hops"]["a"].reverse()


def _misplace(found: Outputs) -> None:
    found.where["tail-hops"]["a"].add(1)


def _lose_key(found: Outputs) -> None:
    del found.values["tail-hops"]["b"]
    del found.where["tail-hops"]["b"]


@pytest.mark.parametrize(
    ("damage", "lost", "duplicated"),
    [(_lose, 1, 0), (_double, 0, 1), (_swap, 0, 0), (_misplace, 0, 0), (_lose_key, 1, 0)],
)
def test_whatever_is_wrong_with_outputs_is_seen(
    damage: Callable[[Outputs], None], lost: int, duplicated: int
) -> None:
    """A judge that sees nothing finds everything exact."""
    found = _found()
    damage(found)
    verdict = Verdict(_expected())
    verdict.outputs("live", found)
    assert (verdict.lost, verdict.duplicated, verdict.wrong) == (lost, duplicated, 1)
    assert not verdict.exact


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        (ROWS, 0),
        ({**ROWS, (0, "a"): FIRST}, 1),  # an old copy
        ({(0, "a"): SECOND}, 1),  # a lost row
        ({**ROWS, (0, "b"): FIRST}, 1),  # a row with a task that never had the key
    ],
)
def test_a_row_that_is_old_lost_or_with_the_wrong_task_is_seen(
    rows: dict[tuple[int, str], object], wrong: int
) -> None:
    """Rows live with the worker that owns their task, and nowhere else."""
    verdict = Verdict(_expected())
    verdict._table("latest", "tails", rows, _found().where["tail-hops"])
    assert verdict.wrong == wrong


def test_the_longest_pause_is_of_one_partition_and_lies_in_the_time_asked_for() -> None:
    """What was before a fault is not its doing; and another partition's outputs do not hide a pause."""
    outputs = Outputs(("tail-hops",))
    quiet, busy = TopicPartition("tail-hops", 0), TopicPartition("tail-hops", 1)
    outputs.arrivals[quiet] = [(0.0, 1), (50.0, 2), (53.0, 3), (53.5, 4)]
    outputs.arrivals[busy] = [(at / 10, at) for at in range(600)]
    assert outputs.longest_pause_s([quiet, busy], 51.0, 54.0) == 3.0
    assert outputs.longest_pause_s([quiet], 51.0, 60.0) == 6.5  # it has not gone on yet
    assert outputs.first_beyond(quiet, 2) == 53.0
    assert outputs.first_beyond(quiet, 4) is None
