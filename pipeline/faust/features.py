"""What a Faust application may use, and what becomes of it here: the one table of features.

`pipeline faust check` prints it for an application, a worker refuses an application by it, and the page "Coming from
Faust" contains it. A feature that is not in the table is not known to this release; `pipeline faust check` lists it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

__all__ = ["FEATURES", "SETTINGS", "Feature", "Outcome", "markdown", "setting"]


class Outcome(Enum):
    """What becomes of a feature. In the order in which uses are reported."""

    REFUSED = "refused"
    DIFFERS = "differs"
    CARRIED = "same"


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature.

    Attributes:
        name: The feature as it is written in an application.
        outcome: What becomes of it.
        note: Why it is refused, or what is different; empty if it is the same.
        hint: What to do about a refused feature.
    """

    name: str
    outcome: Outcome
    note: str = ""
    hint: str = ""


def _same(name: str, note: str = "") -> Feature:
    return Feature(name, Outcome.CARRIED, note)


def _differs(name: str, note: str) -> Feature:
    return Feature(name, Outcome.DIFFERS, note)


def _refused(name: str, note: str, hint: str) -> Feature:
    return Feature(name, Outcome.REFUSED, note, hint)


_LATER = "not carried over yet"


def _later(name: str) -> Feature:
    """A feature that a later release will carry over."""
    return _refused(name, _LATER, "keep the application on Faust until a later release")


_OUTSIDE = "outside of an agent, a record is sent at least once; in an agent, exactly once"
_BELOW = "the engine below Faust's API is another one"
_NO_CALL = "remove the call"

