"""When a task commits: a test for each row of the rules."""

from __future__ import annotations

import pytest

from pipeline.core.commit_pace import CommitVerdict, commit_cost, due_cost, poll_wait_s, rest_s, verdict

LATER, EARLY, DUE = CommitVerdict
INTERVAL_S = 0.1


@pytest.mark.parametrize(
    ("open_s", "ended_s", "took_s", "behind", "expected"),
    [
        (0.001, 1.000, 0.004, False, EARLY),  # the first record after a pause
        (0.000, 1.000, 0.004, False, LATER),  # in a test, no time passes in a step
        (0.001, 0.008, 0.004, False, EARLY),  # the rest has just ended
        (0.007, 0.007, 0.004, False, LATER),  # it has not
        (0.015, 0.019, 0.040, False, LATER),  # after a slow commit, the rest is half of its time
        (0.015, 0.020, 0.040, False, EARLY),
        (0.000, 1.000, 0.004, True, LATER),  # behind: the whole interval
        (0.099, 1.000, 0.004, True, LATER),
        (0.100, 0.000, 0.004, True, DUE),
        (0.100, 0.000, 0.400, False, DUE),  # opened during a commit that took long: due at its end, as before
    ],
)
def test_when_an_open_commit_may_begin(
    open_s: float, ended_s: float, took_s: float, behind: bool, expected: CommitVerdict
) -> None:
    """Too early costs CPU time for each record, too late is latency."""
    assert verdict(open_s, ended_s, took_s, INTERVAL_S, behind=behind) is expected


def test_a_short_interval_needs_no_early_commits() -> None:
    """Settings that asked for a low latency before keep their meaning."""
    assert verdict(0.002, 0.0, 0.01, 0.002, behind=True) is DUE


def test_the_rest_grows_with_the_interval() -> None:
    """So a longer interval still means fewer commits, also for a task that keeps up."""
    assert rest_s(0.0, 1.0) == 10 * rest_s(0.0, 0.1) == pytest.approx(0.08)


@pytest.mark.parametrize(
    ("outputs", "partitions", "expected"),
    [
        ([], {}, 1),
        ([("out", b"k")], {"out": 8}, 1 + 1 / 8),
        ([("out", b"k")] * 1_000, {"out": 8}, 1 + 1 / 8),  # one key is in one partition
        ([("out", b"k-%d" % n) for n in range(1_000)], {"out": 8}, 2),
        ([("out", b"k-%d" % n) for n in range(10_000)], {"out": 1_000}, 1 + 1_000 / 8),  # extrapolated
        ([("out", b"k-%d" % n) for n in range(40)], {"out": 1_000}, 1 + 40 / 8),  # not more than outputs
        ([("out", None)] * 16, {"out": 64}, 3),  # without a key, each may be in another partition
        ([("a", b"k"), ("b", b"k")] * 8, {"a": 8, "b": 8}, 1 + 2 / 8),
        ([("letters", b"k-%d" % n) for n in range(9)], {}, 1 + 1 / 8),  # an unknown topic counts once
    ],
)
def test_the_cost_of_a_commit(
    outputs: list[tuple[str, bytes | None]], partitions: dict[str, int], expected: float
) -> None:
    """The brokers' work for a transaction grows with the partitions that it writes."""
    assert commit_cost(outputs, partitions) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("cost", "inputs", "expected"),
    [
        (1.0, 1, 1.0),
        (9.0, 1, 1.0),  # one partition: as with one task for each partition
        (9.0, 2, 2.0),  # at most what two commits would have cost
        (5.0, 32, 5.0),
        (1.0, 32, 1.0),  # no outputs: only the journal is written
        (1.0, 0, 1.0),  # positions only
    ],
)
def test_the_cost_of_a_commit_that_is_due(cost: float, inputs: int, expected: float) -> None:
    """Fewer tasks must not cost the brokers more, and must not lower the limit either."""
    assert due_cost(cost, inputs) == expected


@pytest.mark.parametrize(
    ("commit_age_s", "rest_left_s", "tasks", "expected"),
    [
        (None, None, 4, 0.005),  # idle: the setting
        (0.000, None, 4, 0.001),  # a commit is under way
        (0.030, None, 4, 0.003),  # late by at most a tenth of its duration
        (0.200, None, 4, 0.005),  # a slow broker: no busy polling
        (0.000, None, 100, 0.002),  # the turns of many tasks cost more
        (0.000, None, 300, 0.005),
        (None, 0.003, 4, 0.003),  # a task rests
        (None, 0.000, 4, 0.001),
        (None, -1.00, 4, 0.001),
        (0.000, 0.003, 4, 0.001),
        (0.200, 0.500, 4, 0.005),
    ],
)
def test_how_long_a_poll_waits(
    commit_age_s: float | None, rest_left_s: float | None, tasks: int, expected: float
) -> None:
    """Long polls delay a commit, and short ones cost CPU time."""
    assert poll_wait_s(0.005, commit_age_s, rest_left_s, tasks) == pytest.approx(expected)


def test_a_poll_time_out_below_the_shortest_is_kept() -> None:
    """`poll_timeout_ms = 0` polls without waiting."""
    assert poll_wait_s(0.0, 0.0, 0.0, 4) == 0.0
