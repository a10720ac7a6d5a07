"""Moves an application from Faust to this engine: its positions and its tables, once.

    1 survey: Faust's committed offsets, its changelog topics, and whether a worker of Faust still runs. Changes nothing
    2 create the topics that the application names and that do not exist, as a worker does
    3 create the journal, fence other first starts, and check that the group is new (runtime/restore/genesis.py)
    4 in one transaction: a genesis entry for each task, with Faust's positions, and entries with the rows of its tables
    5 check that Faust's group has no members, and that its positions and changelogs have not changed since 1
    6 commit

| a crash | leaves | the next run |
| --- | --- | --- |
| before 2, in 1 | nothing | is the first one |
| after 2 | topics that a worker would create as well | is the first one |
| after 3 | a journal without entries | is the first one |
| in 4 or 5 | an open transaction, which no reader of committed records sees | fences and aborts it, and begins again |
| in 6 | the transaction committed, or not | finds out which: says that it is done, or begins again |
| after 6 | an application with Faust's state | says that it is done |

Nothing of Faust is changed: its topics, offsets and workers' disks stay as they are. Until 6, Faust can continue.

A row has the bytes of Faust's changelog. A changelog is read with read_committed, from its first record to the end that
it had in 1. Partition p of a changelog holds the rows of partition p of the inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from pipeline.api.table import table_prefix
from pipeline.config import WorkerSettings
from pipeline.core.inputs import row_prefix
from pipeline.core.journal_format import Entry
from pipeline.core.names import RECORD_READER, GroupId, TaskId, TopicPartition
from pipeline.core.suggestions import Problem, counted
from pipeline.errors import ConfigError, InputError
from pipeline.faust.changelogs import RowsOfChangelog, rows_of
from pipeline.ops.reading import last_committed, read_topic, settled_bounds
from pipeline.ports import JournalReader, Record, TopicInfo
from pipeline.runtime.commit.journal_reader import first_entry
from pipeline.runtime.environment import Environment
from pipeline.runtime.plan import GroupPlan
from pipeline.runtime.restore.genesis import ensure_genesis

__all__ = ["Changelog", "InputPosition", "Moved", "Survey", "move", "moved_from", "start_fresh", "survey"]

_ENTRY_BYTES = 4 * 1024 * 1024
_ORIGIN = "moved-from"  # key in the extra of the genesis entries: the consumer group of Faust


@dataclass(frozen=True, slots=True)
class InputPosition:
    """Where the application continues in one partition of an input. `committed`: by Faust; None if it has not."""

    place: TopicPartition
    committed: int | None
    position: int
    end: int

    @property
    def lag(self) -> int:
        """The offsets that Faust has not processed, including markers."""
        return self.end - self.position


@dataclass(frozen=True, slots=True)
class Changelog:
    """The changelog of a table: its declaration here, its topic in Faust, and the offsets to read by partition."""

    table: Any
    topic: str
    offsets: Mapping[int, range] = field(default_factory=dict)

    @property
    def records(self) -> int:
        """At most so many records."""
        return sum(map(len, self.offsets.values()))


@dataclass(frozen=True, slots=True)
class Survey:
    """What would be moved. `problems`: reasons not to. `notes`: facts that may be intended."""

    app: Any
    positions: Sequence[InputPosition]
    changelogs: Sequence[Changelog]
    problems: Sequence[Problem]
    notes: Sequence[str]

    @property
    def faust_group(self) -> str:
        """Faust's consumer group."""
        name: str = self.app.replaces
        return name

    @property
    def group(self) -> GroupId:
        """The group of this engine."""
        found: GroupId = self.app.groups[0].id
        return found


@dataclass(frozen=True, slots=True)
class Moved:
    """The result of a migration. `rows`: by table."""

    tasks: int
    rows: Mapping[str, int]