# By area, for the page. The key is the name by which the rest of this package refers to a feature.
FEATURES: Mapping[str, Mapping[str, Feature]] = {
    "Agents": {
        "agent": _differs(
            "`@app.agent(topic)`",
            "an error stops the partition (or becomes a dead letter), where Faust skips the record",
        ),
        "agent.own_topic": _same("`@app.agent()` without a topic"),
        "agent.topics": _same("an agent on several topics"),
        "agent.pattern": _refused(
            "`app.topic(pattern=...)`",
            "the inputs of an application are fixed when it starts",
            "name the topics",
        ),
        "agent.channel": _refused(
            "an agent on `app.channel()`",
            "a channel in memory is lost with the process, so its values cannot be exactly once",
            "use a topic",
        ),
        "agent.yield": _same("`yield` in an agent"),
        "agent.sink": _same("`sink=` and `add_sink`", "a function that is a sink runs at least once"),
        "agent.concurrency": _differs(
            "`concurrency=`",
            "one instance for each task, and one event at a time: a schedule that Faust allows",
        ),
        "agent.isolated": _differs(
            "`isolated_partitions=True`",
            "one instance for each partition, as in Faust; after an error, only that instance starts again",
        ),
        "agent.supervisor": _differs(
            "`supervisor_strategy=`, `conf.agent_supervisor`",
            "not used: after an error, the error policy of the application decides",
        ),
        "agent.cast": _same("`agent.cast`, `agent.send`", _OUTSIDE),
        "agent.ask": _differs(
            "`agent.ask`, `ask_nowait`, `map`, `kvmap`, `join` outside of agents",
            "one reply topic for all processes of the app, and a time-out of 60 s",
        ),
        "agent.ask_inside": _refused(
            "`ask`, `map`, `kvmap` or `join` inside an agent",
            "the question is visible to the other agent only after the commit that the answer would have to precede",
            "use cast, and let the other agent send its result to a topic",
        ),
        "agent.test_context": _same("`agent.test_context()`", "runs on Faust, as before"),
    },
    "Streams": {
        "stream": _same("`async for value in stream`"),
        "stream.events": _same("`stream.events()`"),
        "stream.items": _same("`stream.items()`"),
        "stream.take": _differs(
            "`stream.take`, `take_events`, `take_with_timestamp`",
            "values that are waiting are rows of the state, in a table of their own. A batch is one step of one "
            "partition; in Faust, it may mix partitions. `within` is at least one second. An error stops the "
            "partition, also with another error policy. `add_processor` before it is refused",
        ),
        "stream.filter": _same("`stream.filter`, `add_processor`"),
        "stream.group_by": _differs(
            "`stream.group_by`",
            "records go through the same repartition topic, exactly once. A new one gets as many partitions as its "
            "source. A key function that raises is an error of its record, where Faust drops the record. The code "
            "before the loop also runs when the application is loaded",
        ),
        "stream.through": _same("`stream.through`", "exactly once"),
        "stream.echo": _same("`stream.echo`", "exactly once"),
        "stream.enumerate": _differs(
            "`stream.enumerate`", "counts from the start of the agent's instance, which is one for each task"
        ),
        "stream.ack": _differs(
            "`stream.noack()`, `event.ack()`, `stream.ack`",
            "has no effect: an event is finished when the agent asks for the next one",
        ),
        "stream.combine": _refused(
            "`stream.combine`, `stream & stream`, `join`, `left_join`, ...",
            "joins are not implemented in Faust; a combined stream has no partition",
            "give each topic an agent, and join through a table",
        ),
        "stream.free": _refused(
            "`app.stream(...)` or `topic.stream()` outside of an agent",
            "a stream without an agent has no position that a commit could contain",
            "use an agent",
        ),
        "stream.unknown": _refused(
            "any other method of a stream", "it is not known to this release", _NO_CALL
        ),
        "event": _same("`event.key`, `value`, `headers`, `message`, `current_event()`"),
        "event.forward": _same("`event.send`, `event.forward`", "exactly once"),
    },
    "Topics and values": {
        "topic": _same("`app.topic(...)`"),
        "topic.send": _same("`topic.send`, `send_soon`, `app.send`", _OUTSIDE),
        "topic.send_options": _later("`partition=` and `callback=` of `send`"),
        "topic.serializer": _same("`key_serializer=`, `value_serializer=`, `schema=`, own codecs"),
        "topic.pickle": _refused(
            "the codec `pickle`",
            "unpickling runs code that a record contains",
            "use json, or register a codec of your own",
        ),
        "record": _same("`faust.Record`: coercion, polymorphic fields, validation, `serializer=`"),
        "topic.declare": _differs(
            "`partitions=`, `retention=`, `replicas=`, `config=` of topics",
            "for all topics of the application that do not exist yet; Faust leaves some of them to the broker",
        ),
    },
    "Tables": {
        "table": _same(
            "`app.Table`", "a value that an agent changes in place is stored at the end of the event"
        ),
        "table.items": _differs(
            "`items()`, `keys()`, `values()`, `len()` of a table",
            "the rows of the event's partition; in Faust, those of all partitions of the worker",
        ),
        "table.set": _same("`app.SetTable`"),
        "table.set_manager": _refused(
            "`SetTable(start_manager=True)`",
            "its operations are applied by an agent inside of Faust",
            "write an agent that changes the table",
        ),
        "table.global": _refused(
            "`app.GlobalTable`, `app.SetGlobalTable`",
            "a row is in the task that owns its partition, and nowhere else",
            "read the topic in each application that needs it, or query the table over HTTP",
        ),
        "table.store": _differs("`store=`", "always RocksDB, in the state directory of the worker"),
        "table.partitioner": _refused(
            "`Table(use_partitioner=True)`",
            "a row belongs to the partition of the event that wrote it",
            "send the event to a topic with the key of the row, and write the table in the agent of that topic",
        ),
        "table.on_recover": _refused(
            "`on_recover=`, `on_changelog_event=`", "tables are not recovered from changelog topics", _NO_CALL
        ),
        "window": _differs(
            "`tumbling`, `hopping`, `now()`, `current()`, `delta()`, `value()`",
            "`now()` is the newest window of the partition, also after a restart and without `expires=`",
        ),
        "window.relative": _same("`relative_to_stream`, `relative_to_now`, `relative_to_field`"),
        "window.key_index": _differs(
            "`key_index=True`", "a key expires with its last window; in Faust, it stays"
        ),
        "window.expires": _differs(
            "`expires=`",
            "rows expire by the time of the events of their partition, not by the clock of the machine",
        ),
        "window.on_close": _refused(
            "`on_window_close=`",
            "Faust calls it by the clock of the machine, and again after a rebalance",
            "use a window of this package, which is closed once (docs/how-to/windows.md)",
        ),
        "window.sliding": _refused(
            "a sliding window", "Faust's tables have none either", "use a hopping window"
        ),
    },
    "Application": {
        "app.timer": _differs(
            "`@app.timer`, `@app.crontab`",
            "a call that raises is logged, and the next one happens; Faust's worker ends; " + _OUTSIDE,
        ),
        "app.task": _same("`@app.task`", _OUTSIDE),
        "app.leader": _same(
            "`on_leader=True`, `app.is_leader()`", "the worker that owns task 0 is the leader"
        ),
        "app.page": _same(
            "`@app.page`, `app.web`", "on the HTTP port of the worker, without the pages that Faust adds"
        ),
        "app.table_route": _same("`@app.table_route`, `@app.topic_route`"),
        "app.command": _same("`@app.command`", "`pipeline faust command MODULE:APP NAME` runs it"),
        "app.signals": _same(
            "`on_worker_init`, `on_configured`, `on_before_configured`, `on_after_configured`, `on_before_shutdown`"
        ),
        "app.rebalance": _refused(
            "`on_partitions_assigned`, `on_partitions_revoked`, `on_rebalance_complete`, `on_produce_message`",
            "tasks are not assigned by a rebalance",
            _NO_CALL,
        ),
        "app.discover": _same("`autodiscover=`, `app.discover()`"),
        "app.main": _same(
            "`app.main()`, `faust.Worker`, `app.Worker`",
            "not called: `pipeline worker MODULE:APP` runs the application. A start inside of a worker is an error",
        ),
        "app.service": _refused(
            "`@app.service`, `app.add_runtime_dependency`",
            "a service would run in the life cycle of Faust's worker",
            "use @app.task",
        ),
        "app.worker": _refused(
            "`app.start`, `app.start_client`",
            "starts Faust's own engine",
            "run `pipeline worker MODULE:APP`, or use `faust_running(app)` in a web service",
        ),
        "app.web_server": _refused("`@app.web_server`, `web_in_thread`", _BELOW, "use @app.page"),
        "app.monitor": _differs(
            "`app.monitor`", "its counters stay at 0; the metrics of the worker replace them"
        ),
        "app.sensors": _refused(
            "a monitor of another class, `app.sensors.add`",
            "its methods would never be called",
            "remove it, and read the metrics of the worker (docs/reference/metrics.md)",
        ),
        "app.livecheck": _refused("`app.LiveCheck`", _BELOW, "use `pipeline drill`"),
        "app.engine": _refused(
            "`app.consumer`, `producer`, `transport`, `assignor`, `router`, `commit`, ...", _BELOW, _NO_CALL
        ),
        "app.subclass": _refused(
            "a subclass of `faust.App` that replaces parts of the engine", _BELOW, "remove the method"
        ),
        "app.unknown": _refused(
            "any other attribute of the application", "it is not known to this release", _NO_CALL
        ),
    },
}

