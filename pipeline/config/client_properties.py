"""Properties of the Kafka client in the settings: which are refused, which are secrets, which may be variables."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config.sources import PREFIX, names_a_service
from pipeline.errors import ConfigError

__all__ = [
    "CONNECTION_PROPERTIES",
    "KAFKA_VARIABLE",
    "OWNED_PROPERTIES",
    "connection_properties",
    "is_connection_variable",
    "is_secret",
    "refuse_owned",
]

KAFKA_VARIABLE = f"{PREFIX}KAFKA"

# Properties the guarantees rest on, with the reason that the error gives.
OWNED_PROPERTIES: Mapping[str, str] = {
    "acks": "a commit must be on every in-sync replica",
    "request.required.acks": "a commit must be on every in-sync replica",
    "batch.size": "it must fit into the smallest max.message.bytes of the topics written to",
    "allow.auto.create.topics": "topics are declared; a misspelled name must not create one",
    "auto.offset.reset": "the start of a task is recorded in its journal",
    "enable.auto.commit": "positions are in the journal",
    "enable.auto.offset.store": "positions are in the journal",
    "enable.idempotence": "a retry must not duplicate outputs",
    "enable.partition.eof": "the worker detects the end of a partition itself",
    "group.id": "it is derived from the app and the group",
    "group.instance.id": "workers are dynamic members",
    "isolation.level": "uncommitted records must not be read",
    "max.in.flight": "ordering and idempotence depend on it",
    "max.in.flight.requests.per.connection": "ordering and idempotence depend on it",
    "message.max.bytes": "it follows max.message.bytes of the topics written to",
    "message.timeout.ms": "it must stay below the transaction timeout",
    "delivery.timeout.ms": "it must stay below the transaction timeout",
    "message.send.max.retries": "outputs are retried until the transaction times out",
    "retries": "outputs are retried until the transaction times out",
    "metadata.broker.list": "it is another name of bootstrap.servers; use that one",
    "partitioner": "keys are partitioned as the Java client does",
    "retry.backoff.ms": "it times the protection against a repeated commit; set worker.retry_backoff_ms",
    "retry.backoff.max.ms": "it times the protection against a repeated commit; set worker.retry_backoff_ms",
    "transaction.timeout.ms": "a restore waits for it; set worker.transaction_timeout_ms",
    "transactional.id": "it fences a task",
}

# Parts of names of properties whose values are secrets.
_SECRET = ("password", "secret", "token", "key.pem", "oauthbearer.config", "jaas.config")
# Properties of connections can be variables, too: PIPELINE_KAFKA_SASL_PASSWORD is sasl.password.
_CONNECTION = ("SASL_", "SSL_", "SECURITY_")
CONNECTION_PROPERTIES = tuple(part.lower().replace("_", ".") for part in _CONNECTION)


def is_secret(name: str) -> bool:
    """Whether the value of a property of the Kafka client is a secret, such as a password or a private key."""
    return any(part in name for part in _SECRET)


def refuse_owned(properties: Mapping[str, str], where: str = "") -> None:
    """Raise ConfigError when what the guarantees rest on is among the properties; `where` names their place."""
    for name, reason in OWNED_PROPERTIES.items():
        if name in properties:
            raise ConfigError(f"{where}{name} cannot be set: {reason}", hint="remove it")


def connection_properties(environ: Mapping[str, str]) -> dict[str, str]:
    """The properties of connections from variables: the rest of the name, in lower case, with dots."""
    return {
        variable.removeprefix(f"{KAFKA_VARIABLE}_").lower().replace("_", "."): value
        for variable, value in environ.items()
        if is_connection_variable(variable)
    }


def is_connection_variable(variable: str) -> bool:
    """Whether the variable is a property of connections, and not set by Kubernetes for a service."""
    names = tuple(f"{KAFKA_VARIABLE}_{part}" for part in _CONNECTION)
    return variable.startswith(names) and not names_a_service(variable)
