"""Keeps this worker's view of the other workers: the members, the owners of tasks, and the claims.

The members are listed about once per second, on the executor; less often in a large fleet, because each list has all
members. The notes are read once up to their end, and then followed by an assigned consumer, so a note arrives within
some milliseconds. A failed read changes nothing: while Kafka is unreachable, each worker keeps its tasks.

`WatchedPeers` keeps what the workers see of each other's end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from pipeline.config import WorkerSettings
from pipeline.core.departures import Departure, DepartureRecord, HttpAddress, PeerAddress, Revocation
from pipeline.core.membership import Member, Roster, decode_member, encode_member
from pipeline.core.names import JOURNAL_READER, TaskId, TopicPartition, workers_group, workers_topic
from pipeline.core.notes import (
    About,
    Claim,
    DeferredGroup,
    MeasuredSpeed,
    Owner,
    Suspected,
    decode_note,
    encode_note,
)
from pipeline.core.recovery_time import RecoverySpeed
from pipeline.errors import ConfigError, PipelineError
from pipeline.ports import Pending, Source, TopicSpec, error_fields
from pipeline.runtime.assignment.peers import WatchedPeers
from pipeline.runtime.environment import Environment

__all__ = ["RosterWatch"]

TOPIC_CONFIG: Mapping[str, str] = {"cleanup.policy": "compact"}
HURRY_FACTOR = 5  # how much more often it lists the members until it is settled
FOLLOW_S = 0.02  # between two polls of the notes
SMALL_FLEET = 50  # members; in a larger fleet, both intervals grow with it
REPEAT_AFTER_S = 3.0
MAX_NOTES = 1_000  # in one poll


class _ReadNotes(NamedTuple):
    """All notes up to the end at some moment, and a source of the following ones. `topic_id`: of their topic."""

    notes: list[tuple[TaskId, About]]
    source: Source
    topic_id: str


class _Read(NamedTuple):
    """The result of one read. `following`: None if the notes are followed already."""

    members: list[Member]
    following: _ReadNotes | None


_Notes = dict[tuple[TaskId | None, type], About]
_AboutTasks = Owner | Claim | DeferredGroup | Suspected | MeasuredSpeed


class RosterWatch:
    """`roster` is the view. Processing thread only; waiting steps run on the executor."""

    def __init__(self, app: str, me: Member, environment: Environment, settings: WorkerSettings) -> None:
        self._app = app
        self._me = me
        self._environment = environment
        self._settings = settings
        self._group = workers_group(app)
        self._topic = TopicPartition(workers_topic(app), 0)
        self._following: tuple[Source, str] | None = None  # the source of notes, and the id of their topic
        self._pending_read: Pending[_Read] | None = None
        self._next_read_s = self._next_follow_s = 0.0
        self._same_since_s: float | None = None
        self._processes: frozenset[str] = frozenset()
        self._owners: dict[TaskId, Owner] = {}
        self._claims: dict[TaskId, Claim] = {}
        # the last note about each task, as a new member would read it; it may not have the highest seq
        self._last_read: dict[TaskId, Owner] = {}
        self._own_notes: dict[TaskId, tuple[Owner, float]] = {}
        self.peers = WatchedPeers(me, self._topic.topic, environment, self._note_about_me)
        self._waiting: _Notes = {}
        self._pending_write: tuple[Pending[None], _Notes] | None = None
        self.suspected: dict[TaskId, Suspected] = {}
        self.speed_before: RecoverySpeed | None = None  # noted by an earlier process of this worker
        self._has_noted_speed = False
        self.http: dict[str, HttpAddress] = {}  # by worker
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
        self.peers.listen()
        if self._environment.http_address is not None:
            about = HttpAddress(self._me.worker, self._me.process, *self._environment.http_address)
            self._waiting[None, HttpAddress] = about
        self._environment.members.join(self._group, self._topic.topic, encode_member(self._me), progress)

    def turn(self) -> bool:
        """Do what is due. Returns whether the view has changed.

        Raises ConfigError if this process lacks a permission to take part. A permission that it had and lost is only
        logged, because its tasks can run on.
        """
        now = self._environment.clock.monotonic_s()
        changed = self._follow(now)
        if self._pending_read is not None and self._pending_read.done():
            read, self._pending_read = self._pending_read, None
            try:
                self._merge_read(read.result(), now)
                changed = True
            except PipelineError as error:
                self._note_failure(error, event="members_not_read")
        if self._pending_read is None and now >= self._next_read_s:
            interval_s = self._settings.membership_interval_s * self._fleet_factor
            self._next_read_s = now + (interval_s if self.settled else interval_s / HURRY_FACTOR)
            topic_id = self._following[1] if self._following is not None else None
            self._pending_read = self._environment.executor.submit(lambda: self._read(topic_id))
        if self.has_read_members:
            self.peers.turn(self.roster.workers(), now, changed=changed)
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

    def _note_about_me(self, about: Revocation | PeerAddress) -> None:
        self._waiting[None, type(about)] = about

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

    @property
    def departure_record(self) -> DepartureRecord:
        """What a supervisor writes when this process has ended."""
        return DepartureRecord(
            self._topic.topic, *encode_note(None, Departure(self._me.worker, self._me.process))
        )

    def depart(self) -> None:
        """Note that this process leaves, and write all pending notes. Notes that cannot be written are dropped."""
        self.peers.leave()
        self._waiting[None, Departure] = Departure(self._me.worker, self._me.process)
        self.write_notes()

    def leave(self) -> None:
        """Leave the group. The port is closed last, so that a peer that sees this has been told before."""
        self._environment.members.leave()
        if self._pending_read is not None:
            try:
                read = self._pending_read.result()
                if read.following is not None:
                    read.following.source.close()
            except PipelineError as error:
                self._environment.log.info("members_not_read", **error_fields(error))
        if self._following is not None:
            self._following[0].close()
        self.peers.close()

    def _note_failure(self, error: PipelineError, *, event: str) -> None:
        """Log a failed request, which is repeated. If none of its kind ever succeeded, `turn` raises a ConfigError."""
        if not isinstance(error, ConfigError):
            self._environment.log.info(event, **error_fields(error))
            return
        if not (self._has_read and self._has_written):
            self._refused = error
        self._environment.log.warning(event, **error_fields(error))

    @property
    def _fleet_factor(self) -> float:
        """How much longer the intervals are in a large fleet: the work of all workers grows with its square."""
        return max(1.0, len(self._processes) / SMALL_FLEET)

    def _read(self, topic_id: str | None) -> _Read:
        """List the members. `topic_id`: of the notes that are followed; None: read all notes."""
        cluster = self._environment.cluster
        found = map(decode_member, cluster.member_ids(self._group))
        members = [member for member in found if member is not None]
        info = cluster.describe([self._topic.topic]).get(self._topic.topic)
        if topic_id is None or (info is not None and info.topic_id != topic_id):
            return _Read(members, self._read_notes(info.topic_id if info is not None else ""))
        return _Read(members, None)

    def _read_notes(self, topic_id: str) -> _ReadNotes:
        reader = self._environment.journals()
        try:
            bounds = reader.bounds(self._topic)
            data = [value for _, value in reader.read(self._topic, bounds.start, bounds.stable_end)]
        finally:
            reader.close()
        source = self._environment.sources.open(JOURNAL_READER)
        source.assign({self._topic: bounds.stable_end})
        return _ReadNotes(list(self._decoded(data)), source, topic_id)

    def _decoded(self, data: Iterable[bytes]) -> Iterable[tuple[TaskId, About]]:
        return (note for value in data if (note := decode_note(self._app, value)) is not None)

    def _follow(self, now: float) -> bool:
        """Merge the notes that have arrived. Returns whether there were any."""
        if self._following is None or now < self._next_follow_s:
            return False
        self._next_follow_s = now + FOLLOW_S * self._fleet_factor
        try:
            records, failures = self._following[0].poll(MAX_NOTES, 0.0)
        except PipelineError as error:
            self._note_failure(error, event="members_not_read")
            self._drop_source()
            return False
        for failure in failures:
            self._note_failure(failure.error, event="members_not_read")
        self._merge_notes(self._decoded(record.value() or b"" for record in records), now)
        if failures:
            self._drop_source()
        if records:
            self._refresh()
        return bool(records)

    def _drop_source(self) -> None:
        """Read all notes again, through a new client that may reach a broker with newer data."""
        if self._following is not None:
            source, self._following = self._following[0], None
            self._environment.executor.submit(source.close)

    def _merge_notes(self, notes: Iterable[tuple[TaskId, About]], now: float) -> None:
        for task, about in notes:
            self._has_read = True
            if isinstance(about, Owner):
                self._last_read[task] = about
            if isinstance(about, Departure | Revocation | PeerAddress):
                self.peers.merge(about, now)
            elif isinstance(about, HttpAddress):
                self.http[about.worker] = about
            else:
                self._merge(task, about)

    def _merge_read(self, read: _Read, now: float) -> None:
        if read.following is not None:
            self._drop_source()
            self._following = read.following.source, read.following.topic_id
            self._last_read.clear()  # the topic may have been created again
            self._merge_notes(read.following.notes, now)
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
        self.roster = Roster(found, dict(self._owners), dict(self._claims), self.peers.departed)

    def _merge(self, task: TaskId, about: _AboutTasks) -> None:
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
        if about.replaces(self._owners.get(task)):
            self._owners[task] = about

    def _begin_write(self, now: float) -> None:
        if self._pending_write is not None and not self._pending_write[0].done():
            return
        self._end_write()
        for task, (owner, noted_s) in list(self._own_notes.items()):
            # A paused worker may have written an older note after it, or the topic may have been recreated.
            last = self._last_read.get(task)
            if last is not None and last.order > owner.order:
                del self._own_notes[task]  # another worker has it now
            elif last != owner and now - noted_s >= REPEAT_AFTER_S:
                self._own_notes[task] = owner, now
                self._waiting.setdefault((task, Owner), owner)
                self._drop_source()  # its broker may be one that gets no new records
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
