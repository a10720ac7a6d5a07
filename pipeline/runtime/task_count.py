"""How many tasks a group has: `task_count_of`.

The number of tasks is that of the journal's partitions. It is chosen before genesis and never changes, because a task's
history contains the rows of its partitions. Each genesis is of format 2. Format 1 has one task for each partition of
the inputs: journals of earlier releases have it.

    row  journal                              declared                     tasks
    1    none                                 nothing                      the default for a new group
    2    none                                 N, at most the partitions    N
    3    as many partitions as the inputs     nothing, or that number      that number
    4    fewer, format 2 or empty             nothing, or that number      that number
    5    fewer or more, format 1              any                          refused: the inputs have grown
    6    fewer, format 2 of fewer partitions  any                          refused: the inputs have grown
    7    more, format 2 or empty              any                          refused: a task would have no input
    8    any                                  another number               refused, naming `pipeline migrate`
    9    any                                  more than the partitions     refused: a task would have no input

Rows 3 and 4 do not depend on a read that may be stale: a chunk that is read has the format of its journal, and where
none is read, the restore compares the identity. In row 3, the format is that of the history (`identity_in`); an empty
journal of an earlier release gets format 2. Row 6 reads the first entry, if it has an identity: a restore compares the
newest one.

An app that another one has replaced is often in row 5. So in rows 5 to 8, a retired app is refused as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

from pipeline.api.declared_group import DeclaredGroup
from pipeline.core.inputs import MAX_PARTITIONS, default_tasks
from pipeline.core.journal_format import Format, InputFacts, assemble, format_of_chunk
from pipeline.core.names import GroupId, TopicPartition
from pipeline.core.suggestions import counted
from pipeline.errors import ConfigError, FatalTaskError, RetriableError
from pipeline.ports import TopicInfo
from pipeline.runtime.environment import Environment
from pipeline.runtime.restore.retirement import refuse_retired

__all__ = ["task_count_of", "tasks_in_identity"]


class _Recorded(NamedTuple):
    """The format of a journal, and the inputs in its first entry if that has an identity."""

    version: Format
    inputs: Mapping[str, InputFacts]


def task_count_of(group: DeclaredGroup, partitions: int, environment: Environment) -> int:
    """The number of tasks of a group. That of a group of sinks may differ at each start: its rows name partitions.

    Raises ConfigError, UnreachableError.
    """
    if not group.sinks:
        return tasks_in_identity(group, partitions, environment)
    _require_inputs(group, partitions)
    return group.tasks or default_tasks(partitions)


def tasks_in_identity(group: DeclaredGroup, partitions: int, environment: Environment) -> int:
    """The number of tasks that a worker continues with, or starts the group with. `partitions`: those of each input.

    Raises ConfigError, UnreachableError.
    """
    _require_inputs(group, partitions)
    where, declared = _where(group), group.tasks
    name = group.id.journal_topic
    journal = environment.cluster.describe([name]).get(name)
    if journal is None:
        return _of_new(where, declared, partitions)
    if journal.partitions == partitions == (declared or partitions):
        return partitions
    refused = _refused(group, partitions, journal, environment)
    if refused is not None:
        refuse_retired(group.id, environment)
        raise refused
    return journal.partitions


def _require_inputs(group: DeclaredGroup, partitions: int) -> None:
    """Row 9."""
    if group.tasks is not None and group.tasks > partitions:
        raise ConfigError(
            f"{_where(group)} has tasks={group.tasks}, and its inputs have {counted(partitions, 'partition')}: a task "
            "needs one at least",
            hint=f"declare at most {counted(partitions, 'task')}",
        )


def _where(group: DeclaredGroup) -> str:
    return f"group {group.id.app}/{group.id.group}"


def _of_new(where: str, declared: int | None, partitions: int) -> int:
    if partitions > MAX_PARTITIONS:
        raise ConfigError(
            f"{where}: its inputs have {counted(partitions, 'partition')}; the most are {MAX_PARTITIONS}",
            hint="use topics with fewer partitions",
        )
    return declared or default_tasks(partitions)


def _refused(
    group: DeclaredGroup, partitions: int, journal: TopicInfo, environment: Environment
) -> ConfigError | None:
    """Why the group cannot continue this journal: rows 5 to 8."""
    where, tasks, declared = _where(group), journal.partitions, group.tasks
    recorded = _recorded(group.id, journal, environment)
    grown = _grown(group, partitions, journal, recorded)
    if grown is not None:
        return ConfigError(
            f"{where}: {grown}: keys are now in other partitions than their state",
            hint="follow runbooks/partitions-changed.md",
        )
    unused = f"if the group has never processed a record, delete the empty topic {journal.name}"
    if tasks > partitions:
        return ConfigError(
            f"{where}: its journal {journal.name} has {counted(tasks, 'partition')}, its inputs only {partitions}: "
            "they were created again with fewer",
            hint="follow runbooks/topic-recreated.md" if recorded is not None else unused,
        )
    if declared is not None and declared != tasks:
        return ConfigError(
            f"{where} has tasks={declared}, and was started with {tasks}: the number of tasks never changes, because "
            "the history of a task contains the rows of its partitions",
            hint=f"declare {counted(tasks, 'task')}; for another number, move to an app with another name: pipeline "
            "migrate" + (f"; {unused}" if recorded is None else ""),
        )
    return None


def _grown(
    group: DeclaredGroup, partitions: int, journal: TopicInfo, recorded: _Recorded | None
) -> str | None:
    """How the inputs have grown since the group was started; None if they have not, or if that is not known."""
    if recorded is None:
        return None
    names = [topic.name for topic in group.inputs]
    if recorded.version == 1 and journal.partitions != partitions:
        return (
            f"its journal {journal.name} has {counted(journal.partitions, 'partition')}, its input "
            f"{', '.join(names)} has {partitions}"
        )
    for name in names:
        facts = recorded.inputs.get(name)
        if facts is not None and facts.partitions < partitions:
            return f"topic {name} had {counted(facts.partitions, 'partition')} and has {partitions}"
    return None


def _recorded(group: GroupId, journal: TopicInfo, environment: Environment) -> _Recorded | None:
    """What the first chunk that can be read in any partition says; None if none can be read."""
    with closing(environment.journals()) as reader:
        places = [TopicPartition(group.journal_topic, number) for number in range(journal.partitions)]
        for place, end in reader.stable_ends(places).items():
            if not end:
                continue
            try:
                start = reader.bounds(place).start
                offset, chunk = next(iter(reader.read(place, start, end)), (0, b""))
            except RetriableError:  # it is being truncated: any other partition has the same format
                continue
            version = format_of_chunk(chunk)
            if version is not None:
                return _Recorded(version, _inputs_in(chunk, offset, str(place)))
    return None


def _inputs_in(chunk: bytes, offset: int, where: str) -> Mapping[str, InputFacts]:
    """The inputs that an entry names: that of one chunk, such as each genesis."""
    try:
        first = next(assemble([(offset, chunk)], where), None)
    except FatalTaskError:  # it has several chunks, or is damaged: the restore reports that
        return {}
    return first.entry.identity.inputs if first is not None and first.entry.identity is not None else {}
