"""`pipeline acls MODULE:APP`: the permissions in Kafka that the principals of an app need."""

from __future__ import annotations

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

__all__ = ["acls"]


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
