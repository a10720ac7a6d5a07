"""Translates the Kafka client's errors to the errors of the package: one class per reaction. No other module does.

librdkafka classifies the failures of a transaction as fatal, abortable and retriable. Only three of its answers are
certain: the id was fenced, the transaction failed before the request to end it, or the same call may be repeated.
Every other answer is an unknown outcome, and the journal decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

from pipeline.errors import (
    AbortableError,
    ConfigError,
    DeliveryError,
    DeniedError,
    FatalTaskError,
    FencedError,
    OutOfRangeError,
    PipelineError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import Deadline, SystemClock

__all__ = [
    "NO_ANSWER",
    "delivery_failure",
    "denied",
    "error_of",
    "is_denied",
    "is_fencing",
    "is_login",
    "login_failure",
    "partition_failure",
    "request_failure",
    "transaction_failure",
    "until_settled",
]

T = TypeVar("T")

# A newer owner bumped the epoch, or the broker did so after a transaction time-out.
_FENCING = frozenset(
    {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}  # noqa: SLF001
)
NO_ANSWER = "check that Kafka runs and that bootstrap.servers is right"

_UNREACHABLE = frozenset(
    {
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._TIMED_OUT_QUEUE,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
        KafkaError._WAIT_COORD,  # noqa: SLF001
        KafkaError._WAIT_CACHE,  # noqa: SLF001
        KafkaError._NODE_UPDATE,  # noqa: SLF001
        KafkaError._DESTROY,  # noqa: SLF001
    }
)
# A missing permission, with what it is about. The broker never says which operation it denied.
_DENIED: Mapping[int, str] = {
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "the cluster",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "the consumer group",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "the topic",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "the transactional id",
}
_GRANT = (
    "grant this ACL to the user of this client, and run it again: `pipeline acls MODULE:APP` prints all that a worker "
    "needs, and with --role ROLE all that a command needs"
)
# The broker or the client refuses the connection: a wrong password, or a certificate that cannot be verified.
_LOGIN = frozenset(
    {KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED}  # noqa: SLF001
)
# The client's text for these names only its own functions and codes.
_NO_ANSWERS = frozenset({KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE})  # noqa: SLF001
_REFUSED = frozenset(
    {
        KafkaError._AUTHENTICATION,  # noqa: SLF001
        KafkaError._SSL,  # noqa: SLF001
        KafkaError._INVALID_ARG,  # noqa: SLF001
        KafkaError._UNSUPPORTED_FEATURE,  # noqa: SLF001
        KafkaError.SASL_AUTHENTICATION_FAILED,
        *_DENIED,
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_TRANSACTION_TIMEOUT,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_DELETION_DISABLED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.UNSUPPORTED_VERSION,
    }
)
_HINTS = {
    KafkaError.INVALID_CONFIG: "correct the setting; `pipeline topics schema` lists those of Kafka",
    KafkaError.INVALID_PARTITIONS: "correct the number of partitions",
    KafkaError.INVALID_REPLICATION_FACTOR: "correct the replication: there cannot be more replicas than brokers",
    KafkaError.INVALID_TRANSACTION_TIMEOUT: "lower worker.transaction_timeout_ms, or raise "
    "transaction.max.timeout.ms of the brokers",
    KafkaError.POLICY_VIOLATION: "a policy of the cluster forbids it: ask its administrator what it allows",
    KafkaError.TOPIC_DELETION_DISABLED: "the brokers do not allow the deletion of topics (delete.topic.enable)",
}
# No leader or coordinator yet: after the start of a broker or the creation of a topic, or while one moves.
_SETTLING = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)
_SETTLE_TIMEOUT_S = 15.0
# A topic does not exist, or not yet. The second code is the client's own for the same error.
_APPEARING = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._NOENT})  # noqa: SLF001
# Brokers learn of a new topic at different times, so another broker may already have reported it.
_APPEAR_TIMEOUT_S = 3.0
_SETTLE_POLL_S = 0.05
_NO_TOPIC = frozenset(
    {
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
_EXPIRED = frozenset(
    {
        KafkaError._MSG_TIMED_OUT,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._TIMED_OUT_QUEUE,  # noqa: SLF001
        KafkaError.REQUEST_TIMED_OUT,
    }
)
# Errors of a broker that refuses a record and would refuse it again.
_REFUSED_RECORD = {
    KafkaError.INVALID_TIMESTAMP: "compare the record's timestamp with message.timestamp.after.max.ms and "
    "message.timestamp.before.max.ms of the topic, and the worker's clock with the brokers'",
    KafkaError.INVALID_RECORD: "a compacted topic (cleanup.policy) accepts no record without a key",
    KafkaError.MSG_SIZE_TOO_LARGE: "max.message.bytes of the topic is below a record, or was lowered below a batch",
    KafkaError.RECORD_LIST_TOO_LARGE: "segment.bytes of the topic is below a batch: raise it",
}
_PURGED = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})  # noqa: SLF001
_OUT_OF_RANGE = frozenset(
    {
        KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError._LOG_TRUNCATION,  # noqa: SLF001
    }
)


def error_of(exception: KafkaException) -> KafkaError:
    """The error object in the client's exception."""
    error = exception.args[0]
    return error if isinstance(error, KafkaError) else KafkaError(KafkaError._FAIL, str(error))  # noqa: SLF001


