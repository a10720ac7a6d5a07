"""How many tasks a group has: `tasks_in_identity`.

The number of tasks is that of the journal's partitions. It is chosen before genesis and never changes, because a task's
history contains the rows of its partitions. Format 1 of journals has one task for each partition of the inputs.

    row  journal                              declared                     tasks
    1    none                                 nothing                      the default for a new group
    2    none                                 N, at most the partitions    N
    3    as many partitions as the inputs     nothing, or that number      that number
    4    another number, format 2 or empty    nothing, or that number      that number
    5    another number, format 1             any                          refused: the inputs have grown
    6    any                                  another number               refused, naming `pipeline migrate`
    7    any                                  more than the partitions     refused: a task would have no input

Rows 3 and 4 do not depend on a read that may be stale: a chunk that is read has the format of its journal, and where
none is read, the restore compares the identity. In row 3, the format is that of the history (`identity_in`).

An app that another one has replaced is often in row 5. So in rows 5 and 6, a retired app is refused as such.
"""

from __future__ import annotations

from contextlib import closing

from pipeline.api.group import DeclaredGroup
from pipeline.core.inputs import MAX_PARTITIONS
from pipeline.core.journal_format import Format, format_of_chunk
from pipeline.core.names import GroupId, TopicPartition
from pipeline.errors import ConfigError, RetriableError
from pipeline.ports import TopicInfo
from pipeline.runtime.environment import Environment
from pipeline.runtime.restore.retirement import refuse_retired

__all__ = ["tasks_in_identity"]


def tasks_in_identity(group: DeclaredGroup, partitions: int, environment: Environment) -> int:
    """The number of tasks, as an identity has it: 0 in format 1. `partitions`: those of each input topic.

    Raises ConfigError, UnreachableError.
    """
    where, declared = f"group {group.id.app}/{group.id.group}", group.tasks
    if declared is not None and declared > partitions:
        raise ConfigError(
            f"{where} has tasks={declared}, and its inputs have {partitions} partitions: a task needs one at least",
            hint=f"declare at most {partitions} tasks",
        )
    name = group.id.journal_topic
    journal = environment.cluster.describe([name]).get(name)
    if journal is None or journal.partitions == partitions == (declared or partitions):
        return _of_new(where, declared, partitions)
    if _recorded_format(group.id, journal, environment) == 1 and journal.partitions != partitions:
        refuse_retired(group.id, environment)
        raise ConfigError(
            f"{where}: its journal {name} has {journal.partitions} partitions, its input "
            f"{', '.join(topic.name for topic in group.inputs)} has {partitions}: keys are now in other partitions "
            "than their state",
            hint="follow runbooks/partitions-changed.md",
        )
    if declared is not None and declared != journal.partitions:
        refuse_retired(group.id, environment)
        raise ConfigError(
            f"{where} has tasks={declared}, and was started with {journal.partitions}: the number of tasks never "
            "changes, because the history of a task contains the rows of its partitions",
            hint=f"declare {journal.partitions} tasks; for another number, move to an app with another name: "
            "pipeline migrate",
        )
    return journal.partitions


def _of_new(where: str, declared: int | None, partitions: int) -> int:
    if declared is None:
        return 0
    if partitions > MAX_PARTITIONS:
        raise ConfigError(
            f"{where}: its inputs have {partitions} partitions; the most are {MAX_PARTITIONS}",
            hint="use topics with fewer partitions",
        )
    return declared


def _recorded_format(group: GroupId, journal: TopicInfo, environment: Environment) -> Format | None:
    """The format of a journal, by the first chunk that can be read in any partition; None if none can."""
    with closing(environment.journals()) as reader:
        places = [TopicPartition(group.journal_topic, number) for number in range(journal.partitions)]
        for place, end in reader.stable_ends(places).items():
            if not end:
                continue
            try:
                start = reader.bounds(place).start
                chunk = next((chunk for _, chunk in reader.read(place, start, end)), b"")
            except RetriableError:  # it is being truncated: any other partition has the same format
                continue
            version = format_of_chunk(chunk)
            if version is not None:
                return version
    return None
