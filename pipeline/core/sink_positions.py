"""The positions of a sink group in its database: the meaning of the rows, and the outcome of a commit. Pure.

A sink group has no journal. The source of truth is the table `pipeline_positions`, with a row for each partition of
each input topic. The transaction that writes the rows of records also moves these positions, and only if the task's
owner has the newest epoch.

A row names its partition, not its task. So each start of a group may choose another number of tasks. A claim raises the
epoch of all rows of its task in one transaction. So an older owner is fenced, whichever of these positions it moves
next, also if its task had other partitions. All transactions lock rows in the order of `PositionRow`, so that two tasks
of different numbers, which share rows, do not deadlock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from pipeline.core.inputs import TaskInputs
from pipeline.core.names import TaskId, TopicPartition
from pipeline.core.recovery import CommitOutcome
from pipeline.core.suggestions import are, counted
from pipeline.errors import ConfigError, FatalTaskError, InvariantError

__all__ = [
    "Hold",
    "InputNow",
    "PositionRow",
    "SinkPlan",
    "check_inputs",
    "is_held",
    "next_epoch",
    "plan_positions",
    "resolve_commit",
    "rows_by_input",
]


class PositionRow(NamedTuple):
    """One row of `pipeline_positions`. `position`: the next offset to read.

    `epoch` increases with each owner. `owner`, `process`: the task's owner; empty if it has none. `topic_id`,
    `cluster_id`, `partitions`: the topic that the position belongs to.
    """

    topic: str
    partition: int
    position: int
    epoch: int
    owner: str
    process: str
    topic_id: str
    cluster_id: str
    partitions: int


class InputNow(NamedTuple):
    """The current state of an input topic in the cluster."""

    topic_id: str
    cluster_id: str
    partitions: int


@dataclass(frozen=True, slots=True)
class Hold:
    """A task as its owner knows it.

    `seq`: its epoch. `positions`: by input (`core/inputs.py`), after its last commit. `tasks`: the number of tasks of
    the group in this worker.
    """

    task: TaskId
    seq: int
    process: str
    positions: Mapping[str, int]
    tasks: int

    @property
    def names(self) -> TaskInputs:
        """The names of the task's inputs."""
        return TaskInputs(self.task.number, self.tasks)

    def moves(self, after: Mapping[str, int]) -> list[tuple[TopicPartition, int, int]]:
        """The positions that move, from where and to where, in the order in which their rows are locked.

        Raises InvariantError if none moves: nothing would fence such a commit.
        """
        names = self.names
        found = sorted(
            (names.place(name), position, after[name])
            for name, position in self.positions.items()
            if after[name] != position
        )
        if not found:
            raise InvariantError(f"task {self.task}: a commit that moves no position is not fenced")
        return found


def rows_by_input(rows: Collection[PositionRow], names: TaskInputs) -> dict[str, PositionRow]:
    """The rows of one task, by the names of its inputs. Rows of other tasks are left out."""
    return {
        names.name(TopicPartition(row.topic, row.partition)): row
        for row in rows
        if row.partition % names.tasks == names.number
    }


class SinkPlan(Enum):
    """What a worker does about a group's rows when it starts."""

    CREATE = "create"
    PRESENT = "present"


def next_epoch(rows: Collection[PositionRow], noted: int) -> int:
    """The epoch of a new owner. `noted`: the highest epoch in the workers' notes.

    A database that was restored from a backup may hold a lower epoch, and no epoch may be used twice.
    """
    return max([noted, *(row.epoch for row in rows)]) + 1


def is_held(hold: Hold, rows: Mapping[str, PositionRow]) -> bool:
    """Whether the owner still owns the task. `rows`: by input.

    The process is compared, too: epochs can repeat after a restored backup.
    """
    return all(
        name in rows and (rows[name].epoch, rows[name].process) == (hold.seq, hold.process)
        for name in hold.positions
    )


def resolve_commit(hold: Hold, after: Mapping[str, int], rows: Mapping[str, PositionRow]) -> CommitOutcome:
    """The outcome of the commit that moves `hold.positions` to `after`. `rows`: the current rows, read under a lock.

    row  epoch, process   positions   outcome
    1    another's        any         SUPERSEDED
    2    ours             after       COMMITTED
    3    ours             as before   ABORTED
    4    ours             otherwise   SUPERSEDED (the database lost commits: read them again)
    """
    if dict(after) == dict(hold.positions):
        raise InvariantError(f"task {hold.task}: a commit that moves no position cannot be told from none")
    if not is_held(hold, rows):
        return CommitOutcome.SUPERSEDED
    now = {name: rows[name].position for name in hold.positions}
    if now == dict(after):
        return CommitOutcome.COMMITTED
    return CommitOutcome.ABORTED if now == dict(hold.positions) else CommitOutcome.SUPERSEDED


def check_inputs(where: str, rows: Collection[PositionRow], inputs: Mapping[str, InputNow]) -> None:
    """Refuse positions that belong to other topics than the current ones. Raises ConfigError."""
    for row in rows:
        now = inputs.get(row.topic)
        if now is None:
            continue  # the group no longer reads it; the row stays, for a group that reads it again
        if row.cluster_id != now.cluster_id:
            raise ConfigError(
                f"{where} has its positions in Kafka cluster {row.cluster_id}, this is {now.cluster_id}",
                hint="connect to its own cluster, or start over in this one: pipeline reset (docs/how-to/sinks.md)",
            )
        if row.topic_id != now.topic_id:
            raise ConfigError(
                f"{where}: topic {row.topic} was deleted and created again; old positions are not valid "
                "in the new topic",
                hint="follow runbooks/topic-recreated.md",
            )
        if row.partitions != now.partitions:
            raise ConfigError(
                f"{where}: topic {row.topic} had {counted(row.partitions, 'partition')} and has {now.partitions}: "
                "the rows of a key would come from two tasks, in any order",
                hint="follow runbooks/partitions-changed.md",
            )


def plan_positions(
    where: str,
    rows: Sequence[PositionRow],
    inputs: Mapping[str, InputNow],
    traces: Sequence[str],
) -> tuple[SinkPlan, list[TopicPartition]]:
    """Decide whether a group is new or known, and which rows to create. One transaction creates the rows of all tasks.

    `traces`: evidence that the group existed before.

        row  rows of the group       traces   plan
        1    none                    none     CREATE
        2    none                    some     error: the positions are lost
        3    of all inputs           any      PRESENT
        4    of some inputs          any      CREATE those of the added inputs
        5    of part of an input     any      error: some positions are lost
    """
    check_inputs(where, rows, inputs)
    known = {(row.topic, row.partition) for row in rows}
    hint = "restore the table, or start over on purpose: runbooks/sink-positions-lost.md"
    if not rows and traces:
        raise FatalTaskError(
            f"{where} existed before ({traces[0]}), but its database has no positions of it", hint=hint
        )
    missing: list[TopicPartition] = []
    for topic, now in sorted(inputs.items()):
        absent = [TopicPartition(topic, p) for p in range(now.partitions) if (topic, p) not in known]
        if absent and len(absent) < now.partitions:
            raise FatalTaskError(
                f"{where}: of {now.partitions} positions in topic {topic}, {len(absent)} "
                f"{are(len(absent))} missing, {absent[0]} first",
                hint=hint,
            )
        missing += absent
    return (SinkPlan.CREATE if missing else SinkPlan.PRESENT), missing
