"""Writes the rows of one sink task: the only one who moves its positions.

`write` is the sink's commit protocol; a numbered step below is a numbered comment in the body.

    1 settle, when the last commit's outcome is unknown: read our rows, locked; what they say has happened
    2 begin
    3 fence: each position moves from where it was, under our epoch and process: exactly one row a topic, or stop
    4 rows
    5 commit: the commit point

A crash before 5 leaves an open transaction, which the database rolls back; a crash after it leaves rows and
positions together. Since 3 comes first, an owner that was followed by another waits for the row's lock and then finds
another epoch: it has written nothing. Called from one thread at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

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
)
from pipeline.errors import FatalTaskError, FencedError, PipelineError, SupersededError, UnknownOutcomeError
from pipeline.ports import Step
from pipeline.ports.databases import OwnWrite, RowsWrite, SinkSession
from pipeline.runtime.environment import Environment
from pipeline.runtime.sinks.sessions import Sessions

__all__ = ["SinkWriter", "claim"]


def claim(
    task: TaskId,
    owner: str,
    process: str,
    noted: int,
    inputs: Mapping[str, InputNow],
    sessions: Sessions,
    environment: Environment,
) -> Hold:
    """Take a task: one transaction that raises its epoch, which fences every older owner.

    `noted`: the highest epoch that was heard of. A crash before the commit changes nothing; after it, the next owner
    does the same. Raises FatalTaskError (the positions are gone), ConfigError, SinkUnreachableError, RetriableError,
    UnknownOutcomeError: claim again.
    """
    environment.steps.reached(Step.SINK_BEFORE_CLAIM, task)
    with sessions.one() as session:
        session.begin()
        rows = session.lock(task)
        by_topic = {row.topic: row for row in rows}
        missing = [topic for topic in inputs if topic not in by_topic]
        if missing:
            raise FatalTaskError(
                f"task {task} has no position in topic {missing[0]} any more",
                hint="restore the table, or begin again on purpose: runbooks/sink-positions-lost.md",
            )
        check_inputs(f"task {task}", rows, inputs)
        epoch = next_epoch(rows, noted)
        taken = [row._replace(epoch=epoch, owner=owner, process=process) for row in rows]
        session.put(task.group_id, taken, keep=False)
        session.commit()
    environment.steps.reached(Step.SINK_AFTER_CLAIM, task)
    return Hold(task, epoch, process, {topic: by_topic[topic].position for topic in inputs})


class SinkWriter:
    """Owns the task's `hold`: what its rows say, as far as this owner has moved them."""

    def __init__(self, hold: Hold, sessions: Sessions, environment: Environment) -> None:
        self.hold = hold
        self._sessions = sessions
        self._environment = environment
        self._in_doubt: Mapping[str, int] | None = None

    def write(self, after: Mapping[str, int], writes: Sequence[RowsWrite | OwnWrite]) -> Hold:
        """Write rows and move the positions to `after`; the hold afterwards.

        Raises FencedError, SupersededError, RejectedRowsError, ConfigError, FatalTaskError; and SinkUnreachableError,
        RetriableError, UnknownOutcomeError: the same call is to be made again, later.
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
        """Let the rows say that nobody has the task. What cannot be said is left: the next owner fences anyway."""
        hold = self.hold
        try:
            with self._sessions.one() as session:
                session.begin()
                rows = session.lock(hold.task)
                if is_held(hold, {row.topic: row for row in rows}):
                    nobody = [row._replace(owner="", process="") for row in rows]
                    session.put(hold.task.group_id, nobody, keep=False)
                session.commit()
        except PipelineError as error:
            self._environment.log.info("sink_not_released", task=str(hold.task), reason=error.message)
        self._environment.steps.reached(Step.SINK_AFTER_RELEASE, hold.task)
        return hold

    def _commit(self, session: SinkSession, after: Mapping[str, int]) -> None:
        try:
            session.commit()
        except UnknownOutcomeError:
            self._in_doubt = dict(after)
            raise

    def _settle(self, session: SinkSession, after: Mapping[str, int]) -> bool:
        """Whether the commit in doubt has happened. The lock waits for one that is still on its way."""
        session.begin()
        rows = self._read(session)
        session.rollback()
        outcome = resolve_commit(self.hold, after, rows)
        self._environment.log.info("sink_commit_settled", task=str(self.hold.task), outcome=outcome.value)
        if outcome is CommitOutcome.SUPERSEDED:
            raise self._reason(rows)
        self._in_doubt = None
        return outcome is CommitOutcome.COMMITTED

    def _lost(self, session: SinkSession) -> PipelineError:
        return self._reason(self._read(session))

    def _read(self, session: SinkSession) -> dict[str, PositionRow]:
        return {row.topic: row for row in session.lock(self.hold.task)}

    def _reason(self, rows: Mapping[str, PositionRow]) -> PipelineError:
        hold = self.hold
        if is_held(hold, rows):
            return SupersededError(
                f"task {hold.task}: the database stands at other positions than this worker has committed; "
                "it goes on from those"
            )
        epochs = sorted(row.epoch for row in rows.values())
        return FencedError(f"task {hold.task}: its epoch is {hold.seq}, the database has {epochs or 'none'}")

    def _moved(self, after: Mapping[str, int]) -> Hold:
        self.hold = replace(self.hold, positions=dict(after))
        return self.hold