_TUNED = "has no effect: the worker has settings of its own"
_USED = (
    "id version id_format origin autodiscover debug env_prefix timezone broker ssl_context "
    "consumer_auto_offset_reset key_serializer value_serializer reply_to reply_to_prefix reply_expires "
    "reply_create_topic topic_partitions topic_replication_factor topic_allow_declare web_cors_options "
    "web_application_options canonical_url cache HttpClient Schema"
)
_WITHOUT_EFFECT = (
    "url blocking_timeout cython_optimizations broker_api_version broker_check_crcs broker_client_id "
    "broker_commit_every broker_commit_interval broker_commit_livelock_soft_timeout broker_heartbeat_interval "
    "broker_max_poll_interval broker_max_poll_records broker_rebalance_timeout broker_request_timeout "
    "broker_session_timeout consumer_api_version consumer_max_fetch_size consumer_group_instance_id "
    "consumer_metadata_max_age_ms consumer_connections_max_idle_ms logging_config loghandlers producer_acks "
    "producer_api_version producer_compression_type producer_linger producer_linger_ms producer_max_batch_size "
    "producer_max_request_size producer_request_timeout producer_threaded producer_metadata_max_age_ms "
    "producer_connections_max_idle_ms recovery_consistency_check store_check_exists "
    "crash_app_on_aerospike_exception aerospike_retries_on_exception "
    "aerospike_sleep_seconds_between_retries_on_exception stream_buffer_maxsize stream_processing_timeout "
    "stream_publish_on_commit stream_recovery_delay stream_wait_empty stream_ack_cancelled_tasks "
    "stream_ack_exceptions table_cleanup_interval table_key_index_size table_standby_replicas "
    "topic_disable_leader worker_redirect_stdouts worker_redirect_stdouts_level web web_host "
    "web_enabled web_transport web_ssl_context web_stats_enabled web_graph_enabled web_router_enabled "
    "web_tables_enabled web_metrics_enabled agent_supervisor"
)
_CLASSES = (
    "Agent ConsumerScheduler Event GlobalTable LeaderAssignor Monitor PartitionAssignor Router Serializers "
    "SetGlobalTable SetTable Stream Table TableManager Topic Worker"
)

