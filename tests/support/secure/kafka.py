"""A Kafka with TLS, SASL/SCRAM and an authorizer on loopback: `SecureKafka`.

The listener SECURE requires a password over TLS, and every request there is checked by Kafka's own authorizer. The
listener CLIENT of the local broker stays: every client there is a super user, and creates topics, users and ACLs
for the tests.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from pipeline.broker import LocalKafka
from pipeline.broker.ports import HOST, choose_ports
from pipeline.core.permissions import Grant, Operation, ResourceKind
from tests.support.kafka.coordinators import elect_coordinators
from tests.support.secure.certificates import Certificates, make_certificates
from tests.support.waiting import wait_until

__all__ = ["SecureKafka", "User", "binding", "change_password", "secure_kafka"]

_ANSWER_S = 30.0
_OPERATIONS = {
    Operation.READ: AclOperation.READ,
    Operation.WRITE: AclOperation.WRITE,
    Operation.CREATE: AclOperation.CREATE,
    Operation.DELETE: AclOperation.DELETE,
    Operation.ALTER: AclOperation.ALTER,
    Operation.ALTER_CONFIGS: AclOperation.ALTER_CONFIGS,
    Operation.DESCRIBE: AclOperation.DESCRIBE,
    Operation.DESCRIBE_CONFIGS: AclOperation.DESCRIBE_CONFIGS,
}
_KINDS = {
    ResourceKind.TOPIC: ResourceType.TOPIC,
    ResourceKind.GROUP: ResourceType.GROUP,
    ResourceKind.TRANSACTIONAL_ID: ResourceType.TRANSACTIONAL_ID,
}


@dataclass(frozen=True)
class User:
    """A user with a password, without any permission until one is granted."""

    name: str
    password: str


class SecureKafka:
    """One running cluster. `servers`: of the listener with TLS and SASL. `plain`: of the super user."""

    def __init__(self, servers: str, plain: str, certificates: Certificates) -> None:
        self.servers = servers
        self.plain = plain
        self.certificates = certificates
        self._admin = AdminClient({"bootstrap.servers": plain})

    def user(self, name: str, password: str = "") -> User:
        """Create a user. Default: with a random password."""
        made = User(name, password or secrets.token_urlsafe(12))
        change_password(self._admin, made)
        return made

    def grant_only(self, user: User, grants: Iterable[Grant]) -> None:
        """Take all permissions of the user away, allow these operations, and wait until that is in force."""
        self.revoke_all(user)
        principal = f"User:{user.name}"
        acls = [binding(principal, grant, operation) for grant in grants for operation in grant.operations]
        if not acls:
            return
        for future in self._admin.create_acls(acls).values():
            future.result(_ANSWER_S)
        wait_until(lambda: self._count(user) == len(acls), lambda: f"ACLs of {user.name} do not appear")

    def revoke_all(self, user: User) -> None:
        """Take all permissions of the user away."""
        for future in self._admin.delete_acls([_everything(user)]).values():
            future.result(_ANSWER_S)
        wait_until(lambda: not self._count(user), lambda: f"ACLs of {user.name} are left")

    def settings(self, user: User) -> str:
        """The text of a `pipeline.toml` with which the user connects."""
        return (
            "[kafka]\n"
            f'bootstrap.servers = "{self.servers}"\n'
            'security.protocol = "SASL_SSL"\n'
            f'ssl.ca.location = "{self.certificates.authority}"\n'
            'sasl.mechanism = "SCRAM-SHA-512"\n'
            f'sasl.username = "{user.name}"\n'
            f'sasl.password = "{user.password}"\n'
        )

    def variables(self, user: User) -> dict[str, str]:
        """The same settings as environment variables."""
        return {
            "PIPELINE_KAFKA": self.servers,
            "PIPELINE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "PIPELINE_KAFKA_SSL_CA_LOCATION": str(self.certificates.authority),
            "PIPELINE_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "PIPELINE_KAFKA_SASL_USERNAME": user.name,
            "PIPELINE_KAFKA_SASL_PASSWORD": user.password,
        }

    def _count(self, user: User) -> int:
        return len(self._admin.describe_acls(_everything(user)).result(_ANSWER_S))


@contextmanager
def secure_kafka(
    directory: Path, certificates: Certificates | None = None, host: str = HOST
) -> Iterator[SecureKafka]:
    """Start one, and stop it at the end. `host`: the name of this machine in the certificates."""
    certificates = certificates or make_certificates(directory / "certificates")
    plain, secure = choose_ports(2)
    with LocalKafka(directory / "kafka", plain, settings=_broker_settings(host, secure, certificates)):
        elect_coordinators(f"{HOST}:{plain}")
        yield SecureKafka(f"{host}:{secure}", f"{HOST}:{plain}", certificates)


def _broker_settings(host: str, port: int, certificates: Certificates) -> dict[str, str]:
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    store = certificates.chain.with_name("kafka-store.pem")
    store.write_text(certificates.key.read_text() + certificates.chain.read_text())
    return {
        "listeners": f"SECURE://{HOST}:{port}",
        "advertised.listeners": f"SECURE://{host}:{port}",
        "listener.security.protocol.map": "SECURE:SASL_SSL",
        "listener.name.secure.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.secure.scram-sha-512.sasl.jaas.config": login,
        "listener.name.secure.ssl.keystore.type": "PEM",
        "listener.name.secure.ssl.keystore.location": str(store),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:admin",
        "allow.everyone.if.no.acl.found": "false",
    }


def change_password(admin: AdminClient, user: User) -> None:
    """Create the user, or change its password."""
    change = UserScramCredentialUpsertion(
        user.name, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), user.password.encode()
    )
    for future in admin.alter_user_scram_credentials([change]).values():
        future.result(_ANSWER_S)


def binding(principal: str, grant: Grant, operation: Operation) -> AclBinding:
    """The ACL that allows an operation."""
    return AclBinding(
        _KINDS[grant.kind],
        grant.name,
        ResourcePatternType.PREFIXED if grant.prefixed else ResourcePatternType.LITERAL,
        principal,
        "*",
        _OPERATIONS[operation],
        AclPermissionType.ALLOW,
    )


def _everything(user: User) -> AclBindingFilter:
    anything: Any = None  # the client's type hints require a text
    return AclBindingFilter(
        ResourceType.ANY,
        anything,
        ResourcePatternType.ANY,
        f"User:{user.name}",
        anything,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
