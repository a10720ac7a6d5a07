"""The notes of workers about tasks and processes: records of the compacted topic `pipeline.workers.<app>`.

They are hints. A fence in Kafka decides ownership, so a lost or late note delays a handoff and nothing else. A release
ignores notes that it does not know: new kinds of notes have fields that older releases do not read (`Note`).
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from pipeline.core.crashes import Suspect
from pipeline.core.departures import Departure, HttpAddress, PeerAddress, Revocation
from pipeline.core.inputs import TaskInputs
from pipeline.core.names import TaskId
from pipeline.core.recovery_time import RecoverySpeed

__all__ = [
    "About",
    "Claim",
    "DeferredGroup",
    "MeasuredSpeed",
    "Note",
    "Owner",
    "Suspected",
    "decode_note",
    "encode_note",
]


class Owner(NamedTuple):
    """The owner of a task, by its entry `seq`. `released`: it gave the task up, and is preferred for getting it back.

    `problem`: why the task failed there or, if it is not `released`, why it waits there. `database`: the database of a
    sink task's positions, whose epoch is then `seq`; empty for a task with a journal. `retrying`: it waits because a
    record is retried. `tasks`: the number of tasks of a sink group, if they have several partitions; otherwise 0.
    """

    seq: int
    worker: str
    process: str
    released: bool = False
    problem: str = ""
    database: str = ""
    retrying: bool = False
    tasks: int = 0

    def reads(self, task: TaskId, partition: int) -> bool:
        """Whether the owner of this sink task reads a partition."""
        return TaskInputs(task.number, self.tasks).owns(partition)

    @property
    def order(self) -> tuple[int, bool]:
        """Of two notes about a task, the one with the higher order counts, in whatever order they arrive."""
        return self.seq, self.released

    def replaces(self, known: Owner | None) -> bool:
        """Whether this note counts instead of the one that is known."""
        return known is None or self.order >= known.order


class Claim(NamedTuple):
    """The worker that prepares for a task. `ready`: a handoff would be short. An empty worker withdraws the claim.

    `problem`: why the worker could not acquire the task; it does not retry.
    """

    worker: str
    process: str
    ready: bool = False
    problem: str = ""


class DeferredGroup(NamedTuple):
    """A group that could not start in this process, and why. An empty problem: it has started."""

    worker: str
    process: str
    problem: str


class Suspected(NamedTuple):
    """Suspicions about records of a task, each with its topic and the topic's id.

    None: there are no suspicions any more.
    """

    suspects: tuple[tuple[str, str, Suspect], ...] = ()


class MeasuredSpeed(NamedTuple):
    """How fast a worker has recovered. For predictions."""

    worker: str
    speed: RecoverySpeed


About = (
    Owner
    | Claim
    | Departure
    | Revocation
    | PeerAddress
    | HttpAddress
    | DeferredGroup
    | Suspected
    | MeasuredSpeed
)  # what a note says


class _NotedDeparture(NamedTuple):
    """A departure in a note, as older releases read it. An empty process: no process of the worker has left."""

    worker: str
    process: str


class _NotedOwner(NamedTuple):
    """An owner in a note. Older releases refuse a note if this has more fields, and ignore more fields of `Note`."""

    seq: int
    worker: str
    process: str
    released: bool = False
    problem: str = ""
    database: str = ""


class Note(msgspec.Struct, frozen=True, array_like=True):
    """One record of the workers' topic, about a task (group, partition) or about a process."""

    version: int
    group: str = ""
    partition: int = -1
    owner: _NotedOwner | None = None
    claim: Claim | None = None
    departure: _NotedDeparture | None = None
    # A release that does not know these fields ignores the note.
    waiting: DeferredGroup | None = None
    suspected: Suspected | None = None

    @property
    def key(self) -> bytes:
        """The record's key; compaction keeps the last note for each."""
        if self.departure is not None:
            return f"left/{self.departure.worker}".encode()
        if self.waiting is not None:
            return f"waits/{self.group}/{self.waiting.worker}".encode()
        if self.suspected is not None:
            return f"suspected/{self.group}/{self.partition}".encode()
        kind = "owner" if self.owner is not None else "claim"
        return f"{kind}/{self.group}/{self.partition}".encode()


