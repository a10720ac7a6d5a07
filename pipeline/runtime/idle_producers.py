"""Closes the producers of tasks that have been idle for long: `IdleProducers`.

A producer costs about four threads, a megabyte and its connections, also while it is idle. A group of an earlier
release has one task for each partition, and may have hundreds of them in a worker. `KEPT` producers stay open: with
as many tasks as a new group has, nothing is closed.

    1 idle: a task has committed nothing for IDLE_S, nothing is in progress, and more than KEPT producers are open
    2 close its producer, on the executor; no transaction is open
    3 the next commit of the task looks for another owner: without a fence, which would end that owner's work
    4 it opens a producer, fences, and reads the journal, as after any failed commit (`transactions/outcomes.py`)

| step | a crash before it leaves | a crash after it leaves |
| --- | --- | --- |
| 2 close | a live task; the next owner fences it | the same, without a client |
| 3 look | the state at the last entry; the next owner processes the records again | the same |
| 4 fence and read | the same | the same; no open transaction, and no older producer that can commit |

While the producer is closed, another worker may take the task. The check of idle tasks (`Maintenance`) finds its entry,
as for each idle task. If a record arrives first, 3 finds it. If both are too early, the read in 4 finds it. A task that
is released while its producer is closed gets no release entry, as after a kill: to open hundreds of producers would
delay the stop. Its last entry has been applied.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.names import TaskId
from pipeline.runtime.environment import Environment
from pipeline.runtime.group_run import GroupRun
from pipeline.runtime.task.task import Task

__all__ = ["IDLE_S", "KEPT", "IdleProducers"]

IDLE_S = 300.0  # the first commit afterwards takes up to a second longer
KEPT = 32
AT_ONCE = 8  # so that the other steps of the executor do not wait long


class IdleProducers:
    """Processing thread only. A call every few seconds is enough."""

    def __init__(self, runs: Sequence[GroupRun], environment: Environment) -> None:
        self._runs = runs
        self._environment = environment
        self._idle: dict[
            tuple[TaskId, int], float
        ] = {}  # since when tasks are idle after the entry of this seq

    def turn(self) -> None:
        """Close the producers of the tasks that have been idle for longest, if too many are open."""
        now = self._environment.clock.monotonic_s()
        open_ones = [
            task
            for run in self._runs
            for task in run.tasks.values()
            if isinstance(task, Task) and not task.producer_closed
        ]
        idle = {(task.id, task.applied.seq): task for task in open_ones if task.idle}
        self._idle = {place: self._idle.get(place, now) for place in idle}
        due = sorted((since, place) for place, since in self._idle.items() if now - since >= IDLE_S)
        closed = due[: max(0, min(len(open_ones) - KEPT, AT_ONCE))]
        for _, place in closed:
            idle[place].close_producer()
        if closed:
            self._environment.log.info("idle_producers_closed", count=len(closed))