def is_fencing(error: KafkaError) -> bool:
    return error.code() in _FENCING


def is_denied(error: KafkaError) -> bool:
    """Whether a permission is missing."""
    return error.code() in _DENIED


def denied(error: KafkaError, what: str, needs: str = "") -> DeniedError:
    """The exception for a missing permission. `needs`: the operation and the resource, as in `Read on topic flights`.

    No data is lost: the broker refused the whole request.
    """
    needs = needs or f"a permission on {_DENIED[error.code()]}"
    return DeniedError(f"{what}: Kafka denies this: it needs {needs} ({error.name()})", hint=_GRANT)


def is_login(error: KafkaError) -> bool:
    """Whether TLS or the login of a connection failed."""
    return error.code() in _LOGIN


def login_failure(error: KafkaError, what: str) -> ConfigError:
    """The exception for a connection whose TLS or login failed."""
    return ConfigError(
        f"{what}: Kafka and this client do not accept each other: {error.str()}",
        hint="check security.protocol, sasl.* and ssl.* in the section [kafka] of pipeline.toml and in the variables "
        "PIPELINE_KAFKA_*; docs/how-to/security.md shows a setup",
    )


def transaction_failure(
    error: KafkaError, what: str, *, ending: bool = False, needs: str = ""
) -> PipelineError:
    """The exception for a failed transactional call. `what` names the call and the transactional id.

    `needs`: the permissions that the call needs.

    `ending`: the call asks the coordinator to end the transaction. An abortable error then does not prove that nothing
    was committed, because librdkafka also reports it if the coordinator refused a request that may have been repeated.
    Only _INCONSISTENT is proof: it is raised before the request is sent, because a delivery failed.
    """
    reason = f"{what}: {error.str()} ({error.name()})"
    code = error.code()
    if code in _FENCING:
        return FencedError(f"{reason}: a newer producer has this transactional id")
    if code in _DENIED and not ending:
        return denied(error, what, needs)
    if code in _REFUSED and not ending:
        hint = _HINTS.get(code, "check the [kafka] settings of this client and the broker's limits")
        return ConfigError(reason, hint=hint)
    if error.txn_requires_abort() and (not ending or code == KafkaError._INCONSISTENT):  # noqa: SLF001
        return AbortableError(reason)
    return UnknownOutcomeError(reason)


def refusing_topic(error: KafkaError) -> str | None:
    """The topic of a record that a broker refuses for its content; empty if unknown, None for other errors."""
    if error.code() not in _REFUSED_RECORD:
        return None
    named = re.search(r"ProduceRequest for (\S+) \[", error.str())
    return named.group(1) if named else ""


