"""When a task commits, as pure rules: the verdict about an open commit, its cost, and how long a poll may wait.

A task that keeps up with its input commits early: soon after its last commit has ended. A task that is behind collects
records for the whole commit interval, because a commit costs the same CPU for one record and for a thousand.

| the open commit | verdict |
| --- | --- |
| is as old as the interval | DUE |
| its task or worker is behind | LATER |
| was opened at this moment: in a test, no time passes while a worker makes a step | LATER |
| the last commit ended less than the rest ago | LATER |
| otherwise | EARLY |

The rest is `REST_SHARE` of the interval, and never less than `TOOK_SHARE` of the time that the last commit took. Kafka
completes a transaction after its commit was answered: a transaction that begins at once may have to wait for that, and
the client then backs off for 20 ms. If brokers are slow, commits become less frequent by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from pipeline.core.records import partition_of

__all__ = ["CommitVerdict", "commit_cost", "due_cost", "poll_wait_s", "rest_s", "verdict"]

REST_SHARE = 0.08
TOOK_SHARE = 0.5
# Measured on one broker: its CPU time for a transaction is 2.9 ms with 1 partition, 9.5 with 16 and 22 with 64.
FREE_PARTITIONS = 8
SAMPLE = 32
WAKE_S = 0.001
LATE_SHARE = 0.1
TURN_S = 0.00002  # what a turn of the worker costs for each task, with a margin


class CommitVerdict(Enum):
    """What the rule says about an open commit."""

    LATER = "later"
    EARLY = "early"
    DUE = "due"


def rest_s(took_s: float, interval_s: float) -> float:
    """The least time between the end of a commit that took `took_s` and the next early commit."""
    return max(REST_SHARE * interval_s, TOOK_SHARE * took_s)


def verdict(
    open_s: float, ended_s: float, took_s: float, interval_s: float, *, behind: bool
) -> CommitVerdict:
    """Whether to commit now.

    Args:
        open_s: The age of the oldest record that is not committed.
        ended_s: How long ago the last commit has ended.
        took_s: How long that commit took.
        interval_s: The commit interval.
        behind: Whether more records wait than are processed.
    """
    if open_s >= interval_s:
        return CommitVerdict.DUE
    if behind or open_s <= 0.0 or ended_s < rest_s(took_s, interval_s):
        return CommitVerdict.LATER
    return CommitVerdict.EARLY


def commit_cost(outputs: Sequence[Sequence[Any]], partitions: Mapping[str, int]) -> float:
    """The cost of a commit for the brokers, relative to one without outputs: it grows with the partitions written.

    Args:
        outputs: (topic, key, ...) of each output. A sample of them is looked at.
        partitions: The number of partitions of each topic; 1 for others.
    """
    sample = outputs[:: max(1, -(-len(outputs) // SAMPLE))]
    found = {
        (topic, partition_of(key, partitions.get(topic, 1)) if key is not None else number)
        for number, (topic, key, *_) in enumerate(sample)
    }
    written = len(found)
    if written < len(outputs) and 2 * written > len(sample):  # the rest of them is probably elsewhere
        written = min(len(outputs), sum(partitions.get(topic, 1) for topic in {topic for topic, _ in found}))
    return 1.0 + written / FREE_PARTITIONS


def due_cost(cost: float, inputs: int) -> float:
    """The cost of a commit of `inputs` input partitions for the limit of all commits. `cost`: by `commit_cost`.

    With one task for each partition, it would be as many commits, each of which costs 1: it never costs more.
    """
    return min(cost, float(max(1, inputs)))


def poll_wait_s(longest_s: float, commit_age_s: float | None, rest_left_s: float | None, tasks: int) -> float:
    """How long a poll may wait for input.

    Neither the end of a commit nor the end of a rest interrupts a poll. So a poll is shorter while it waits for one of
    them, but never so short that the turns of a worker with many tasks cost much.

    Args:
        longest_s: The time-out of other polls.
        commit_age_s: The age of the youngest commit that is under way; None if there is none.
        rest_left_s: How long the next early commit must still wait; None if no records are open.
        tasks: The number of live tasks.
    """
    shortest_s = max(WAKE_S, TURN_S * tasks)
    wait_s = longest_s
    if commit_age_s is not None:
        wait_s = min(wait_s, max(shortest_s, LATE_SHARE * commit_age_s))
    if rest_left_s is not None:
        wait_s = min(wait_s, max(shortest_s, rest_left_s))
    return wait_s
