"""The permissions in Kafka that the roles of an app need: `grants_of`. Pure.

Every topic, transactional id and consumer group of `core/names.py` has its row in `_RULES`, and a test fails for one
without a row. The operations are the fewest with which a role does its whole job; a test runs each role with exactly
these on a real broker. READ, WRITE, DELETE and ALTER imply DESCRIBE, and ALTER_CONFIGS implies DESCRIBE_CONFIGS
(StandardAuthorizerData in Kafka's source). WRITE on any topic implies IDEMPOTENT_WRITE (KIP-679).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from pipeline.core.names import (
    COPY_GROUP,
    JOURNAL_READER,
    LOADS_TOPIC,
    GroupId,
    copy_name,
    letter_counts_topic,
    load_transactional_id,
    producer_transactional_id,
    replay_marks_topic,
    workers_group,
    workers_topic,
)

__all__ = ["AppUse", "Grant", "GroupUse", "Operation", "ResourceKind", "Role", "grants_of"]


class Role(StrEnum):
    """What a principal does: run workers, or some commands."""

    WORKER = "worker"
    LOAD = "load"
    REPLAY = "replay"
    PURGE = "purge"
    RESET = "reset"
    STATUS = "status"
    INSPECT = "inspect"
    TOPICS = "topics"
    FORGET = "forget"
    MIGRATE_FROM = "migrate-from"
    MIGRATE_TO = "migrate-to"
    DRILL = "drill"
    PRODUCER = "producer"


class ResourceKind(StrEnum):
    """What a permission is about. The value is that of Kafka's tools."""

    TOPIC = "topic"
    GROUP = "group"
    TRANSACTIONAL_ID = "transactionalId"


class Operation(StrEnum):
    """An operation of Kafka's ACLs. The value is that of Kafka's tools."""

    READ = "Read"
    WRITE = "Write"
    CREATE = "Create"
    DELETE = "Delete"
    ALTER = "Alter"
    ALTER_CONFIGS = "AlterConfigs"
    DESCRIBE = "Describe"
    DESCRIBE_CONFIGS = "DescribeConfigs"


class Grant(NamedTuple):
    """The operations that are allowed on one resource. `prefixed`: on all resources whose names begin with `name`."""

    kind: ResourceKind
    name: str
    operations: tuple[Operation, ...]
    prefixed: bool = False


@dataclass(frozen=True, slots=True)
class GroupUse:
    """One group. `handlers`: it has a journal. `letters`: one of its handlers has `on_error="dead_letter"`."""

    id: GroupId
    inputs: tuple[str, ...]
    handlers: bool = True
    letters: bool = False


@dataclass(frozen=True, slots=True)
class AppUse:
    """What of an app's declarations decides its permissions.

    Attributes:
        app: The name of the app.
        topics: All topics that the app declares.
        written: Those of them that its handlers may write.
        loaded: Those of them that `pipeline produce` loads into.
        groups: The groups with handlers or sinks.
        truncates: Whether there is a checkpoint store, so that workers truncate journals.
    """

    app: str
    topics: tuple[str, ...]
    written: frozenset[str]
    loaded: tuple[str, ...]
    groups: tuple[GroupUse, ...]
    truncates: bool = False

    @property
    def read(self) -> frozenset[str]:
        """The topics that a group reads."""
        return frozenset(topic for group in self.groups for topic in group.inputs)


R, W, C, D = Operation.READ, Operation.WRITE, Operation.CREATE, Operation.DELETE
SEE, CONFIGS = Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS
_IMPLY_DESCRIBE = frozenset({R, W, D, Operation.ALTER})


class _Rule(NamedTuple):
    """The operations of each role on the resources that `names` gives for an app."""

    kind: ResourceKind
    names: Callable[[AppUse], Iterable[str]]
    operations: Mapping[Role, Sequence[Operation]]
    prefixed: bool = False


def _of_handlers(name: Callable[[GroupId], str]) -> Callable[[AppUse], Iterable[str]]:
    return lambda use: [name(group.id) for group in use.groups if group.handlers]


def _of_letters(name: Callable[[GroupId], str]) -> Callable[[AppUse], Iterable[str]]:
    return lambda use: [name(group.id) for group in use.groups if group.letters]