def survey(app: Any, environment: Environment) -> Survey:
    """What would be moved for this application, a translated `faust.App`. Changes nothing.

    Raises ConfigError (no inputs), UnreachableError.
    """
    group = app.groups[0]
    cluster = environment.cluster
    tables = list(app.faust_tables.items())
    names = [topic.name for topic in group.inputs]
    logs = {declared: str(table.changelog_topic.get_topic_name()) for table, declared in tables}
    found = cluster.describe(sorted({*names, *logs.values()}))
    problems: list[Problem] = []
    notes: list[str] = []
    members = cluster.member_ids(app.replaces)
    if members:
        text = f"consumer group {app.replaces} has {counted(len(members), 'member')}: {', '.join(sorted(set(members)))}"
        problems.append(
            Problem(text, "stop all workers of Faust with SIGTERM, and wait until they have left")
        )
    with closing(environment.journals()) as reader:
        positions = _positions(app, [found[name] for name in names if name in found], reader, environment)
        notes += [
            f"topic {name} does not exist yet: it is created, and read from its start"
            for name in names
            if name not in found
        ]
        problems += _unusable(positions)
        notes += _deleted(positions)
        if not any(each.committed is not None for each in positions):
            text = f"consumer group {app.replaces} has no positions in the inputs: {', '.join(names)}"
            problems.append(
                Problem(text, "the application has not run on Faust in this cluster: start a worker")
            )
        counts = {found[name].partitions for name in names if name in found}
        changelogs = []
        for declared, topic in logs.items():
            info = found.get(topic)
            if info is None:
                notes.append(f"table {declared.name} has no changelog {topic}: it starts empty")
            elif declared.fades:  # its rows have a time of writing and an entry of what is due
                text = f"table {declared.name} has windows or keys that expire, which are not moved yet"
                problems.append(Problem(text, "leave expires= of the table out, also afterwards"))
            elif counts and counts != {info.partitions}:
                text = (
                    f"changelog {topic} has {counted(info.partitions, 'partition')}, the inputs {min(counts)}"
                )
                problems.append(
                    Problem(text, "the rows of its keys are in other partitions than their events")
                )
            else:
                changelogs.append(Changelog(declared, topic, _offsets(info, reader, environment)))
    return Survey(app, positions, changelogs, problems, notes)


def _positions(
    app: Any, inputs: Sequence[TopicInfo], reader: JournalReader, environment: Environment
) -> list[InputPosition]:
    """Where Faust would continue, in each partition of the inputs."""
    committed = environment.cluster.committed(app.replaces)
    places = [TopicPartition(info.name, number) for info in inputs for number in range(info.partitions)]
    starts, ends = reader.starts(places), reader.highest_ends(places, committed=False)
    at_end = app.faust_app.conf.consumer_auto_offset_reset == "latest"
    return [
        InputPosition(
            place,
            at,
            max(at, starts[place]) if at is not None else (ends[place] if at_end else starts[place]),
            ends[place],
        )
        for place in places
        for at in (committed.get(place),)
    ]


def _unusable(positions: Sequence[InputPosition]) -> list[Problem]:
    return [
        Problem(
            f"{each.place} ends at offset {each.end}, and Faust has committed {each.committed}",
            "the topic was deleted and created again, so that Faust's positions are not valid: delete the offsets of "
            "the topic in Faust's consumer group, to read it from its start",
        )
        for each in positions
        if each.committed is not None and each.committed > each.end
    ]


def _deleted(positions: Sequence[InputPosition]) -> list[str]:
    return [
        f"{each.place}: retention has deleted the offsets {each.committed} to {each.position - 1}, which Faust has "
        "not processed"
        for each in positions
        if each.committed is not None and each.committed < each.position
    ]


def _offsets(info: TopicInfo, reader: JournalReader, environment: Environment) -> dict[int, range]:
    """The offsets of each partition of a changelog, after its transactions have ended."""
    found = {}
    for number in range(info.partitions):
        bounds = settled_bounds(reader, TopicPartition(info.name, number), environment.clock)
        found[number] = range(bounds.start, bounds.end)
    return found


def moved_from(group: GroupId, environment: Environment) -> str | None:
    """The consumer group that a group was moved from; empty if it started otherwise. None if it has not started."""
    topic = group.journal_topic
    if topic not in environment.cluster.describe([topic]):
        return None
    first = _first(TaskId(*group, 0), environment)
    return None if first is None else first.extra.get(_ORIGIN, b"").decode()


def _first(task: TaskId, environment: Environment) -> Entry | None:
    with closing(environment.journals()) as reader:
        bounds = reader.bounds(task.journal)
        found = first_entry(task, reader, bounds.start, bounds.stable_end)
    return found.entry if found is not None else None


