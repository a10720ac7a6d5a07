"""The properties of the Kafka clients that this package opens.

There are three layers, and later ones override earlier ones: the tuning of this package, the user's `[kafka]`
properties, and the properties that the guarantees depend on. The log of the client goes to the logger
`pipeline.kafka`, never to stderr.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import KafkaException

from pipeline.config import KafkaSettings, ProducerSettings, is_secret
from pipeline.core.names import JOURNAL_READER
from pipeline.core.recovery_time import MEMBER_HEARTBEAT_S, MEMBER_SESSION_S
from pipeline.core.suggestions import counted
from pipeline.errors import ConfigError
from pipeline.kafka.errors import error_of, request_failure

__all__ = [
    "LOGGER",
    "ProducerLimits",
    "RepeatFilter",
    "admin",
    "announcer",
    "broker_addresses",
    "consumer",
    "events",
    "global_error",
    "journal",
    "member",
    "open_client",
    "producer",
]

LOGGER = logging.getLogger("pipeline.kafka")
QUIET_S = 30.0
SESSION_TIMEOUT_MS = round(MEMBER_SESSION_S * 1000)
STUCK_TIMEOUT_MS = 30_000

# A client logs a warning on stderr, before it has a logger, about properties of the other kind of client.
_PRODUCER_ONLY = (
    "batch.",
    "compression.",
    "linger.",
    "queue.buffering.",
    "sticky.",
    "topic.metadata.propagation.",
)
_CONSUMER_ONLY = ("check.crcs", "fetch.", "group.", "heartbeat.", "max.poll.", "queued.", "session.")

ClientT = TypeVar("ClientT")
Properties = dict[str, Any]

_DEFAULT_MESSAGE_BYTES = 1_000_000  # below the broker's default of 1,048,588
# A dead letter is a record of any size plus headers with the reason. The second value is the client's maximum.
_DEAD_LETTER_BYTES = 64 * 1024
_MOST_MESSAGE_BYTES = 1_000_000_000
_BELOW_LIMIT = 100  # the required distance of max_event_bytes from the smallest max.message.bytes
_SHORTEST_FETCH_WAIT_MS, _LONGEST_FETCH_WAIT_MS = 100, 500
_BATCH_OVERHEAD = 512  # what the client counts in addition to key, value and headers


# Fencing is the normal way to move a task, and the worker logs it itself. A new coordinator reads its log first, and
# the client retries.
_EXPECTED = (
    "fenced by a newer",
    "old epoch",
    "another concurrent operation on the same transaction",
    "Coordinator load in progress: retrying",
)


class RepeatFilter(logging.Filter):
    """Passes one of many equal log lines every `QUIET_S`, with the number of lines that it suppressed.

    Every client logs every failed connection, several times a second while a broker is unreachable. These thousands
    of lines hide the important ones. Lines are equal if they differ only in client name and duration.
    """

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, int]] = {}  # quiet until, suppressed lines

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if record.levelno > logging.INFO and any(said in text for said in _EXPECTED):
            record.levelno, record.levelname = logging.INFO, "INFO"
        alike = re.sub(r"\[[^]]*\]|\d+ ?ms\b", "", text)
        now = self._monotonic_s()
        with self._lock:
            until, count = self._seen.get(alike, (now, 0))
            if now < until:
                self._seen[alike] = (until, count + 1)
                return False
            if len(self._seen) > 1000:
                self._seen.clear()
            self._seen[alike] = (now + QUIET_S, 0)
        if count:
            record.msg, record.args = f"{text} (and {counted(count, 'line')} like it before)", ()
        return True


LOGGER.addFilter(RepeatFilter())


@dataclass(frozen=True, slots=True)
class ProducerLimits:
    """The limits of a transactional producer.

    `message_bytes` contains `max.message.bytes` of the app's topics. The smallest value limits a batch, because the
    broker checks the size of the whole batch. The largest value limits a record in the client, which also writes
    journal entries and dead letters. The size of each output is checked where it is sent.
    """

    transaction_timeout_ms: int = 20_000
    retry_backoff_ms: int = 500
    message_bytes: Mapping[str, int] | None = None

    @property
    def message_timeout_ms(self) -> int:
        """Below the transaction time-out, so that the producer aborts an undeliverable record first."""
        return self.transaction_timeout_ms * 3 // 4

    @property
    def largest_message(self) -> int:
        largest = max((self.message_bytes or {}).values(), default=0)
        return min(max(largest, _DEFAULT_MESSAGE_BYTES) + _DEAD_LETTER_BYTES, _MOST_MESSAGE_BYTES)

    @property
    def largest_batch(self) -> int:
        return _batch_within(min((self.message_bytes or {}).values(), default=_DEFAULT_MESSAGE_BYTES))


def _batch_within(message_bytes: int) -> int:
    """`batch.size` for a topic with this limit. The margin is for the batch header and for estimation errors."""
    return max(1, min(_DEFAULT_MESSAGE_BYTES, message_bytes - min(4096, message_bytes // 8)))


def consumer(settings: KafkaSettings, consumer_group: str, partitions: int = 0) -> Properties:
    """A consumer of inputs that reads committed records only. The caller manages the positions.

    `partitions`: it reads as many at most.
    """
    return _layers(
        settings,
        without=_PRODUCER_ONLY,
        tuning={
            # The fetcher sleeps this long when the queue is full. The default of 1000 halves the throughput.
            "fetch.queue.backoff.ms": "3",
            # A stale leader answers fetches without an error, so no error triggers a refresh.
            "topic.metadata.refresh.interval.ms": "30000",
            "fetch.wait.max.ms": str(_fetch_wait_ms(partitions)),
            "fetch.message.max.bytes": "1048576",
            "queued.min.messages": "50000",
            "queued.max.messages.kbytes": "32768",
        },
        owned={
            "group.id": consumer_group,
            "enable.auto.commit": "false",
            "enable.auto.offset.store": "false",
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": "false",
            "allow.auto.create.topics": "false",
        },
    )


def _fetch_wait_ms(partitions: int) -> int:
    """How long a broker holds a fetch request while no record arrives.

    Each broker has one fetch request at a time, and a rewound partition waits for the current one: so it is short. But
    each request lists all partitions, because the client has no fetch sessions. An empty one of a thousand partitions
    costs the broker 9 ms of CPU time, and the client 2.
    """
    return max(_SHORTEST_FETCH_WAIT_MS, min(_LONGEST_FETCH_WAIT_MS, partitions // 4))


def journal(settings: KafkaSettings) -> Properties:
    """A consumer that reads a range of a journal once, at full speed, and detects the end."""
    return _layers(
        settings,
        without=_PRODUCER_ONLY,
        tuning={
            "fetch.queue.backoff.ms": "3",
            # Only an empty response shows the end, so every read waits at least this long.
            "fetch.wait.max.ms": "10",
            "fetch.message.max.bytes": "8388608",
            "fetch.max.bytes": "67108864",
            "queued.min.messages": "100000",
            "queued.max.messages.kbytes": "65536",
        },
        owned={
            "group.id": JOURNAL_READER,  # required by the client; no offsets are committed to it
            "enable.auto.commit": "false",
            "enable.auto.offset.store": "false",
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": "true",
            "allow.auto.create.topics": "false",
        },
    )


def producer(settings: KafkaSettings, transactional_id: str, limits: ProducerLimits) -> Properties:
    """The producer of one task."""
    return _layers(
        settings,
        without=_CONSUMER_ONLY,
        tuning={
            "linger.ms": "5",  # `flush` sends records at once, whatever this value is
            "compression.type": "lz4",
            "queue.buffering.max.messages": "200000",
            "queue.buffering.max.kbytes": "262144",
            # How long a record for a topic that does not exist delays its transaction.
            "topic.metadata.propagation.max.ms": str(min(5000, limits.message_timeout_ms)),
        },
        owned={
            "transactional.id": transactional_id,
            "allow.auto.create.topics": "false",  # the default is true for producers
            "enable.idempotence": "true",
            "acks": "all",
            "partitioner": "murmur2_random",
            "transaction.timeout.ms": str(limits.transaction_timeout_ms),
            "message.timeout.ms": str(limits.message_timeout_ms),
            "retry.backoff.ms": str(limits.retry_backoff_ms),
            "retry.backoff.max.ms": str(limits.retry_backoff_ms),
            "message.max.bytes": str(limits.largest_message),
            "batch.size": str(limits.largest_batch),
        },
    )


def events(
    settings: KafkaSettings, producer: ProducerSettings, on_error: Callable[[Any], None]
) -> Properties:
    """A producer of a service's events, outside of transactions. `on_error` receives errors of no single call."""
    timeout_ms = int(producer.delivery_timeout_s * 1000)
    return _layers(
        settings,
        without=_CONSUMER_ONLY,
        tuning={
            "compression.type": "lz4",
            "topic.metadata.propagation.max.ms": str(min(5000, timeout_ms)),
        },
        owned={
            "allow.auto.create.topics": "false",
            "enable.idempotence": "true",
            "acks": "all",
            "partitioner": "murmur2_random",
            "linger.ms": str(producer.linger_ms),
            "message.timeout.ms": str(timeout_ms),
            "message.max.bytes": str(producer.max_event_bytes + _BATCH_OVERHEAD),
            # A larger event is sent in a batch of its own, so that its refusal affects no other event.
            "batch.size": str(_batch_within(producer.max_event_bytes + _BELOW_LIMIT)),
            # The caller enforces the limits, with headers included. These values are higher than the caller's.
            "queue.buffering.max.messages": str(producer.max_records + 1),
            "queue.buffering.max.kbytes": str((producer.max_bytes + producer.max_event_bytes) // 1024 + 64),
            "error_cb": on_error,
        },
    )


def member(settings: KafkaSettings, consumer_group: str, client_id: str) -> Properties:
    """A consumer that is a member of a group and reads no records."""
    return _layers(
        settings,
        without=_PRODUCER_ONLY,
        tuning={"heartbeat.interval.ms": str(round(MEMBER_HEARTBEAT_S * 1000))},
        owned={
            "group.id": consumer_group,
            "client.id": client_id,  # the only data about a member that the other members see
            "session.timeout.ms": str(SESSION_TIMEOUT_MS),
            # If a handler does not return for this long, its worker leaves the group.
            "max.poll.interval.ms": str(STUCK_TIMEOUT_MS),
            "partition.assignment.strategy": "range",
            "group.protocol": "classic",
            "enable.auto.commit": "false",
            "enable.auto.offset.store": "false",
            "allow.auto.create.topics": "false",
        },
    )


def announcer(settings: KafkaSettings) -> Properties:
    """A producer for a few records outside of transactions."""
    return _layers(
        settings,
        without=_CONSUMER_ONLY,
        tuning={"linger.ms": "0"},
        owned={
            "enable.idempotence": "true",
            "acks": "all",
            "allow.auto.create.topics": "false",
            "message.timeout.ms": "5000",
        },
    )


def admin(settings: KafkaSettings) -> Properties:
    """A client for metadata and administration."""
    return _layers(
        settings,
        without=_PRODUCER_ONLY + _CONSUMER_ONLY,
        tuning={},
        owned={"allow.auto.create.topics": "false"},
    )


def open_client(client: Callable[[Properties], ClientT], properties: Properties) -> ClientT:
    """Open a client. Raises ConfigError with the property that the client refuses."""
    try:
        return client(properties)
    except KafkaException as error:
        raise ConfigError(
            f"the Kafka client refuses its settings: {_without_secrets(error_of(error).str(), properties)}",
            hint="check the section [kafka] of the settings file, and the variables PIPELINE_KAFKA_*",
        ) from None  # the client's exception may have a secret


def _without_secrets(text: str, properties: Properties) -> str:
    """The text without the values of secret properties, some of which the client repeats in its errors."""
    for name, value in properties.items():
        if is_secret(name) and value:
            text = text.replace(str(value), "***")
    return text


def broker_addresses(admin: Any, timeout_s: float, where: str) -> list[str]:
    """The address of each broker, in the form of `bootstrap.servers`. Raises UnreachableError, ConfigError."""
    try:
        brokers = admin.list_topics(timeout=timeout_s).brokers.values()
    except KafkaException as error:
        raise request_failure(error_of(error), where) from error
    return [f"[{b.host}]:{b.port}" if ":" in str(b.host) else f"{b.host}:{b.port}" for b in brokers]


def _layers(
    settings: KafkaSettings, *, without: tuple[str, ...], tuning: Mapping[str, str], owned: Mapping[str, Any]
) -> Properties:
    return {
        "client.id": "pipeline",
        "socket.keepalive.enable": "true",
        "reconnect.backoff.max.ms": "1000",  # the default of 10 s is longer than a broker's restart
        **tuning,
        **{name: value for name, value in settings.properties.items() if not name.startswith(without)},
        "error_cb": global_error,
        **owned,
        "bootstrap.servers": settings.bootstrap_servers,
        "logger": LOGGER,
    }


def global_error(error: object) -> None:
    """Log an error of no single call, such as a lost connection. Calls that fail because of it report it themselves."""
    LOGGER.info("kafka client: %s", error)