class _RetryNote(Note, frozen=True, array_like=True):
    """The note of an owner that retries a record. All others are written without this field, as by older releases."""

    retrying: bool = False


class _SpeedNote(_RetryNote, frozen=True, array_like=True):
    """The note of a worker about its speed. All others are written without this field, as by older releases."""

    measured: MeasuredSpeed | None = None

    @property
    def key(self) -> bytes:
        return super().key if self.measured is None else f"speed/{self.measured.worker}".encode()


class _PeerNote(_SpeedNote, frozen=True, array_like=True):
    """A note about the end of processes that peers see. All others are written without these fields.

    `by` and `number`: of the departure. A release that does not know them reads a departure, and a revocation as the
    departure of no process.
    """

    by: str = ""
    number: int = 0
    revocation: Revocation | None = None
    address: PeerAddress | None = None

    @property
    def key(self) -> bytes:
        return super().key if self.address is None else f"address/{self.address.worker}".encode()


class _SinkNote(_PeerNote, frozen=True, array_like=True):
    """The note of the owner of a sink task with several partitions. All others are written without this field."""

    tasks: int = 0


class _HttpNote(_SinkNote, frozen=True, array_like=True):
    """The note of a worker about its HTTP port. All others are written without this field."""

    http: HttpAddress | None = None

    @property
    def key(self) -> bytes:
        return super().key if self.http is None else f"http/{self.http.worker}".encode()


_VERSION = 1
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_HttpNote)


def encode_note(task: TaskId | None, about: About) -> tuple[bytes, bytes]:
    """(key, value) of the record."""
    group, partition = (task.group, task.number) if task is not None else ("", -1)
    note = Note(
        _VERSION,
        group,
        partition,
        _NotedOwner._make(about[: len(_NotedOwner._fields)]) if isinstance(about, Owner) else None,
        about if isinstance(about, Claim) else None,
        _noted_departure(about),
        about if isinstance(about, DeferredGroup) else None,
        about if isinstance(about, Suspected) else None,
    )
    if isinstance(about, Owner) and about.tasks:
        note = _SinkNote(**msgspec.structs.asdict(note), retrying=about.retrying, tasks=about.tasks)
    elif isinstance(about, Owner) and about.retrying:
        note = _RetryNote(**msgspec.structs.asdict(note), retrying=True)
    elif isinstance(about, MeasuredSpeed):
        note = _SpeedNote(**msgspec.structs.asdict(note), measured=about)
    elif isinstance(about, Departure) and about.by:
        note = _PeerNote(**msgspec.structs.asdict(note), by=about.by, number=about.number)
    elif isinstance(about, Revocation):
        note = _PeerNote(**msgspec.structs.asdict(note), revocation=about)
    elif isinstance(about, PeerAddress):
        note = _PeerNote(**msgspec.structs.asdict(note), address=about)
    elif isinstance(about, HttpAddress):
        note = _HttpNote(**msgspec.structs.asdict(note), http=about)
    return note.key, _encoder.encode(note)


def _noted_departure(about: About) -> _NotedDeparture | None:
    if isinstance(about, Departure):
        return _NotedDeparture(about.worker, about.process)
    return _NotedDeparture(about.worker, "") if isinstance(about, Revocation) else None


def _departure_of(note: _PeerNote) -> Departure | None:
    if note.departure is None:
        return None
    return Departure(*note.departure, note.by, note.number) if note.by else Departure(*note.departure)


def decode_note(app: str, data: bytes) -> tuple[TaskId, About] | None:
    """The note; None if this release does not know it. Notes are hints, so this is not an error."""
    try:
        note = _decoder.decode(data)
    except msgspec.DecodeError:
        return None
    owner = Owner(*note.owner, note.retrying, note.tasks) if note.owner is not None else None
    left = note.revocation or note.address or _departure_of(note)
    about = owner or note.claim or left or note.waiting or note.suspected or note.measured or note.http
    if note.version != _VERSION or about is None:
        return None
    return TaskId(app, note.group, note.partition), about
