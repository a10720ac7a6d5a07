"""Stand-ins for Kafka's own tools `kafka-acls.sh` and `kafka-configs.sh`, for the commands of a page.

The jar with these tools is not among those of the local broker. The stand-ins read the same options, connect with the
same file, and send the same requests through the Kafka client.
"""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path

from confluent_kafka.admin import AdminClient

from pipeline.core.permissions import Grant, Operation, ResourceKind
from tests.support.pages import ROOT
from tests.support.secure.kafka import User, binding, change_password

__all__ = ["install_tools"]

_ANSWER_S = 30.0
_FLAGS = {
    "--topic": ResourceKind.TOPIC,
    "--group": ResourceKind.GROUP,
    "--transactional-id": ResourceKind.TRANSACTIONAL_ID,
}


def install_tools(directory: Path) -> None:
    """Write both commands to the directory, which must be in PATH."""
    directory.mkdir()
    for name in ("kafka-acls.sh", "kafka-configs.sh"):
        path = directory / name
        path.write_text(
            f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m tests.support.secure.tools {name} "$@"\n'
        )
        path.chmod(0o755)


def _values(words: list[str], flag: str) -> list[str]:
    return [value for name, value in pairwise(words) if name == flag]


def _client(servers: str, file: Path) -> AdminClient:
    """A client with the settings of a properties file of the Java client."""
    settings = dict(line.split("=", 1) for line in file.read_text().splitlines() if line)
    login = dict(re.findall(r'(\w+)="([^"]*)"', settings["sasl.jaas.config"]))
    return AdminClient(
        {
            "bootstrap.servers": servers,
            "security.protocol": settings["security.protocol"],
            "ssl.ca.location": settings["ssl.truststore.location"],
            "sasl.mechanism": settings["sasl.mechanism"],
            "sasl.username": login["username"],
            "sasl.password": login["password"],
        }
    )


def _add_acls(words: list[str], admin: AdminClient) -> None:
    """The command `kafka-acls.sh --add`."""
    (principal,) = _values(words, "--allow-principal")
    operations = tuple(map(Operation, _values(words, "--operation")))
    prefixed = _values(words, "--resource-pattern-type") == ["prefixed"]
    grants = [
        Grant(kind, name, operations, prefixed)
        for flag, kind in _FLAGS.items()
        for name in _values(words, flag)
    ]
    acls = [binding(principal, grant, operation) for grant in grants for operation in operations]
    for future in admin.create_acls(acls).values():
        future.result(_ANSWER_S)


def _add_user(words: list[str], admin: AdminClient) -> None:
    """The command `kafka-configs.sh --alter --entity-type users`, for a password."""
    assert _values(words, "--entity-type") == ["users"]
    (name,), (config,) = _values(words, "--entity-name"), _values(words, "--add-config")
    found = re.fullmatch(r"SCRAM-SHA-512=\[password=(.*)\]", config)
    assert found is not None, config
    change_password(admin, User(name, found[1]))


def main(tool: str, words: list[str]) -> None:
    """Run one of the tools."""
    (servers,), (file,) = _values(words, "--bootstrap-server"), _values(words, "--command-config")
    admin = _client(servers, Path(file))
    if tool == "kafka-acls.sh":
        _add_acls(words, admin)
    else:
        _add_user(words, admin)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