def move(surveyed: Survey, plan: GroupPlan, environment: Environment, settings: WorkerSettings) -> Moved:
    """Steps 3 to 6. `plan`: that of the application's group, whose topics exist.

    Raises InputError (there are problems, or the group has started), ConfigError, UnreachableError, FatalTaskError.
    """
    if surveyed.problems:
        problem = surveyed.problems[0]
        raise InputError(problem.text, hint=problem.hint)
    seed = _FaustSeed(surveyed, plan, environment)
    ensure_genesis(
        plan.id,
        plan.task_count,
        plan.identity,
        settings.replication_factor,
        environment=environment,
        retry_backoff_ms=settings.retry_backoff_ms,
        seed=seed,
    )
    origin = moved_from(plan.id, environment)
    if origin != surveyed.faust_group:
        raise InputError(
            f"group {plan.id.app}/{plan.id.group} has started with empty tables meanwhile",
            hint="stop its workers, delete its journal (pipeline journal forget), and run this command again",
        )
    return Moved(plan.task_count, seed.counted)


def start_fresh(plan: GroupPlan, environment: Environment, settings: WorkerSettings) -> None:
    """Start the group without Faust's state: with empty tables, at the beginning of its inputs.

    Raises ConfigError, UnreachableError, FatalTaskError.
    """
    ensure_genesis(
        plan.id,
        plan.task_count,
        plan.identity,
        settings.replication_factor,
        environment=environment,
        retry_backoff_ms=settings.retry_backoff_ms,
    )


class _FaustSeed:
    """`Seed` from Faust's positions and changelogs."""

    owner = "pipeline faust migrate"

    def __init__(self, surveyed: Survey, plan: GroupPlan, environment: Environment) -> None:
        self._surveyed = surveyed
        self._plan = plan
        self._environment = environment
        self.extra = {_ORIGIN: surveyed.faust_group.encode()}
        self.counted: dict[str, int] = {log.table.name: 0 for log in surveyed.changelogs}

    def positions(self, task: TaskId) -> Mapping[str, int]:
        names = self._plan.names_of(task.number)
        given = {each.place: each.position for each in self._surveyed.positions}
        inputs = self._plan.record_inputs_of(task.number).values()
        # A topic that was created after the survey is empty.
        return {names.name(place): given.get(place, 0) for place in inputs}

    def rows(self, task: TaskId) -> Iterator[Mapping[bytes, bytes]]:
        if task.number == 0:
            self.counted = dict.fromkeys(self.counted, 0)  # an attempt begins
        for partition in self._plan.numbers_of(task.number):
            begin = row_prefix(partition) if self._plan.identity.tasks else b""
            for log in self._surveyed.changelogs:
                prefix = begin + table_prefix(log.table.name)
                found = self._read(log, partition)
                self.counted[log.table.name] += len(found)
                yield from _parts(prefix, found)

    def confirm(self) -> None:
        """Step 5."""
        now = survey(self._surveyed.app, self._environment)
        before = self._surveyed
        same_positions = [each.committed for each in now.positions] == [
            each.committed for each in before.positions
        ]
        same_logs = [log.offsets for log in now.changelogs] == [log.offsets for log in before.changelogs]
        if now.problems or not (same_positions and same_logs):
            reason = now.problems[0].text if now.problems else "its positions or its changelogs have changed"
            raise ConfigError(
                f"Faust has run during the migration: {reason}. Nothing was moved",
                hint="stop all workers of Faust, and run this command again",
            )

    def _read(self, log: Changelog, partition: int) -> Mapping[bytes, bytes]:
        """The rows of one partition, which are in memory until they are written."""
        place, offsets = TopicPartition(log.topic, partition), log.offsets[partition]
        rows: RowsOfChangelog = rows_of(log.table)
        with closing(self._environment.journals()) as reader:
            last = last_committed(reader, place, offsets.start, offsets.stop)
        if last is None:
            return {}
        with closing(self._environment.sources.open(RECORD_READER)) as source:
            for record in read_topic(source, self._environment.clock, {place: offsets.start}, {place: last}):
                _apply(rows, record, log)
        return rows.rows()


def _apply(rows: RowsOfChangelog, record: Record, log: Changelog) -> None:
    try:
        rows.apply(record.key(), record.value())
    except Exception as error:
        raise ConfigError(
            f"{record.topic()}[{record.partition()}]@{record.offset()} is not a row of table {log.table.name}: "
            f"{type(error).__name__}: {error}",
            hint="declare the key type, the value type and the serializers with which Faust has written the table",
        ) from error


def _parts(prefix: bytes, rows: Mapping[bytes, bytes]) -> Iterator[Mapping[bytes, bytes]]:
    part: dict[bytes, bytes] = {}
    size = 0
    for key, value in rows.items():
        part[prefix + key] = value
        size += len(key) + len(value)
        if size >= _ENTRY_BYTES:
            yield part
            part, size = {}, 0
    if part:
        yield part