def refusal_hint(error: KafkaError) -> str:
    """The next step for a record that a broker refuses for its content."""
    return _REFUSED_RECORD[error.code()]


def delivery_failure(error: KafkaError, what: str) -> PipelineError:
    """The exception for an event that was not delivered, or may not have been. `what` names the event."""
    code = error.code()
    reason = f"{error.str()} ({error.name()})"
    if code in _NO_TOPIC:
        return ConfigError(
            f"{what}: the topic does not exist",
            hint="create it: pipeline topics apply. Kafka hides topics from users without a permission on them",
        )
    if code == KafkaError.MSG_SIZE_TOO_LARGE:
        return ConfigError(
            f"{what}: rejected with its batch, which exceeds max.message.bytes of the topic",
            hint="set max_event_bytes of the producer to the smallest max.message.bytes of its topics, minus 100",
        )
    if code in _REFUSED or code in _REFUSED_RECORD:
        hint = _REFUSED_RECORD.get(code, "correct the [kafka] settings")
        refused = ConfigError(f"{what}: {reason}", hint=hint)
        return denied(error, what, "Write on the topic") if code in _DENIED else refused
    if code in _EXPIRED:
        return DeliveryError(
            f"{what}: not confirmed in time: {reason}",
            hint="check that Kafka runs; it may have been written: send it again with the same id",
        )
    if code in _PURGED:
        return DeliveryError(
            f"{what}: abandoned before it was confirmed",
            hint="it may have been written: send it again with the same id",
        )
    return DeliveryError(f"{what}: {reason}", hint="send it again with the same id")


def until_settled(ask: Callable[[], T], what: str, needs: str = "") -> T:
    """The result of `ask`, which is retried for a bounded time while no leader or coordinator is elected.

    `needs`: the permission that the request needs.
    """
    deadline = Deadline(SystemClock(), _SETTLE_TIMEOUT_S, _SETTLE_POLL_S)
    while True:
        try:
            return ask()
        except KafkaException as exception:
            error = error_of(exception)
            if not deadline.pause(_patience_s(error.code())):
                raise request_failure(error, what, needs) from exception


def _patience_s(code: int) -> float:
    if code in _SETTLING:
        return _SETTLE_TIMEOUT_S
    return _APPEAR_TIMEOUT_S if code in _APPEARING else -1.0


def request_failure(error: KafkaError, what: str, needs: str = "") -> PipelineError:
    """The exception for a failed request about metadata, offsets or administration.

    `needs`: the permission that the request needs.
    """
    code = error.code()
    reason = f"{what}: no answer" if code in _NO_ANSWERS else f"{what}: {error.str()} ({error.name()})"
    if code in _DENIED:
        return denied(error, what, needs)
    if code in _REFUSED:
        hint = _HINTS.get(code, "check the [kafka] settings of this client")
        return ConfigError(reason, hint=hint)
    if code in _UNREACHABLE or error.retriable() or not error.fatal():
        return UnreachableError(reason, hint=NO_ANSWER)
    return FatalTaskError(reason)


def partition_failure(error: KafkaError, where: str, position: int, needs: str = "") -> PipelineError | None:
    """The exception for a partition that can no longer be read; None for an error from which the client recovers.

    `needs`: the permission that reading needs.
    """
    code = error.code()
    if code in _OUT_OF_RANGE:
        return OutOfRangeError(
            f"{where}: position {position} is outside of the partition's offsets: {error.str()}",
            hint="follow runbooks/input-expired.md: retention removed records before they were processed",
        )
    if code in _UNREACHABLE or error.retriable():
        return None
    if code in _DENIED:
        return denied(error, where, needs)
    if code in _REFUSED:
        return ConfigError(
            f"{where}: {error.str()} ({error.name()})", hint="check the [kafka] settings of this client"
        )
    return FatalTaskError(f"{where} cannot be read: {error.str()} ({error.name()})")
