"""The permissions of an app's principals, from its declarations: what `pipeline acls` prints.

`core/permissions.py` has the rules. Declarations do not tell which topics a handler writes: it may write every topic of
its app. So a topic counts as written if a group of handlers exists that does not read it; the user corrects this guess.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from pipeline.api.app import DeclaredApp
from pipeline.core.permissions import AppUse, Grant, GroupUse, ResourceKind, Role, grants_of
from pipeline.core.suggestions import did_you_mean
from pipeline.errors import InputError
from pipeline.runtime.dead_letter_topics import wants_letters

__all__ = [
    "Corrections",
    "PrincipalGrants",
    "document_of",
    "guessed_topics",
    "kafka_acls",
    "principals",
    "use_of",
    "yaml_of",
]

_FLAGS: Mapping[ResourceKind, str] = {
    ResourceKind.TOPIC: "--topic",
    ResourceKind.GROUP: "--group",
    ResourceKind.TRANSACTIONAL_ID: "--transactional-id",
}


@dataclass(frozen=True, slots=True)
class Corrections:
    """What the user says about topics. `loaded`: those that are loaded; empty: all that the app reads."""

    writes: Sequence[str] = ()
    only_reads: Sequence[str] = ()
    loaded: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class PrincipalGrants:
    """A principal of Kafka, such as `User:orders`, with its roles and their permissions."""

    principal: str
    roles: tuple[Role, ...]
    grants: tuple[Grant, ...]


def use_of(app: DeclaredApp, corrections: Corrections, *, truncates: bool) -> AppUse:
    """What of the app decides its permissions. `truncates`: whether its workers have a checkpoint store.

    Raises InputError if the corrections name a topic that the app does not declare.
    """
    for name in (*corrections.writes, *corrections.only_reads):
        if name not in app.topics:
            raise InputError(
                f"app {app.name} has no topic {name!r}{did_you_mean(name, app.topics)}",
                hint=f"its topics: {', '.join(app.topics)}",
            )
    groups = tuple(
        GroupUse(
            group.id,
            tuple(topic.name for topic in group.inputs),
            handlers=not group.sinks,
            letters=wants_letters(group),
        )
        for group in app.groups
    )
    written = _written(app, groups)
    written = (written | set(corrections.writes)) - set(corrections.only_reads)
    read = tuple(name for name in app.topics if any(name in group.inputs for group in groups))
    loaded = tuple(corrections.loaded) or read
    return AppUse(app.name, tuple(app.topics), frozenset(written), loaded, groups, truncates)


def guessed_topics(use: AppUse) -> list[str]:
    """The topics that a group reads and that count as written only because another group may write them."""
    return sorted(use.read & use.written)


def principals(use: AppUse, roles: Iterable[Role], principal: str | None) -> list[PrincipalGrants]:
    """The permissions of each role.

    Without `principal`, each role has a principal of its own: `User:APP` for workers, `User:APP-ROLE` for the others.
    With it, that principal has all roles.
    """
    chosen = tuple(dict.fromkeys(roles))
    if principal is not None:
        name = principal if ":" in principal else f"User:{principal}"
        return [PrincipalGrants(name, chosen, tuple(grants_of(use, *chosen)))]
    return [
        PrincipalGrants(_usual_principal(use.app, role), (role,), tuple(grants_of(use, role)))
        for role in chosen
    ]


def kafka_acls(found: PrincipalGrants, bootstrap_servers: str, command_config: str) -> list[str]:
    """The commands that grant these permissions. Resources with the same operations are in one command."""
    start = ["kafka-acls.sh", "--bootstrap-server", bootstrap_servers]
    if command_config:
        start += ["--command-config", command_config]
    start += ["--add", "--allow-principal", found.principal]

    def alike(grant: Grant) -> tuple[str, bool, tuple[str, ...]]:
        return grant.kind.value, grant.prefixed, grant.operations

    commands = []
    for (_, prefixed, operations), grants in groupby(sorted(found.grants, key=alike), alike):
        words = list(start)
        for operation in operations:
            words += ["--operation", operation]
        for grant in grants:
            words += [_FLAGS[grant.kind], grant.name]
        if prefixed:
            words += ["--resource-pattern-type", "prefixed"]
        commands.append(shlex.join(words))
    return commands


def document_of(found: PrincipalGrants) -> dict[str, object]:
    """The permissions as plain data. The entries of `acls` have the form of Strimzi's resource KafkaUser."""
    return {
        "principal": found.principal,
        "roles": [role.value for role in found.roles],
        "acls": [
            {
                "resource": {
                    "type": grant.kind.value,
                    "name": grant.name,
                    "patternType": "prefix" if grant.prefixed else "literal",
                },
                "operations": [operation.value for operation in grant.operations],
            }
            for grant in found.grants
        ],
    }


def yaml_of(found: Sequence[PrincipalGrants]) -> str:
    """The documents as YAML: a list of principals."""
    lines = []
    for each in found:
        lines += [f"- principal: {_text(each.principal)}", f"  roles: [{', '.join(each.roles)}]", "  acls:"]
        for grant in each.grants:
            pattern = "prefix" if grant.prefixed else "literal"
            lines += [
                "    - resource:",
                f"        type: {grant.kind.value}",
                f"        name: {_text(grant.name)}",
                f"        patternType: {pattern}",
                f"      operations: [{', '.join(grant.operations)}]",
            ]
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    """A quoted text. Names of topics and principals need no other escapes."""
    return "'" + value.replace("'", "''") + "'"


def _written(app: DeclaredApp, groups: Sequence[GroupUse]) -> set[str]:
    handlers = [group for group in groups if group.handlers]
    duplicates = {
        topic.dedup.duplicates_to.name
        for topic in app.topics.values()
        if topic.dedup is not None and topic.dedup.duplicates_to is not None
    }
    return duplicates | {name for name in app.topics if any(name not in group.inputs for group in handlers)}


def _usual_principal(app: str, role: Role) -> str:
    return f"User:{app}" if role is Role.WORKER else f"User:{app}-{role}"
