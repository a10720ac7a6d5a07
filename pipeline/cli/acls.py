"""`pipeline acls MODULE:APP`: the permissions in Kafka that the principals of an app need.

`ROLES` has the role with which each command may do its work, and `grant_hint` the next step if one may not. A test
compares the table with the command line, so that each command that talks to Kafka has its ACLs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from pipeline.cli.lookup import find_app
from pipeline.cli.options import JsonOption, KafkaOption, print_json, print_message
from pipeline.config import load_settings
from pipeline.core.permissions import Role
from pipeline.ops.acls import (
    Corrections,
    document_of,
    guessed_topics,
    kafka_acls,
    principals,
    use_of,
    yaml_of,
)

__all__ = ["ROLES", "acls", "grant_hint", "role_of"]

_LOCAL = None  # needs no permission in Kafka

ROLES: Mapping[str, Role | None] = {
    "new": _LOCAL,
    "demo": _LOCAL,  # starts a Kafka of its own
    "worker": Role.WORKER,
    "status": Role.STATUS,
    "ui": Role.STATUS,
    "table show": Role.INSPECT,
    "table history": Role.INSPECT,
    "journal show": Role.STATUS,
    "journal forget": Role.FORGET,
    "debug": Role.INSPECT,
    "checkpoints list": Role.INSPECT,
    "checkpoints verify": Role.INSPECT,
    "checkpoints prune": Role.INSPECT,
    "deadletters list": Role.REPLAY,
    "deadletters show": Role.REPLAY,
    "deadletters replay": Role.REPLAY,
    "deadletters discard": Role.REPLAY,
    "deadletters purge": Role.PURGE,
    "reset": Role.RESET,
    "migrate plan": Role.MIGRATE_TO,
    "migrate run": Role.MIGRATE_TO,
    "migrate switch": Role.MIGRATE_TO,
    "migrate revive": Role.MIGRATE_FROM,
    "faust check": _LOCAL,
    "faust migrate": Role.WORKER,  # and Read on the consumer group and the changelogs of Faust
    "faust command": Role.WORKER,  # runs code of the app
    "drill list": _LOCAL,
    "drill plan": Role.DRILL,
    "drill run": Role.DRILL,
    "drill suite": Role.DRILL,
    "drill abort": _LOCAL,
    "drill undo": Role.DRILL,
    "drill proxy": _LOCAL,  # forwards what a worker sends
    "drill shadow-worker": Role.DRILL,
    "drill report list": _LOCAL,
    "drill report show": _LOCAL,
    "drill report diff": _LOCAL,
    "drill report export": _LOCAL,
    "drill report schema": _LOCAL,
    "doctor": Role.WORKER,  # run as the user of a worker
    "acls": _LOCAL,
    "topics plan": Role.TOPICS,
    "topics apply": Role.TOPICS,
    "topics set": Role.TOPICS,
    "topics export": Role.TOPICS,
    "topics list": Role.INSPECT,
    "topics show": Role.INSPECT,
    "topics schema": _LOCAL,
    "probe": _LOCAL,  # asks the HTTP port of a worker
    "produce": Role.LOAD,
    "loads list": Role.LOAD,
    "loads show": Role.LOAD,
    "consume": Role.INSPECT,
    "broker start": _LOCAL,
    "broker stop": _LOCAL,
    "broker status": _LOCAL,
    "broker logs": _LOCAL,
    "ring simulate": _LOCAL,
    "runbook": _LOCAL,
}
_APP = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def acls(
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app, as in flights.app:app.")],
    role: Annotated[
        list[Role] | None,
        typer.Option(
            metavar="ROLE",
            help=f"What the principal does: {', '.join(Role)}. Can be repeated. Default: worker.",
        ),
    ] = None,
    principal: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The principal, as in User:orders. Default: User:APP for workers, User:APP-ROLE for other roles.",
        ),
    ] = None,
    writes: Annotated[
        list[str] | None,
        typer.Option(metavar="TOPIC", help="A topic that the app reads and also writes. Can be repeated."),
    ] = None,
    only_reads: Annotated[
        list[str] | None,
        typer.Option(metavar="TOPIC", help="A topic that the app reads and never writes. Can be repeated."),
    ] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOPIC",
            help="For --role load: a topic to load into. Can be repeated. Default: all that the app reads.",
        ),
    ] = None,
    command_config: Annotated[
        str, typer.Option(metavar="FILE", help="The properties file with which kafka-acls.sh connects.")
    ] = "admin.properties",
    kafka: KafkaOption = None,
    yaml: Annotated[
        bool, typer.Option("--yaml", help="Print YAML, with the entries of Strimzi's KafkaUser.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Print the smallest set of ACLs with which the workers and the commands of an app do their work.

    Prints commands of Kafka's kafka-acls.sh, one on each line. Nothing is sent to Kafka. The permission to delete
    records of journals is included if pipeline.toml has a checkpoint store.
    """
    app = find_app(target)
    settings = load_settings({"bootstrap_servers": kafka})
    corrections = Corrections(writes or (), only_reads or (), topic or ())
    use = use_of(app, corrections, truncates=bool(settings.worker.checkpoint_store))
    found = principals(use, role or [Role.WORKER], principal)
    if json:
        print_json([document_of(each) for each in found])
    elif yaml:
        typer.echo(yaml_of(found), nl=False)
    else:
        for each in found:
            for command in kafka_acls(each, settings.kafka.bootstrap_servers, command_config):
                typer.echo(command)
    if any(Role.WORKER in each.roles for each in found):
        _explain_guesses(set(guessed_topics(use)) - set(corrections.writes))


def _explain_guesses(topics: set[str]) -> None:
    for name in sorted(topics):
        print_message(
            f"{name}: Write is included, because a group of the app may write it. If none does, add --only-reads {name}"
        )


def role_of(words: Sequence[str]) -> Role | None:
    """The role of the command with these words; None if it needs no permission."""
    for count in (3, 2, 1):
        name = " ".join(words[:count])
        if name in ROLES:
            return ROLES[name]
    return None


def grant_hint(words: Sequence[str]) -> str:
    """The next step if Kafka denies a command its work. `words`: its command line."""
    role = role_of(words)
    app = next((word for word in words if _APP.fullmatch(word)), "MODULE:APP")
    return (
        "grant this ACL to the user of this client, and run the command again: "
        f"`pipeline acls {app} --role {role or 'ROLE'}` prints all that it needs"
    )