def _of_copies(name: Callable[[GroupId], str]) -> Callable[[AppUse], Iterable[str]]:
    """The groups with which `pipeline migrate` copies records into the topics that the app reads."""
    return lambda use: [name(GroupId(copy_name(topic), COPY_GROUP)) for topic in sorted(use.read)]


def _of_groups(name: Callable[[GroupId], str]) -> Callable[[AppUse], Iterable[str]]:
    return lambda use: [name(group.id) for group in use.groups]


# A topic that is described needs DESCRIBE and DESCRIBE_CONFIGS; one that is created if it is missing also needs CREATE.
# A command that relies on the end of a partition writes a barrier to it (transactions/proof.py), which needs WRITE.
_RULES: Sequence[_Rule] = (
    # The topics of the app.
    _Rule(
        ResourceKind.TOPIC,
        lambda use: use.topics,
        {
            **dict.fromkeys((Role.WORKER, Role.REPLAY, Role.PURGE, Role.RESET), (SEE, CONFIGS)),
            Role.INSPECT: (R, CONFIGS),
            Role.TOPICS: (C, Operation.ALTER, Operation.ALTER_CONFIGS),
        },
    ),
    _Rule(
        ResourceKind.TOPIC,
        lambda use: sorted(use.read),
        {
            **dict.fromkeys((Role.WORKER, Role.STATUS, Role.DRILL), (R,)),
            Role.FORGET: (SEE,),
            Role.MIGRATE_FROM: (R, CONFIGS),
            Role.MIGRATE_TO: (R, W, CONFIGS),
        },
    ),
    _Rule(ResourceKind.TOPIC, lambda use: sorted(use.written), {Role.WORKER: (W,)}),
    _Rule(ResourceKind.TOPIC, lambda use: use.loaded, {Role.LOAD: (W, CONFIGS), Role.PRODUCER: (W,)}),
    # The topics of the pipeline.
    _Rule(
        ResourceKind.TOPIC,
        _of_handlers(lambda group: group.journal_topic),
        {
            Role.WORKER: (C, R, W, CONFIGS),
            Role.RESET: (R, W, CONFIGS),
            **dict.fromkeys((Role.STATUS, Role.INSPECT, Role.DRILL, Role.MIGRATE_TO), (R, CONFIGS)),
            Role.MIGRATE_FROM: (R, W, CONFIGS),
            Role.FORGET: (D, CONFIGS),
        },
    ),
    _Rule(
        ResourceKind.TOPIC,
        _of_letters(lambda group: group.journal_topic),
        {Role.REPLAY: (R, CONFIGS), Role.PURGE: (R, CONFIGS)},
    ),
    _Rule(
        ResourceKind.TOPIC,
        lambda use: _of_handlers(lambda group: group.journal_topic)(use) if use.truncates else (),
        {Role.WORKER: (D,)},
    ),
    _Rule(
        ResourceKind.TOPIC,
        _of_letters(lambda group: group.dead_letter_topic),
        {
            Role.WORKER: (C, W, CONFIGS),
            Role.REPLAY: (R, W, CONFIGS),
            Role.PURGE: (R, W, D, CONFIGS),
            Role.INSPECT: (R, CONFIGS),
            **dict.fromkeys((Role.RESET, Role.STATUS, Role.DRILL), (SEE, CONFIGS)),
        },
    ),
    _Rule(
        ResourceKind.TOPIC,
        _of_letters(lambda group: group.replays_topic),
        {
            Role.WORKER: (C, R, CONFIGS),
            Role.REPLAY: (W, CONFIGS),
            **dict.fromkeys((Role.PURGE, Role.RESET, Role.INSPECT), (R, CONFIGS)),
            **dict.fromkeys((Role.STATUS, Role.DRILL, Role.MIGRATE_TO), (R,)),
        },
    ),
    _Rule(
        ResourceKind.TOPIC,
        lambda use: [workers_topic(use.app)],
        {
            Role.WORKER: (C, R, W, CONFIGS),
            **dict.fromkeys((Role.STATUS, Role.DRILL), (R, CONFIGS)),
            Role.FORGET: (D, CONFIGS),
        },
    ),
    _Rule(
        ResourceKind.TOPIC,
        lambda use: [replay_marks_topic(use.app)] if _has_letters(use) else (),
        {Role.REPLAY: (C, R, W, CONFIGS), Role.PURGE: (C, R, W, CONFIGS)},
    ),
    _Rule(
        ResourceKind.TOPIC,
        lambda use: [letter_counts_topic(use.app)] if _has_letters(use) else (),
        # A worker reads them for `pipeline_open_dead_letters`, and runs without.
        {
            Role.REPLAY: (C, R, W, CONFIGS),
            **dict.fromkeys((Role.STATUS, Role.DRILL, Role.WORKER), (R, CONFIGS)),
        },
    ),
    _Rule(ResourceKind.TOPIC, lambda _: [LOADS_TOPIC], {Role.LOAD: (C, R, W, CONFIGS)}),
    _Rule(
        ResourceKind.TOPIC, _of_copies(lambda copy: copy.journal_topic), {Role.MIGRATE_TO: (C, R, W, CONFIGS)}
    ),
    # Transactional ids.
    _Rule(
        ResourceKind.TRANSACTIONAL_ID,
        _of_handlers(lambda group: group.transactional_prefix),
        dict.fromkeys((Role.WORKER, Role.RESET, Role.MIGRATE_FROM), (W,)),
        prefixed=True,
    ),
    _Rule(
        ResourceKind.TRANSACTIONAL_ID,
        _of_letters(lambda group: group.replay_transactional_id),
        {Role.REPLAY: (W,), Role.PURGE: (W,)},
    ),
    _Rule(
        ResourceKind.TRANSACTIONAL_ID,
        lambda _: [load_transactional_id("")],
        {Role.LOAD: (W,)},
        prefixed=True,
    ),
    _Rule(
        ResourceKind.TRANSACTIONAL_ID,
        _of_copies(lambda copy: copy.transactional_prefix),
        {Role.MIGRATE_TO: (W,)},
        prefixed=True,
    ),
    _Rule(
        ResourceKind.TRANSACTIONAL_ID,
        lambda _: [producer_transactional_id("x").removesuffix("x")],
        {Role.PRODUCER: (W,)},
        prefixed=True,
    ),
    # Consumer groups. A journal reader commits nothing, but its client asks for the coordinator of the group again and
    # again. Commands that read dead letters or records ask only a few times, and need no permission for their groups.
    _Rule(
        ResourceKind.GROUP,
        lambda use: [workers_group(use.app)],
        {
            Role.WORKER: (R,),
            **dict.fromkeys((Role.STATUS, Role.DRILL, Role.FORGET, Role.MIGRATE_FROM), (SEE,)),
        },
    ),
    _Rule(
        ResourceKind.GROUP,
        _of_groups(lambda group: group.consumer_group),
        {Role.WORKER: (R,), Role.FORGET: (D,)},
    ),
    # A copy whose journal is lost has left offsets, and is refused.
    _Rule(ResourceKind.GROUP, _of_copies(lambda copy: copy.consumer_group), {Role.MIGRATE_TO: (SEE,)}),
    _Rule(
        ResourceKind.GROUP,
        lambda use: [group.id.consumer_group for group in use.groups if not group.handlers],
        {Role.STATUS: (SEE,), Role.DRILL: (SEE,)},
    ),
    _Rule(
        ResourceKind.GROUP,
        lambda _: [JOURNAL_READER],
        dict.fromkeys([role for role in Role if role not in {Role.FORGET, Role.PRODUCER}], (SEE,)),
    ),
)


def grants_of(use: AppUse, *roles: Role) -> list[Grant]:
    """The permissions of these roles together, one grant for each resource, by kind and name."""
    found: dict[tuple[ResourceKind, str, bool], set[Operation]] = {}
    for rule in _RULES:
        for name in rule.names(use):
            operations = [operation for role in roles for operation in rule.operations.get(role, ())]
            if operations:
                found.setdefault((rule.kind, name, rule.prefixed), set()).update(operations)
    return [
        Grant(kind, name, _least(operations), prefixed)
        for (kind, name, prefixed), operations in sorted(found.items(), key=lambda item: _order(*item[0]))
    ]


def _order(kind: ResourceKind, name: str, prefixed: bool) -> tuple[int, str, bool]:
    return list(ResourceKind).index(kind), name, prefixed


def _least(operations: set[Operation]) -> tuple[Operation, ...]:
    """Without DESCRIBE where another operation implies it."""
    needed = operations - {SEE} if operations & _IMPLY_DESCRIBE else operations
    return tuple(operation for operation in Operation if operation in needed)


def _has_letters(use: AppUse) -> bool:
    return any(group.letters for group in use.groups)
