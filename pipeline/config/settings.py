"""The settings of one process, by section. Each class checks its values and the relations between them.

Each component is given only the part that it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from pipeline.config.addresses import host_and_port
from pipeline.config.sources import check_fields, checked
from pipeline.errors import ConfigError

__all__ = [
    "COMMAND_STARTUP_WAIT_S",
    "DEFAULT_BOOTSTRAP_SERVERS",
    "DEFAULT_TOPICS_DIR",
    "MAX_PORT",
    "NO_SIGNAL",
    "WORKER_STARTUP_WAIT_S",
    "Amount",
    "DrillSettings",
    "HttpSettings",
    "KafkaSettings",
    "OtelSettings",
    "ProducerSettings",
    "Settings",
    "WorkerSettings",
]

DEFAULT_BOOTSTRAP_SERVERS = "127.0.0.1:9092"
WORKER_STARTUP_WAIT_S = 60.0
COMMAND_STARTUP_WAIT_S = 10.0
NO_SIGNAL = "none"  # instead of a URL: the signal is not exported
DEFAULT_TOPICS_DIR = "topics"  # need not be there, unlike one that is asked for

# What a setting accepts, and how an error says it. A comparison with NaN fails, so NaN is refused.
Count = Annotated[int, Meta(ge=0, description="a whole number, 0 or more")]
PositiveCount = Annotated[int, Meta(gt=0, description="a whole number above 0")]
Amount = Annotated[float, Meta(ge=0, description="a number, 0 or more")]
MAX_PORT = 65_535
Port = Annotated[int, Meta(ge=0, le=MAX_PORT, description=f"a port up to {MAX_PORT}, or 0")]
PositiveAmount = Annotated[float, Meta(gt=0, description="a number above 0")]
Switch = Annotated[bool, Meta(description="true or false")]
Names = Annotated[tuple[str, ...], Meta(description="a list of names")]


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach Kafka.

    Attributes:
        bootstrap_servers: Brokers to connect to first, as `HOST:PORT,...`.
        properties: Properties of librdkafka, such as those for TLS and SASL. They may be secrets, so `repr` omits them.
        startup_wait_s: How long a start retries while Kafka is unreachable, in seconds. None: 60 in a worker, 10 in
            other commands.

    Raises:
        ConfigError: A value is not allowed.

    Example:
        ```python
        KafkaSettings("kafka-1:9092,kafka-2:9092", {"security.protocol": "SSL"})
        ```
    """

    bootstrap_servers: str = DEFAULT_BOOTSTRAP_SERVERS
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)
    startup_wait_s: Amount | None = None

    def __post_init__(self) -> None:
        checked(Amount | None, "kafka.startup_wait_s", self.startup_wait_s)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The settings of a worker.

    Attributes:
        state_dir: Where tables are stored, in `<app>/<group>/<partition>`.
        worker_id: The owner in journal entries and the name of this worker for the others. Each worker needs its own.
            A worker that returns with the same id gets its tasks back. `--processes` appends `-1`, `-2`, ...
        commit_interval_ms: The longest time between commits of a task that is behind. A task that keeps up commits
            earlier, when 8 % of this time have passed since its last commit. Must be below `transaction_timeout_ms`.
            In milliseconds.
        max_records_per_commit: A task commits earlier at this number of input records.
        max_bytes_per_commit: A task commits earlier at this size of outputs and table writes. In bytes.
        max_commits_per_s: The limit for all tasks of a worker, and for the early commits of all workers of the app
            together. Above it, commits are larger and less frequent.
        max_poll_records: Records that one poll takes from the client. A partition is paused when twice as many wait.
        max_batch_records: The most records of a batch. While records wait, a poll for a group with only batch handlers
            takes as many, up to 8 MiB of values.
        poll_timeout_ms: How long a worker waits for input in one poll. While a commit is in progress, polls are
            shorter. A worker of one group in which nothing is in progress waits four times as long, and with more than
            8 tasks half of it for each task, up to 100 ms. In milliseconds.
        cache_bytes: Decoded values in memory, of all tables of all tasks of the process together. Sizes are estimated
            from samples. In bytes.
        block_cache_bytes: The block cache of RocksDB with the write buffers, for all tasks of the process together.
            In bytes.
        start: Where a new group starts to read an input. It is used once and then recorded in the journal.
        replication_factor: Of the topics that the worker creates. 0: 3, or the number of brokers if there are fewer.
        transaction_timeout_ms: When Kafka aborts the transaction of a dead worker. A restore may have to wait for it.
            In milliseconds.
        retry_backoff_ms: How long the client waits before it repeats a request. A commit that takes 0.7 of this time
            or longer requires a new producer, so set it well above the commit time of your cluster. In milliseconds.
        mirror_interval_s: How often positions are written to the consumer group, for lag tools. In seconds.
        check_interval_s: How often the journal, the inputs and the output topics are compared with those of the
            start. In seconds.
        stop_timeout_s: How long a stopping worker may take for the current records and its last commits. Then it ends
            with exit code 1. The grace period of a container must be longer. In seconds.
        handler_warning_s: A handler that processes one record, or one batch, for this long is logged as
            `handler_has_not_returned` with its stack; again whenever the time doubles. In seconds.
        weight: The share of the tasks: a worker of weight 2 gets twice as many as one of weight 1.
        groups: The groups that the worker runs. Empty: all groups of the app. The workers that run a group share its
            tasks.
        membership_interval_s: How often a worker reads the list of workers; five times as often until it has tasks.
            With more than 50 workers, the interval is longer in proportion. In seconds.
        join_delay_s: How long the list must be unchanged before a worker takes tasks that no worker runs. Workers
            that start together then share the tasks at once. In seconds.
        handoff_timeout_s: How long a worker that is ready for a task waits for its live owner to release it. Then it
            takes the task over. In seconds.
        state_cleanup_delay_s: A local state is deleted when another worker has had its task for this long. 0: never.
            In seconds.
        checkpoint_store: `file:///DIRECTORY`, `s3://BUCKET/PREFIX`, `gs://...` or `az://...`.
            Empty: no checkpoints are made, and journals are never truncated. All workers of an app need the
            same value.
        checkpoint_interval_s: The time between checkpoints of a task that has committed since the last one. In
            seconds.
        checkpoint_journal_bytes: A checkpoint is made earlier when the journal has grown by this much. It is about
            the most that a restore replays. In bytes.
        checkpoint_journal_limit_bytes: A task stops reading input when its journal has grown by more than this since
            its last checkpoint, for example while the store is unavailable. 0: no limit. In bytes.
        checkpoint_bytes_per_s: The limit for all uploads of a process together. 0: no limit. Downloads have no limit.
            In bytes/s.
        checkpoint_grace_s: Objects that no kept checkpoint names are deleted when they are older than this. In
            seconds.
        peer_watch: With `on`, the workers of an app watch each other over TCP, so that the end of a process is
            detected at once. With `off`, this worker is not watched and watches no other: its end is detected by
            Kafka's session time-out.
        peer_host: The address to listen on for other workers. Empty: the address from which this host reaches Kafka.
        peer_port: The port to listen on. 0: a free port. With `--processes`, process n uses this port plus n - 1.
        peer_address: What other workers connect to, as `HOST` or `HOST:PORT`, if it is not where this process listens,
            as behind NAT. `HOST` is an IP address.
        topics_dir: The declarations that are compared with the cluster at the start. Empty: no comparison. The
            default directory need not exist.
        input_idle_s: An input of a group with windows is idle when all its records have been processed for this long.
            Then it does not hold the event clock. In seconds.
        sink_connections: To the database of each sink group, and so the number of transactions at the same time.

    Raises:
        ConfigError: A value is not allowed.

    Example:
        ```python
        WorkerSettings(state_dir=Path("/var/lib/orders"), commit_interval_ms=50)
        ```
    """

    state_dir: Path = Path(".pipeline/state")
    worker_id: str = ""
    commit_interval_ms: PositiveCount = 100
    max_records_per_commit: PositiveCount = 50_000
    max_bytes_per_commit: PositiveCount = 16 * 1024 * 1024
    max_commits_per_s: PositiveCount = 200
    max_poll_records: PositiveCount = 4_000
    max_batch_records: PositiveCount = 16_000
    poll_timeout_ms: Count = 5
    cache_bytes: PositiveCount = 224 * 1024 * 1024
    block_cache_bytes: Count = 48 * 1024 * 1024
    start: Literal["earliest", "latest"] = "earliest"
    replication_factor: Count = 0
    transaction_timeout_ms: PositiveCount = 20_000
    retry_backoff_ms: PositiveCount = 500
    mirror_interval_s: PositiveAmount = 3.0
    check_interval_s: PositiveAmount = 5.0
    stop_timeout_s: PositiveAmount = 30.0
    handler_warning_s: PositiveAmount = 10.0
    weight: PositiveCount = 1
    groups: Names = ()
    membership_interval_s: PositiveAmount = 1.0
    join_delay_s: Amount = 1.0
    handoff_timeout_s: PositiveAmount = 30.0
    state_cleanup_delay_s: Amount = 600.0
    peer_watch: Literal["on", "off"] = "on"
    peer_host: str = ""
    peer_port: Port = 0
    peer_address: str = ""
    checkpoint_store: str = ""
    checkpoint_interval_s: PositiveAmount = 60.0
    checkpoint_journal_bytes: PositiveCount = 64 * 1024 * 1024
    checkpoint_journal_limit_bytes: Count = 8 * 1024 * 1024 * 1024
    checkpoint_bytes_per_s: Count = 0
    checkpoint_grace_s: Amount = 3600.0
    topics_dir: str = DEFAULT_TOPICS_DIR
    input_idle_s: PositiveAmount = 30.0
    sink_connections: PositiveCount = 4

    def __post_init__(self) -> None:
        check_fields(self, "worker")
        host_and_port(self.peer_address)
        if self.commit_interval_ms >= self.transaction_timeout_ms:
            raise ConfigError("worker.commit_interval_ms must be below worker.transaction_timeout_ms")
        if 0 < self.checkpoint_journal_limit_bytes <= self.checkpoint_journal_bytes:
            raise ConfigError(
                "worker.checkpoint_journal_limit_bytes must be above worker.checkpoint_journal_bytes",
                hint="or 0, for no limit",
            )


@dataclass(frozen=True, slots=True)
class ProducerSettings:
    """The settings of `Producer` and `TransactionalProducer`.

    Attributes:
        max_records: The number of events that wait for delivery at most; then `send` waits.
        max_bytes: The same limit for their keys, values and headers. In bytes.
        max_block_s: How long `send` waits for room before it raises `QueueFullError`. In seconds.
        max_event_bytes: `send` refuses a larger event, and batches are kept below this size. Set it to the smallest
            `max.message.bytes` of your topics minus 100 at most: Kafka applies that limit to a whole batch. In bytes.
        delivery_timeout_s: An event that Kafka has not confirmed after this time has failed. In seconds.
        linger_ms: How long the client waits for more events for a batch. In milliseconds.
        transaction_timeout_ms: When Kafka aborts the transaction of a dead transactional producer. In milliseconds.
        commit_timeout_s: How long a transactional producer waits for the answer to a commit; then the outcome is
            unknown. In seconds.

    Raises:
        ConfigError: A value is not allowed.

    Example:
        ```python
        ProducerSettings(linger_ms=20, delivery_timeout_s=30)
        ```
    """

    max_records: PositiveCount = 100_000
    max_bytes: PositiveCount = 64 * 1024 * 1024
    max_block_s: Amount = 10.0
    max_event_bytes: PositiveCount = 1_000_000
    delivery_timeout_s: PositiveAmount = 120.0
    linger_ms: Count = 5
    transaction_timeout_ms: PositiveCount = 60_000
    commit_timeout_s: PositiveAmount = 60.0

    def __post_init__(self) -> None:
        check_fields(self, "producer")
        if self.delivery_timeout_s * 1000 <= self.linger_ms:
            raise ConfigError("producer.delivery_timeout_s must be longer than producer.linger_ms")


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The HTTP port of a worker, with metrics, probes and the status.

    Attributes:
        host: The address to listen on. Without a token, only the probes and the metrics are served to other hosts.
        port: The port. 0: no HTTP port, and nothing is counted for metrics unless they are exported. With
            `--processes`, process n uses this port plus n - 1.
        token: If it is set, all paths except the probes and the metrics require it: `Authorization: Bearer TOKEN`.
            `repr` omits it.

    Raises:
        ConfigError: A value is not allowed.

    Example:
        ```python
        HttpSettings(host="0.0.0.0", port=8080, token="...")
        ```
    """

    host: str = "127.0.0.1"
    port: Port = 0
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        check_fields(self, "http")
        if not self.host:
            raise ConfigError(
                "http.host is empty", hint="127.0.0.1 is this host only, 0.0.0.0 is every address"
            )

    @property
    def loopback(self) -> bool:
        """Whether only this host can connect."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class OtelSettings:
    """The export of metrics and traces to OpenTelemetry, over OTLP/HTTP. Without an endpoint, nothing is exported.

    The other variables of OpenTelemetry, such as `OTEL_EXPORTER_OTLP_HEADERS`, are read by its library.

    Attributes:
        endpoint: The URL of a collector. Metrics are sent to `v1/metrics` below it, traces to `v1/traces`.
        metrics_endpoint: The whole URL for metrics, instead of the one below `endpoint`; `none`: no metrics.
        traces_endpoint: The same for traces.
        links: The number of input records of a commit whose `traceparent` headers become links of its span at most.
        propagate: Whether outputs get the `traceparent` of the span of their commit, unless they have one.

    Raises:
        ConfigError: A value is not allowed.

    Example:
        ```python
        OtelSettings("http://collector:4318", metrics_endpoint="none")
        ```
    """

    endpoint: str = ""
    metrics_endpoint: str = ""
    traces_endpoint: str = ""
    links: Count = 8
    propagate: Switch = False

    def __post_init__(self) -> None:
        check_fields(self, "otel")
        for name in ("endpoint", "metrics_endpoint", "traces_endpoint"):
            url = getattr(self, name)
            if not url or (url == NO_SIGNAL and name != "endpoint"):
                continue
            if not url.startswith(("http://", "https://")):
                raise ConfigError(
                    f"otel.{name} is {url!r}; it must be a URL that begins with http:// or https://",
                    hint="a collector listens for OTLP/HTTP on port 4318: http://HOST:4318",
                )
            if "@" in url.split("/")[2]:
                raise ConfigError(
                    f"otel.{name} contains a password",  # the URL is logged
                    hint="set OTEL_EXPORTER_OTLP_HEADERS to an authorization header instead",
                )

    @property
    def metrics_url(self) -> str:
        """Where metrics are sent; empty: nowhere."""
        return self._url(self.metrics_endpoint, "v1/metrics")

    @property
    def traces_url(self) -> str:
        """Where traces are sent; empty: nowhere."""
        return self._url(self.traces_endpoint, "v1/traces")

    def _url(self, own: str, path: str) -> str:
        if own:
            return "" if own == NO_SIGNAL else own
        return f"{self.endpoint.rstrip('/')}/{path}" if self.endpoint else ""


@dataclass(frozen=True, slots=True)
class DrillSettings:
    """The settings of `pipeline drill`. A worker does not read them.

    Attributes:
        allow: The apps whose workers drills may harm. Without its name here, an app is never drilled.
        directory: Where reports and the intent file are written.
        poison_topics: Input topics to which `poison-record` may write a record that no handler can decode. The record
            stays in the topic, and every other reader of the topic gets it, too.
        broker_dir: The data directory of the broker that `broker-restart` and `broker-down` may stop. Empty: that of
            `pipeline broker start` for the port of the Kafka in use.
        steady_s: How long the app is observed before a fault. In seconds.
        rto_s: The recovery time objective: how long an affected task may be without a commit. In seconds.
        pause_s: How long a task that the fault should not affect may be without a commit. In seconds.
        timeout_s: When a drill gives up waiting for the recovery. It then restores what it changed. In seconds.

    Raises:
        ConfigError: A value is not allowed.

    Example:
        ```python
        DrillSettings(allow=("flights",), rto_s=30)
        ```
    """

    allow: Names = ()
    directory: Path = Path(".pipeline/drills")
    poison_topics: Names = ()
    broker_dir: str = ""
    steady_s: PositiveAmount = 5.0
    rto_s: PositiveAmount = 60.0
    pause_s: PositiveAmount = 5.0
    timeout_s: PositiveAmount = 180.0

    def __post_init__(self) -> None:
        check_fields(self, "drills")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one process.

    Attributes:
        kafka: How to reach Kafka.
        worker: The settings of a worker.
        producer: The settings of producers.
        http: The HTTP port of a worker.
        otel: The export of metrics and traces.
        drills: The settings of `pipeline drill`.

    Example:
        ```python
        app.run(Settings(KafkaSettings("kafka:9092"), WorkerSettings(worker_id="orders-1")))
        ```
    """

    kafka: KafkaSettings = KafkaSettings()
    worker: WorkerSettings = WorkerSettings()
    producer: ProducerSettings = ProducerSettings()
    http: HttpSettings = HttpSettings()
    otel: OtelSettings = OtelSettings()
    drills: DrillSettings = DrillSettings()
