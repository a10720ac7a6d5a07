"""Writes the transactions of one task: `KafkaProducers` opens `KafkaTransactionalProducer`.

Guarantees that a commit contains every record that was enqueued. Outputs have no delivery callback, because one costs a
Python call per record. Instead, the transactional client records a failed delivery, and `flush` checks for it. Some
failures, such as a topic that does not exist, are reported only by the commit. `commit` then raises AbortableError
before the client sends the request. One thread at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.core.suggestions import counted
from pipeline.errors import (
    AbortableError,
    FatalTaskError,
    InvariantError,
    PipelineError,
    RefusedError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.kafka import clients
from pipeline.kafka.clients import ProducerLimits
from pipeline.kafka.errors import error_of, is_fencing, refusal_hint, refusing_topic, transaction_failure
from pipeline.ports import Output

__all__ = ["KafkaProducers", "KafkaTransactionalProducer"]

_INIT_TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 1.0
_ROOM_POLL_S = 0.005


class KafkaProducers:
    """Opens transactional producers on one cluster. `limits` must contain every topic that is written."""

    def __init__(self, settings: KafkaSettings, limits: ProducerLimits | None = None) -> None:
        self._settings = settings
        self._limits = limits or ProducerLimits()

    def open(self, transactional_id: str) -> KafkaTransactionalProducer:
        """A producer before `init`: it has not fenced any other. Raises ConfigError."""
        properties = clients.producer(self._settings, transactional_id, self._limits)
        client = clients.open_client(Producer, properties)
        known = next(iter(self._limits.message_bytes or {}), None)
        return KafkaTransactionalProducer(client, transactional_id, self._limits.largest_message, known)

    def learn(self, message_bytes: Mapping[str, int]) -> None:
        """Update `max.message.bytes` by topic. Producers opened from now on keep their batches within it."""
        known = {**(self._limits.message_bytes or {}), **message_bytes}
        self._limits = replace(self._limits, message_bytes=known)


class KafkaTransactionalProducer:
    """`ports.TransactionalClient` on one client, which takes records of up to `largest_message` bytes.

    `known`: a topic that exists.
    """

    def __init__(
        self, producer: Producer, transactional_id: str, largest_message: int, known: str | None = None
    ) -> None:
        self._producer = producer
        self._known = known
        self._id = transactional_id
        self._too_large = _zeros(largest_message + 1)
        self._topic: str | None = None  # one that this client writes
        self._sent: list[Sequence[Output]] = []  # to name the record that a broker refused
        # The offsets of the delivered chunks in order of delivery; partitions in the order of the first `append`.
        self._offsets: dict[tuple[str | None, int | None], list[int]] = {}
        self._chunks = 0
        self._chunk_error: KafkaError | None = None

    def init(self) -> None:
        """Fence all earlier producers with this id and end their open transaction."""
        self._connect()
        try:
            self._producer.init_transactions(_INIT_TIMEOUT_S)
        except KafkaException as exception:
            error = error_of(exception)
            if error.retriable():
                raise UnreachableError(f"init of {self._id}: {error.str()} ({error.name()})") from exception
            needs = f"Write on transactional id {self._id}"
            raise transaction_failure(error, f"init of {self._id}", needs=needs) from exception

    def _connect(self) -> None:
        """Wait until a broker has answered.

        Without a connection, the client looks for the transaction coordinator again only after 500 ms. With 32 clients
        that are opened at once, most of them would wait for that.
        """
        if self._known is not None:
            with suppress(KafkaException):  # Kafka is unreachable, and `init` reports it
                self._producer.list_topics(self._known, timeout=_CONNECT_TIMEOUT_S)

    def begin(self) -> None:
        self._forget()
        try:
            self._producer.begin_transaction()
        except KafkaException as exception:
            raise self._failure(exception, "begin") from exception

    def send(self, outputs: Sequence[Output]) -> None:
        """Enqueue all outputs. Waits while the client's queue is full."""
        self._sent.append(outputs)
        if outputs:
            self._topic = outputs[0][0]
        produce = self._producer.produce
        try:
            for output in outputs:
                topic, key, value, timestamp_ms, headers = output
                try:
                    if headers:
                        produce(topic, value, key, -1, None, None, timestamp_ms, list(headers))
                    else:
                        produce(topic, value, key, -1, None, None, timestamp_ms)
                except BufferError:
                    self._send_when_there_is_room(output)
        except KafkaException as exception:
            raise self._enqueue_failure(exception, Output(*output)) from exception

    def append(self, journal: TopicPartition, chunks: Sequence[bytes], key: bytes | None = None) -> None:
        """Enqueue the chunks of an entry, in order, for this partition."""
        self._offsets.setdefault(journal, [])
        self._topic = journal.topic
        for chunk in chunks:
            self._chunks += 1
            while True:
                try:
                    self._producer.produce(
                        journal.topic, chunk, key, journal.partition, on_delivery=self._chunk_delivered
                    )
                    break
                except BufferError:
                    self._serve(self._producer.poll, _ROOM_POLL_S)
                except KafkaException as exception:
                    refused = Output(journal.topic, None, chunk, 0)
                    raise self._enqueue_failure(exception, refused) from exception

    def flush(self) -> int:
        """Wait until every record is delivered. Returns the offset of the first appended chunk; -1 without chunks.

        1. Wait. The wait is bounded: undelivered records expire before the transaction does.
        2. Ask the client whether a delivery failed.
        3. Check that the offsets of the chunks are consecutive.
        """
        self._serve(self._producer.flush)
        self._check_healthy()
        if self._chunk_error is not None:
            raise AbortableError(f"{self._id}: a journal record was not delivered: {self._chunk_error.str()}")
        left, delivered = len(self._producer), sum(map(len, self._offsets.values()))
        if left or delivered != self._chunks:
            raise AbortableError(
                f"{self._id}: after flush {counted(left, 'record')} not sent, {delivered} of "
                f"{counted(self._chunks, 'chunk')} delivered"
            )
        entries = [offsets for offsets in self._offsets.values() if offsets]
        for offsets in entries:
            first = offsets[0]
            if first < 0 or offsets != list(range(first, first + len(offsets))):
                raise FatalTaskError(
                    f"{self._id}: the chunks of one entry are at {offsets}: another program writes to the journal",
                    hint="runbooks/journal-check-failed.md",
                )
        return entries[0][0] if entries else -1

    def appended_at(self) -> Mapping[TopicPartition, int]:
        """After `flush`: the offset of the first appended chunk, by partition."""
        return {
            TopicPartition(topic, number): offsets[0]
            for (topic, number), offsets in self._offsets.items()
            if topic is not None and number is not None and offsets
        }

    def commit(self, timeout_s: float | None = None) -> None:
        if not self._end("commit", timeout_s):
            raise UnknownOutcomeError(f"commit of {self._id}: no answer from Kafka in {timeout_s:g} s")

    def abort(self, timeout_s: float | None = None) -> None:
        if not self._end("abort", timeout_s):
            raise UnreachableError(f"abort of {self._id}: no answer from Kafka in {timeout_s:g} s")

    def close(self) -> None:
        """Discard undelivered records and release the client, without a request to the broker.

        The client's own `close` first flushes and aborts, so it blocks while brokers are unreachable. Dropping the last
        reference stops its threads. The successor's `init` ends an open transaction.
        """
        producer = self.__dict__.pop("_producer", None)
        if producer is None:
            return
        try:
            producer.purge(in_queue=True, in_flight=True, blocking=True)
            producer.poll(0)  # run the callbacks of the purged records, which refer to this object
        except (KafkaException, RuntimeError, SystemError) as error:
            clients.LOGGER.info("producer of %s closed with %s", self._id, error)
        self._forget()

    def _end(self, call: str, timeout_s: float | None) -> bool:
        """Commit or abort. Returns whether the transaction ended in time.

        The client may lose track of a transaction if the call to end it is repeated after a time-out. So it is not
        repeated after `timeout_s`, and the client must then be closed.
        """
        end = self._producer.commit_transaction if call == "commit" else self._producer.abort_transaction
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = () if deadline_s is None else (max(0.0, deadline_s - time.monotonic()),)
            try:
                end(*left_s)
                break
            except KafkaException as exception:
                if not error_of(exception).retriable():
                    raise self._failure(exception, call, ending=True) from exception
                if deadline_s is not None and time.monotonic() >= deadline_s:
                    return False
        self._forget()
        return True

    def _send_when_there_is_room(self, output: Output) -> None:
        topic, key, value, timestamp_ms, headers = output
        while True:
            # The loop is bounded: expired records leave the queue, and the client then refuses the next one.
            self._serve(self._producer.poll, _ROOM_POLL_S)
            try:
                self._producer.produce(topic, value, key, -1, None, None, timestamp_ms, list(headers))
            except BufferError:
                continue
            return

    def _chunk_delivered(self, error: KafkaError | None, message: Message) -> None:
        offset = message.offset()
        if error is not None or offset is None:
            self._chunk_error = error
        else:
            self._offsets[message.topic(), message.partition()].append(offset)

    def _serve(self, call: Callable[..., object], *arguments: float) -> None:
        """Call a function of the client that runs callbacks. The client raises from it after a fatal error.

        The exception becomes a SystemError if a delivery callback runs after it. In both cases the client keeps the
        error, and `_check_healthy` raises it.
        """
        try:
            call(*arguments)
        except (KafkaException, SystemError) as exception:
            self._check_healthy()
            raise UnknownOutcomeError(f"{self._id}: the Kafka client failed: {exception}") from exception

    def _check_healthy(self) -> None:
        """Raise the error of the open transaction, if it has one.

        The client has no call for this, but `begin_transaction` inside a transaction reports it: _STATE, without any
        effect, if the transaction is healthy, and else the transaction's error. It is called only after a failure,
        because the client never frees the error of an exception that it raises: 160 bytes for each commit.
        """
        if self._accepts_records():
            return
        try:
            self._producer.begin_transaction()
        except KafkaException as exception:
            error = error_of(exception)
            if error.code() == KafkaError._STATE and not error.txn_requires_abort():  # noqa: SLF001
                return
            raise self._failure(exception, "flush") from exception
        raise InvariantError(f"{self._id}: flushed outside of a transaction")

    def _accepts_records(self) -> bool:
        """Whether a transaction is open and has no error: the client accepts records only then.

        It is offered a record that is too large. It checks the transaction before the size, enqueues nothing, and
        returns the reason instead of raising it. False also if no topic is known to which a record could go.
        """
        if self._topic is None:
            return False
        offered: dict[str, object] = {"value": self._too_large}
        self._producer.produce_batch(self._topic, [offered])
        error = offered.get("_error")
        return isinstance(error, KafkaError) and error.code() == KafkaError.MSG_SIZE_TOO_LARGE

    def _enqueue_failure(self, exception: KafkaException, output: Output) -> PipelineError:
        """The exception for a record that the client refused. If the transaction has already failed, that error."""
        error = error_of(exception)
        if error.code() in {KafkaError._STATE, KafkaError._FATAL}:  # noqa: SLF001
            self._check_healthy()
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            kind = (
                AbortableError
                if any(output.topic == journal for journal, _ in self._offsets)
                else RefusedError
            )
            return kind(
                f"{self._id}: a record of {_size(output)} bytes for topic {output.topic} is too large",
                hint=f"raise max.message.bytes of {output.topic} or send smaller records",
            )
        if is_fencing(error):
            return transaction_failure(error, f"send of {self._id}")
        return AbortableError(f"{self._id}: a record for topic {output.topic} was refused: {error.str()}")

    def _failure(self, exception: KafkaException, call: str, *, ending: bool = False) -> PipelineError:
        error = error_of(exception)
        failure = transaction_failure(
            error, f"{call} of {self._id}", ending=ending, needs=self._needed_for(error)
        )
        if isinstance(failure, AbortableError):
            # The client names at most the topic. The refused record is one of these.
            message = f"{failure.message}; largest records sent: {self._largest_per_topic()}"
            topic = refusing_topic(error)
            if topic is None or any(topic == journal for journal, _ in self._offsets):
                return AbortableError(message)
            return RefusedError(message, hint=refusal_hint(error), topic=topic)
        return failure

    def _needed_for(self, error: KafkaError) -> str:
        """The permissions that a transaction needs. The client does not say which topic was denied."""
        if error.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            return f"Write on transactional id {self._id}"
        topics = {output[0] for outputs in self._sent for output in outputs}
        topics |= {topic for topic, _ in self._offsets if topic is not None}
        return f"Write on {' and '.join(f'topic {topic}' for topic in sorted(topics)) or 'the topic'}"

    def _largest_per_topic(self) -> str:
        largest: dict[str, int] = {}
        for outputs in self._sent:
            for output in outputs:
                named = Output(*output)  # the hot path sends plain tuples
                largest[named.topic] = max(largest.get(named.topic, 0), _size(named))
        return ", ".join(f"{topic} {size} bytes" for topic, size in sorted(largest.items()))

    def _forget(self) -> None:
        self._sent.clear()
        self._offsets.clear()
        self._chunks = 0
        self._chunk_error = None


@lru_cache(maxsize=4)
def _zeros(size: int) -> bytes:
    """Shared by all producers of the process."""
    return bytes(size)


def _size(output: Output) -> int:
    headers = sum(len(name) + len(value or b"") for name, value in output.headers)
    return len(output.key or b"") + len(output.value or b"") + headers
