"""Claims sink tasks, writes the rows of one, and is the only writer of its positions: `claim`, `SinkWriter`.

`claim` makes this process the owner. The numbers are those in its body.

    1 lock all rows of the task, in the order of all transactions. An older owner that is in a transaction ends it first
    2 raise the epoch of all these rows, and name this process in them
    3 commit

`SinkWriter.write` is the commit protocol of sinks.

    1 settle, if the outcome of the last commit is unknown: read this task's rows of positions under a lock
    2 begin
    3 fence: set each position that moves from its last value, with this epoch and process. Exactly one row must match
      for each
    4 write the rows
    5 commit: the commit point

Because 3 comes first, a replaced owner waits for the rows' locks, then finds another epoch, and has written nothing.
Because a claim raises all rows, this holds for whichever partitions the owner has records of, and also if the claimed
task has other partitions than the owner's: another number of tasks. Called from one thread at a time.

| a crash, or a lost connection | before | after |
| --- | --- | --- |
| claim 3 | no row has changed, the older owner continues | all rows have the new epoch; the next owner claims again |
| write 3 or 4 | nothing: the database rolls the transaction back | the same: the transaction is open |
| write 5 | the rows of no partition | rows and positions of all partitions of the batch |
| release | the rows name a process that has ended | the rows name no process; both are the same for the next claim |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.core.inputs import TaskInputs
from pipeline.core.names import TaskId
from pipeline.core.recovery import CommitOutcome
from pipeline.core.sink_positions import (
    Hold,
    InputNow,
    PositionRow,
    check_inputs,
    is_held,
    next_epoch,
    resolve_commit,
    rows_by_input,
)
from pipeline.errors import FatalTaskError, FencedError, PipelineError, SupersededError, UnknownOutcomeError
from pipeline.ports import Step, error_fields, task_fields
from pipeline.ports.databases import OwnWrite, RowsWrite, SinkSession
from pipeline.runtime.environment import Environment
from pipeline.runtime.sinks.sessions import Sessions

__all__ = ["SinkWriter", "claim"]


def claim(
    task: TaskId,
    tasks: int,
    owner: str,
    process: str,
    noted: int,
    inputs: Mapping[str, InputNow],
    sessions: Sessions,
    environment: Environment,
) -> Hold:
    """Claim a task: one transaction raises the epoch of all its rows, which fences all older owners.

    `tasks`: of its group. `noted`: the highest epoch in the notes. `inputs`: by topic. Raises FatalTaskError (the
    positions are lost), ConfigError, SinkUnreachableError, RetriableError, UnknownOutcomeError: claim again.
    """
    names = TaskInputs(task.number, tasks)
    places = names.all({topic: now.partitions for topic, now in inputs.items()})
    environment.steps.reached(Step.SINK_BEFORE_CLAIM, task)
    with sessions.one() as session:
        session.begin()
        rows = session.lock(task, tasks)  # 1
        by_input = rows_by_input(rows, names)
        missing = [place for name, place in places.items() if name not in by_input]
        if missing:
            raise FatalTaskError(
                f"task {task} has no position in {missing[0]} any more",
                hint="restore the table, or start over on purpose: runbooks/sink-positions-lost.md",
            )
        check_inputs(f"task {task}", rows, inputs)
        epoch = next_epoch(rows, noted)
        taken = [row._replace(epoch=epoch, owner=owner, process=process) for row in rows]
        session.put(task.group_id, taken, keep=False)  # 2
        session.commit()  # 3
    environment.steps.reached(Step.SINK_AFTER_CLAIM, task)
    return Hold(task, epoch, process, {name: by_input[name].position for name in places}, tasks)


class SinkWriter:
    """Owns the task's `hold`: the content of its rows of positions after this owner's last commit."""

    def __init__(self, hold: Hold, sessions: Sessions, environment: Environment) -> None:
        self.hold = hold
        self._sessions = sessions
        self._environment = environment
        self._in_doubt: Mapping[str, int] | None = None

    def write(self, after: Mapping[str, int], writes: Sequence[RowsWrite | OwnWrite]) -> Hold:
        """Write rows and move the positions to `after`. Returns the hold afterwards.

        Raises FencedError, SupersededError, RejectedRowsError, ConfigError, FatalTaskError; and SinkUnreachableError,
        RetriableError, UnknownOutcomeError: repeat the same call later.
        """
        task, steps, hold = self.hold.task, self._environment.steps, self.hold
        with self._sessions.one() as session:
            if self._in_doubt is not None and self._settle(session, self._in_doubt):  # 1
                return self._moved(after)
            steps.reached(Step.SINK_BEFORE_BEGIN, task)
            session.begin()  # 2
            if not session.move(hold, after):  # 3
                raise self._lost(session)
            steps.reached(Step.SINK_AFTER_FENCE, task)
            session.write(writes)  # 4
            steps.reached(Step.SINK_AFTER_ROWS, task)
            steps.reached(Step.SINK_DURING_COMMIT, task)
            self._commit(session, after)  # 5
        steps.reached(Step.SINK_AFTER_COMMIT, task)
        return self._moved(after)

    def release(self) -> Hold:
        """Clear the owner in the rows of positions. A failure is ignored, because the next owner fences anyway."""
        hold = self.hold
        try:
            with self._sessions.one() as session:
                session.begin()
                rows = session.lock(hold.task, hold.tasks)
                if is_held(hold, rows_by_input(rows, hold.names)):
                    nobody = [row._replace(owner="", process="") for row in rows]
                    session.put(hold.task.group_id, nobody, keep=False)
                session.commit()
        except PipelineError as error:
            self._environment.log.info("sink_not_released", **task_fields(hold.task), **error_fields(error))
        self._environment.steps.reached(Step.SINK_AFTER_RELEASE, hold.task)
        return hold

    def _commit(self, session: SinkSession, after: Mapping[str, int]) -> None:
        try:
            session.commit()
        except UnknownOutcomeError:
            self._in_doubt = dict(after)
            raise

    def _settle(self, session: SinkSession, after: Mapping[str, int]) -> bool:
        """Whether the commit with the unknown outcome has happened.

        The lock waits for one that is still in progress.
        """
        session.begin()
        rows = self._read(session)
        session.rollback()
        outcome = resolve_commit(self.hold, after, rows)
        self._environment.log.info(
            "sink_commit_settled", **task_fields(self.hold.task), outcome=outcome.value
        )
        if outcome is CommitOutcome.SUPERSEDED:
            raise self._reason(rows)
        self._in_doubt = None
        return outcome is CommitOutcome.COMMITTED

    def _lost(self, session: SinkSession) -> PipelineError:
        return self._reason(self._read(session))

    def _read(self, session: SinkSession) -> dict[str, PositionRow]:
        return rows_by_input(session.lock(self.hold.task, self.hold.tasks), self.hold.names)

    def _reason(self, rows: Mapping[str, PositionRow]) -> PipelineError:
        hold = self.hold
        if is_held(hold, rows):
            return SupersededError(
                f"task {hold.task}: the database does not have the positions that this worker has committed; "
                "it continues from those"
            )
        epochs = sorted({row.epoch for row in rows.values()})
        return FencedError(f"task {hold.task}: its epoch is {hold.seq}, the database has {epochs or 'none'}")

    def _moved(self, after: Mapping[str, int]) -> Hold:
        self.hold = replace(self.hold, positions=dict(after))
        return self.hold
