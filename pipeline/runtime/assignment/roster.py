"""Keeps this worker's view of the other workers: the members, the owners of tasks, and the claims.

It reads about once per second (five times as often while tasks move), on the executor. A failed read changes nothing:
while Kafka is unreachable, each worker keeps its tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from pipeline.config import WorkerSettings
from pipeline.core.membership import (
    About,
    Claim,
    DeferredGroup,
    Departure,
    MeasuredSpeed,
    Member,
    Owner,
    Roster,
    Suspected,
    decode_member,
    decode_note,
    encode_member,
    encode_note,
)
from pipeline.core.names import TaskId, TopicPartition, workers_group, workers_topic
from pipeline.core.recovery_time import RecoverySpeed
from pipeline.errors import ConfigError, PipelineError
from pipeline.ports import JournalReader, Pending, TopicSpec, error_fields
from pipeline.runtime.environment import Environment

__all__ = ["RosterWatch"]

TOPIC_CONFIG: Mapping[str, str] = {"cleanup.policy": "compact"}
HURRY_FACTOR = 5  # how much more often it reads while tasks move
REPEAT_AFTER_S = 3.0


class _NotesRead(NamedTuple):
    """The result of one read: the members, the new notes in order, and the start of the next read."""

    members: list[Member]
    notes: list[tuple[TaskId, About]]
    position: int


_Notes = dict[tuple[TaskId | None, type], About]


class RosterWatch:
    """`roster` is the view. Processing thread only; waiting steps run on the executor."""

    def __init__(self, app: str, me: Member, environment: Environment, settings: WorkerSettings) -> None:
        self._app = app
        self._me = me
        self._environment = environment
        self._settings = settings
        self._group = workers_group(app)
        self._topic = TopicPartition(workers_topic(app), 0)
        self._reader: JournalReader | None = None
        self._position = 0
        self._pending_read: Pending[_NotesRead] | None = None
        self._next_read_s = 0.0
        self._same_since_s: float | None = None
        self._processes: frozenset[str] = frozenset()
        self._owners: dict[TaskId, Owner] = {}
        self._claims: dict[TaskId, Claim] = {}
        # the last note about each task, as a new member would read it; it may not have the highest seq
        self._last_read: dict[TaskId, Owner] = {}
        self._own_notes: dict[TaskId, tuple[Owner, float]] = {}
        self._departed: dict[str, str] = {}  # by worker: the last process that noted it
        self._waiting: _Notes = {}
        self._pending_write: tuple[Pending[None], _Notes] | None = None
        self.suspected: dict[TaskId, Suspected] = {}
        self.speed_before: RecoverySpeed | None = None  # noted by an earlier process of this worker
        self._has_noted_speed = False
        self.roster = Roster((me,))
        self.has_read_members = False
        self.settled = False
        self._was_settled = self._has_read = self._has_written = False
        self._refused: PipelineError | None = None

    def join(self, progress: Callable[[], object]) -> None:
        """Create the topic if it is missing, and become a member. Raises ConfigError, UnreachableError."""
        if not self._environment.cluster.describe([self._topic.topic]):
            spec = TopicSpec(self._topic.topic, 1, self._settings.replication_factor, TOPIC_CONFIG)
            self._environment.cluster.create([spec])
        self._environment.members.join(self._group, self._topic.topic, encode_member(self._me), progress)

    def turn(self, *, hurry: bool) -> bool:
        """Do what is due. Returns whether the view has changed.

        Raises ConfigError if this process lacks a permission to take part. A permission that it had and lost is only
        logged, because its tasks can run on.
        """
        now = self._environment.clock.monotonic_s()
        changed = False
        if self._pending_read is not None and self._pending_read.done():
            read, self._pending_read = self._pending_read, None
            try:
                self._merge_read(read.result(), now)
                changed = True
            except PipelineError as error:
                self._note_failure(error, event="members_not_read")
                self._drop_reader()
        if self._pending_read is None and now >= self._next_read_s:
            interval_s = self._settings.membership_interval_s
            self._next_read_s = now + (interval_s / HURRY_FACTOR if hurry or not self.settled else interval_s)
            reader, position = self._open_reader(), self._position
            self._pending_read = self._environment.executor.submit(lambda: self._read(reader, position))
        self._begin_write(now)
        problem = self._environment.members.problem()
        if problem is not None and not self._was_settled:
            raise problem
        if self._refused is not None:
            raise self._refused
        return changed

    def note(self, task: TaskId, about: Owner | Claim | DeferredGroup | Suspected) -> None:
        """Add a note to the view, and write it for the other workers."""
        self._merge(task, about)
        if isinstance(about, Owner):
            self._own_notes[task] = about, self._environment.clock.monotonic_s()
        self._waiting[task, type(about)] = about
        self._refresh()

    def note_speed(self, speed: RecoverySpeed) -> None:
        """Write how fast this worker has recovered, for predictions."""
        self._has_noted_speed = True
        self._waiting[None, MeasuredSpeed] = MeasuredSpeed(self._me.worker, speed)

    def write_notes(self) -> None:
        """Write the pending notes, and wait for it. Notes that cannot be written stay pending."""
        self._end_write()
        notes, self._waiting = self._waiting, {}
        try:
            self._environment.members.announce(self._topic.topic, _encoded(notes))
        except PipelineError as error:
            self._note_failure(error, event="notes_not_written")
            self._waiting = {**notes, **self._waiting}

    def begin_problem_note(self, problem: str) -> None:
        """Write `problem` into this process's notes about its tasks, while the processing thread does not return.

        From any thread: the view does not change. Afterwards, the processing thread reads notes that differ from its
        own, and writes its own again.
        """
        notes = [
            encode_note(task, owner._replace(problem=problem))
            for task, (owner, _) in list(self._own_notes.items())
            if not owner.released
        ]

        def announce() -> None:
            try:
                self._environment.members.announce(self._topic.topic, notes)
            except PipelineError as error:
                self._environment.log.info("notes_not_written", **error_fields(error))

        if notes:
            self._environment.executor.submit(announce)

    def note_owner(self, task: TaskId, owner: Owner) -> None:
        """Note an owner that the journal names, because it may have died before it could write its own note."""
        self._own_notes.pop(task, None)
        self._merge(task, owner)
        self._waiting[task, Owner] = owner
        self._refresh()

    def depart(self) -> None:
        """Note that this process leaves, and write all pending notes. Notes that cannot be written are dropped."""
        self._waiting[None, Departure] = Departure(self._me.worker, self._me.process)
        self.write_notes()

    def leave(self) -> None:
        """Leave the group."""
        self._environment.members.leave()
        if self._pending_read is not None:
            try:
                self._pending_read.result()
            except PipelineError as error:
                self._environment.log.info("members_not_read", **error_fields(error))
        if self._reader is not None:
            self._reader.close()

    def _note_failure(self, error: PipelineError, *, event: str) -> None:
        """Log a failed request, which is repeated. If none of its kind ever succeeded, `turn` raises a ConfigError."""
        if not isinstance(error, ConfigError):
            self._environment.log.info(event, **error_fields(error))
            return
        if not (self._has_read and self._has_written):
            self._refused = error
        self._environment.log.warning(event, **error_fields(error))

    def _drop_reader(self) -> None:
        """Use a new reader next time, which may reach a broker with newer data."""
        reader, self._reader = self._reader, None
        if reader is not None:
            self._environment.executor.submit(reader.close)

    def _open_reader(self) -> JournalReader:
        if self._reader is None:
            self._reader = self._environment.journals()
        return self._reader

    def _read(self, reader: JournalReader, position: int) -> _NotesRead:
        found = map(decode_member, self._environment.cluster.member_ids(self._group))
        members = [member for member in found if member is not None]
        end = reader.stable_ends([self._topic])[self._topic]
        if end < position:
            position = 0  # the topic was recreated
        if position == 0:
            position = reader.bounds(self._topic).start
        notes = []
        for _, data in reader.read(self._topic, position, end):
            note = decode_note(self._app, data)
            if note is not None:
                notes.append(note)
        return _NotesRead(members, notes, end)

    def _merge_read(self, read: _NotesRead, now: float) -> None:
        self._position = read.position
        self._has_read |= bool(read.notes)
        for task, about in read.notes:
            if isinstance(about, Owner):
                self._last_read[task] = about
            self._merge(task, about)
        processes = frozenset(member.process for member in read.members)
        if self._me.process not in processes:
            self._same_since_s, self.settled = None, False
        elif processes != self._processes or self._same_since_s is None:
            self._same_since_s = now
        if self._same_since_s is not None and now - self._same_since_s >= self._settings.join_delay_s:
            self.settled = self._was_settled = True
        self._processes = processes
        self.has_read_members = True
        members = {member.process: member for member in [self._me, *read.members]}
        self._refresh(members)

    def _refresh(self, members: Mapping[str, Member] | None = None) -> None:
        found = tuple(members.values()) if members is not None else self.roster.members
        departed = frozenset(self._departed.values())
        self.roster = Roster(found, dict(self._owners), dict(self._claims), departed)

    def _merge(self, task: TaskId, about: About) -> None:
        if isinstance(about, DeferredGroup):
            return  # for people
        if isinstance(about, MeasuredSpeed):
            if about.worker == self._me.worker and not self._has_noted_speed:
                self.speed_before = about.speed
            return
        if isinstance(about, Suspected):
            self.suspected[task] = about
            return
        if isinstance(about, Claim):
            self._claims[task] = about
            return
        if isinstance(about, Departure):
            self._departed[about.worker] = about.process
            return
        known = self._owners.get(task)
        if known is None or about.order >= known.order:
            self._owners[task] = about

    def _begin_write(self, now: float) -> None:
        if self._pending_write is not None and not self._pending_write[0].done():
            return
        self._end_write()
        for task, (owner, noted_s) in list(self._own_notes.items()):
            # A paused worker may have written an older note after it, or the topic may have been recreated.
            if self._last_read.get(task) != owner and now - noted_s >= REPEAT_AFTER_S:
                self._own_notes[task] = owner, now
                self._waiting.setdefault((task, Owner), owner)
        if self._waiting:
            topic, notes = self._topic.topic, _encoded(self._waiting)
            write = self._environment.executor.submit(
                lambda: self._environment.members.announce(topic, notes)
            )
            self._pending_write, self._waiting = (write, self._waiting), {}

    def _end_write(self) -> None:
        """Notes that could not be written are pending again, unless there is a newer one."""
        if self._pending_write is None:
            return
        (write, notes), self._pending_write = self._pending_write, None
        try:
            write.result()
            self._has_written = True
        except PipelineError as error:
            self._note_failure(error, event="notes_not_written")
            self._waiting = {**notes, **self._waiting}


def _encoded(notes: _Notes) -> list[tuple[bytes, bytes]]:
    return [encode_note(task, about) for (task, _), about in notes.items()]
