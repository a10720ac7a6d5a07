"""The metrics of a worker, as `/metrics` declares them: `FAMILIES`. `docs/reference/metrics.md` explains each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["FAMILIES", "Family", "Kind"]


class Kind(StrEnum):
    """The types of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric. `name`: as a query writes it. `help`: one line, without a full stop."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


_APP = ("app",)
_GROUP = ("app", "group")
_TASK = ("app", "group", "task")

FAMILIES = (
    Family(
        "pipeline_task_phase", Kind.GAUGE, (*_TASK, "phase"), "1 for the phase of the task in this worker"
    ),
    Family("pipeline_tasks", Kind.GAUGE, _GROUP, "Tasks of the group, on all workers"),
    Family(
        "pipeline_input_lag_records",
        Kind.GAUGE,
        (*_TASK, "topic", "partition"),
        "Offsets between the committed position and the end of the input partition",
    ),
    Family("pipeline_input_paused", Kind.GAUGE, _TASK, "1 while the task does not read one of its inputs"),
    Family(
        "pipeline_stopped_partitions", Kind.GAUGE, _TASK, "Partitions of the task that a record has stopped"
    ),
    Family(
        "pipeline_clock_behind_seconds",
        Kind.GAUGE,
        _TASK,
        "Time from the event clock of the partition that is furthest behind to the wall clock",
    ),
    Family(
        "pipeline_late_events_total", Kind.COUNTER, _TASK, "Events that were late for a window or a history"
    ),
    Family(
        "pipeline_history_values_removed_total",
        Kind.COUNTER,
        _TASK,
        "Values of histories that were removed because their key had too many",
    ),
    Family(
        "pipeline_join_events_removed_total",
        Kind.COUNTER,
        _TASK,
        "Events of joins that waited no longer because their key had too many",
    ),
    Family(
        "pipeline_records_total",
        Kind.COUNTER,
        (*_TASK, "outcome"),
        "Input records that were processed, by outcome",
    ),
    Family(
        "pipeline_outputs_total",
        Kind.COUNTER,
        _TASK,
        "Records that handlers have sent, dead letters included",
    ),
    Family("pipeline_rows_total", Kind.COUNTER, _TASK, "Rows that were written to a database"),
    Family("pipeline_retries_total", Kind.COUNTER, _TASK, "Failed attempts that were followed by another"),
    Family(
        "pipeline_open_dead_letters",
        Kind.GAUGE,
        _GROUP,
        "Failed records of the group that were neither replayed nor discarded",
    ),
    Family("pipeline_handler_seconds", Kind.HISTOGRAM, _GROUP, "Duration of a batch of records in handlers"),
    Family(
        "pipeline_handler_busy_ratio",
        Kind.GAUGE,
        _GROUP,
        "Share of the last seconds that the processing thread spent in handlers",
    ),
    Family(
        "pipeline_commit_seconds",
        Kind.HISTOGRAM,
        _GROUP,
        "Duration of a commit, from its start until it is applied",
    ),
    Family("pipeline_commits_total", Kind.COUNTER, (*_TASK, "result"), "Attempts at commits, by result"),
    Family(
        "pipeline_commit_wait_seconds_total",
        Kind.COUNTER,
        _TASK,
        "Time in which records waited because a commit was in progress and the next one was full",
    ),
    Family("pipeline_fences_total", Kind.COUNTER, _TASK, "Fences of a task by another owner or a time-out"),
    Family(
        "pipeline_producer_renewals_total",
        Kind.COUNTER,
        _TASK,
        "Renewals of a producer after a failure or a slow commit",
    ),
    Family(
        "pipeline_restore_predicted_seconds",
        Kind.GAUGE,
        _TASK,
        "Predicted duration of a restore on an empty disk",
    ),
    Family(
        "pipeline_restore_remaining_bytes",
        Kind.GAUGE,
        _TASK,
        "Bytes that a restore in progress must still copy or replay",
    ),
    Family(
        "pipeline_restore_seconds",
        Kind.HISTOGRAM,
        _GROUP,
        "Duration of a restore, until the task is acquired",
    ),
    Family("pipeline_checkpoint_age_seconds", Kind.GAUGE, _TASK, "Age of the newest checkpoint"),
    Family("pipeline_checkpoint_bytes", Kind.GAUGE, _TASK, "Size of the newest checkpoint"),
    Family("pipeline_journal_bytes", Kind.GAUGE, _TASK, "Size of the journal after the newest checkpoint"),
    Family(
        "pipeline_tasks_moved_total",
        Kind.COUNTER,
        (*_GROUP, "planned"),
        "Tasks that this worker took over from another one",
    ),
    Family("pipeline_workers", Kind.GAUGE, _APP, "Live workers of the app, as this worker sees them"),
    Family(
        "pipeline_peers",
        Kind.GAUGE,
        (*_APP, "reached"),
        "Workers that this one watches over TCP, by whether they answer",
    ),
    Family(
        "pipeline_kafka_unreachable_seconds",
        Kind.GAUGE,
        _APP,
        "Time for which Kafka has not answered; 0 if it answers",
    ),
    Family("pipeline_cache_bytes", Kind.GAUGE, _APP, "Memory of decoded values of all tables, estimated"),
    Family("pipeline_rocksdb_memtable_bytes", Kind.GAUGE, _TASK, "Memory of RocksDB's write buffers"),
    Family(
        "pipeline_rocksdb_table_reader_bytes",
        Kind.GAUGE,
        _TASK,
        "Memory of RocksDB's indexes and filters outside the block cache",
    ),
    Family("pipeline_rocksdb_block_cache_bytes", Kind.GAUGE, _APP, "Memory of the block cache of all tasks"),
    Family("pipeline_rocksdb_sst_bytes", Kind.GAUGE, _TASK, "Size of RocksDB's table files on disk"),
    Family(
        "pipeline_rocksdb_pending_compaction_bytes",
        Kind.GAUGE,
        _TASK,
        "Estimate of the bytes that compactions must still rewrite",
    ),
    Family(
        "pipeline_rocksdb_write_stalls_total",
        Kind.COUNTER,
        (*_TASK, "kind"),
        "Slowdowns (delay) and halts (stop) of writes since the state was opened",
    ),
)
