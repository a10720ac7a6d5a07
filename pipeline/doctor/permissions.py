"""Checks what the user of this client may do in Kafka against what a worker needs (core/permissions.py).

Brokers tell the operations on topics and groups that exist. They do not tell them for topics that do not exist yet and
for transactional ids, so these are tried: a creation that the brokers only validate, and a producer that begins and
writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from pipeline.core.permissions import Grant, Operation, ResourceKind
from pipeline.doctor.findings import Finding, ok, problem, unknown, warning
from pipeline.errors import DeniedError, UnreachableError
from pipeline.ports import Cluster, TopicSpec, TransactionalClients
from pipeline.ports.cluster import Probe
from pipeline.transactions.engine import try_fence

__all__ = ["check_permissions"]

_CHECK = "permissions"
_KINDS = {
    ResourceKind.TOPIC: "topic",
    ResourceKind.GROUP: "consumer group",
    ResourceKind.TRANSACTIONAL_ID: "transactional id",
}


def check_permissions(
    grants: Sequence[Grant],
    guessed: Collection[str],
    hint: str,
    cluster: Cluster,
    probe: Probe,
    producers: TransactionalClients,
) -> Iterator[Finding]:
    """Each permission of a worker. `hint`: the command that prints them.

    `guessed`: topics that a group reads, and of which it is not known whether another group writes them.
    """
    known = set(cluster.topics())
    missing: list[str] = []
    untold: list[str] = []
    for grant in grants:
        where = f"{_KINDS[grant.kind]} {grant.name}{'...' if grant.prefixed else ''}"
        lacks = _lacking(grant, known, cluster, probe, producers)
        if lacks is None:
            untold.append(where)
        elif lacks == (Operation.WRITE,) and grant.name in guessed:
            yield warning(
                _CHECK, f"this user of Kafka lacks Write on {where}", f"if a group writes to it: {hint}"
            )
        elif lacks:
            missing.append(f"{' and '.join(lacks)} on {where}")
    for each in missing:
        yield problem(_CHECK, f"this user of Kafka lacks {each}", hint)
    if untold:
        yield unknown(_CHECK, f"the brokers do not report the permissions on {', '.join(untold)}")
    if not missing:
        yield ok(_CHECK, f"all of {len(grants) - len(untold)} resources that a worker uses are allowed")


def _lacking(
    grant: Grant, known: set[str], cluster: Cluster, probe: Probe, producers: TransactionalClients
) -> tuple[Operation, ...] | None:
    """The operations that are not allowed; None if that cannot be told."""
    if grant.kind is ResourceKind.TRANSACTIONAL_ID:
        return _denied(grant.operations, lambda: _try_producer(grant, producers))
    if grant.kind is ResourceKind.GROUP:
        return _compared(grant, lambda: probe.group_operations(grant.name))
    lacks = _compared(grant, lambda: probe.topic_operations(grant.name))
    if lacks is None and Operation.CREATE in grant.operations and grant.name not in known:
        return _denied(
            (Operation.CREATE,), lambda: cluster.create([TopicSpec(grant.name, 1)], check_only=True)
        )
    if lacks is None and grant.name not in known:
        return ()  # a topic of the app, whose absence is reported by its own check
    return lacks


def _compared(grant: Grant, ask: Callable[[], frozenset[Operation] | None]) -> tuple[Operation, ...] | None:
    try:
        allowed = ask()
    except DeniedError:
        return grant.operations  # not even DESCRIBE
    except UnreachableError:
        return None
    return None if allowed is None else tuple(each for each in grant.operations if each not in allowed)


def _denied(operations: tuple[Operation, ...], attempt: Callable[[], None]) -> tuple[Operation, ...] | None:
    try:
        attempt()
    except DeniedError:
        return operations
    except UnreachableError:
        return None
    return ()


def _try_producer(grant: Grant, producers: TransactionalClients) -> None:
    """Fence a transactional id that no task has. Kafka forgets it after a week."""
    try_fence(f"{grant.name}doctor" if grant.prefixed else grant.name, producers)