# By the name of the setting.
SETTINGS: Mapping[str, Feature] = {
    **{name: _same(f"`{name}=`") for name in _USED.split()},
    **{name: _differs(f"`{name}=`", _TUNED) for name in _WITHOUT_EFFECT.split()},
    **{
        name: _refused(
            f"`{name}=`", f"another class for this would not be used: {_BELOW}", "remove the setting"
        )
        for name in _CLASSES.split()
    },
    "broker_credentials": _differs(
        "`broker_credentials=`",
        "of SASL (password) and TLS; others need settings of [kafka], which override all of them",
    ),
    "web_port": _differs("`web_port=`", "used by an application with pages if http.port is not set"),
    "web_bind": _differs("`web_bind=`", "used by an application with pages if http.host is not set"),
    "processing_guarantee": _differs("`processing_guarantee=`", "always exactly once"),
    "store": _differs("`store=`", "always RocksDB, in the state directory of the worker"),
    "datadir": _differs("`datadir=`", "the worker has a state directory of its own (--state-dir)"),
    "tabledir": _differs("`tabledir=`", "the worker has a state directory of its own (--state-dir)"),
    "broker_consumer": _refused("`broker_consumer=`", "all clients connect to one cluster", "use broker"),
    "broker_producer": _refused("`broker_producer=`", "all clients connect to one cluster", "use broker"),
    "producer_partitioner": _refused(
        "`producer_partitioner=`",
        "keys are assigned to partitions by murmur2, as in Faust without this setting",
        "remove the setting, and choose the partition with `partition=` of send",
    ),
    "web_in_thread": _refused("`web_in_thread=`", _BELOW, "remove the setting"),
}


def setting(name: str) -> Feature:
    """The feature that a setting is. A setting that is not known is refused."""
    unknown = _refused(f"`{name}=`", "the setting is not known to this release", "remove the setting")
    return SETTINGS.get(name, unknown)


_WORDS = {Outcome.CARRIED: "the same", Outcome.DIFFERS: "differs", Outcome.REFUSED: "refused"}


def markdown() -> str:
    """The table of the page "Coming from Faust"."""
    lines = ["| in Faust | here | |", "| --- | --- | --- |"]
    for area, features in FEATURES.items():
        lines.append(f"| **{area}** | | |")
        lines += [
            f"| {each.name} | {_WORDS[each.outcome]} | {_sentence(each)} |" for each in features.values()
        ]
    return "\n".join(lines)


def _word(feature: Feature) -> str:
    return "not yet" if feature.note == _LATER else _WORDS[feature.outcome]


def _sentence(feature: Feature) -> str:
    if feature.note == _LATER:
        return ""
    text = f"{feature.note}. Instead: {feature.hint}" if feature.hint else feature.note
    return text[:1].upper() + text[1:]
