"""The rows and panels of the dashboard: `ROWS`. There is one row for each question of an operator.

They use only the metrics of workers, and `ALERTS`, so they work without the recording rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["APPS", "GROUPS", "ROWS", "Panel", "Query", "Row"]

_OF_APP = 'app="$app"'
_OF_GROUP = 'app="$app", group=~"$group"'
# Metrics of the process have no label of the app.
_OF_PROCESS = f"and on (job, instance) pipeline_workers{{{_OF_APP}}}"
_PER_S = "cps"

# The queries of the variables.
APPS = "label_values(pipeline_workers, app)"
GROUPS = f"label_values(pipeline_tasks{{{_OF_APP}}}, group)"


@dataclass(frozen=True, slots=True)
class Query:
    """A query of a panel. `legend`: the name of a series, with labels as `{{label}}`."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: Its title.
        description: What it shows, and what to do if it is high.
        queries: What it draws.
        unit: Of Grafana.
        kind: `timeseries`, `stat` or `table`.
        red_from: A value from which a stat is red.
        width: In columns, of 24.
        stacked: Whether the series add up.
    """

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"
    red_from: float | None = None
    width: int = 8
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A row with its panels."""

    title: str
    panels: Sequence[Panel]


def _rate(metric: str, *by: str, labels: str = "", what: str = "rate") -> str:
    selected = f"{_OF_GROUP}, {labels}" if labels else _OF_GROUP
    return f"sum by ({', '.join(by)}) ({what}({metric}{{{selected}}}[$__rate_interval]))"


def _quantile(quantile: str, histogram: str, window: str = "$__rate_interval") -> str:
    buckets = f"sum by (group, le) (rate({histogram}_bucket{{{_OF_GROUP}}}[{window}]))"
    return f"histogram_quantile({quantile}, {buckets})"


def _quantiles(histogram: str) -> list[Query]:
    return [
        Query(_quantile("0.5", histogram), "{{group}} p50"),
        Query(_quantile("0.99", histogram), "{{group}} p99"),
    ]


def _stat(
    title: str, description: str, expr: str, unit: str = "short", red_from: float | None = None
) -> Panel:
    return Panel(title, description, [Query(expr)], unit, "stat", red_from, width=4)


ROWS = (
    Row(
        "Health",
        [
            _stat(
                "Live workers",
                "The live workers of the app. Fewer than you run: a worker has ended or cannot reach Kafka.",
                f"max(pipeline_workers{{{_OF_APP}}})",
            ),
            _stat(
                "Tasks that are not live",
                "Tasks that are being restored, have failed, or have no worker. Their input waits.",
                f"sum(max by (group) (pipeline_tasks{{{_OF_GROUP}}})) - "
                f'(sum(max by (group, task) (pipeline_task_phase{{{_OF_GROUP}, phase="live"}})) or vector(0))',
                red_from=1,
            ),
            _stat(
                "Failed tasks",
                "Tasks that stopped with an error. `pipeline status` shows the cause and the next step.",
                f'sum(max by (group, task) (pipeline_task_phase{{{_OF_GROUP}, phase="failed"}}))',
                red_from=1,
            ),
            _stat(
                "Input lag",
                "Offsets between the committed positions and the ends of all inputs.",
                f"sum(pipeline_input_lag_records{{{_OF_GROUP}}})",
            ),
            _stat(
                "Open dead letters",
                "Failed records that were neither replayed nor discarded; 0 also without a dead-letter topic.",
                f"sum(max by (group) (pipeline_open_dead_letters{{{_OF_GROUP}}})) or vector(0)",
                red_from=1,
            ),
            _stat(
                "Kafka unreachable",
                "The longest time for which Kafka has not answered a worker; 0 if it answers.",
                f"max(pipeline_kafka_unreachable_seconds{{{_OF_APP}}})",
                "s",
                red_from=10,
            ),
            Panel(
                "Alerts",
                "Pending and firing alerts of the app. The annotation `runbook_url` of an alert names its runbook.",
                [Query(f"sum by (alertname, alertstate, severity) (ALERTS{{{_OF_APP}}})")],
                kind="table",
                width=12,
            ),
            Panel(
                "Tasks by phase",
                "The number of tasks in each phase. A standby is a copy of a task that will move to that worker.",
                [
                    Query(
                        f"sum by (phase) (max by (group, task, phase) (pipeline_task_phase{{{_OF_GROUP}}}))",
                        "{{phase}}",
                    )
                ],
                width=12,
            ),
            Panel(
                "Tasks that changed their worker",
                "Planned: the previous worker had released the task. Unplanned: that worker died or hung.",
                [
                    Query(
                        "sum by (planned) "
                        f"(increase(pipeline_tasks_moved_total{{{_OF_GROUP}}}[$__rate_interval]))",
                        "planned: {{planned}}",
                    )
                ],
                width=12,
            ),
            Panel(
                "Watched workers",
                "Workers that others watch over TCP. Not reached: their end is detected after 10 s instead of at once.",
                [Query(f"sum by (reached) (pipeline_peers{{{_OF_APP}}})", "reached: {{reached}}")],
                width=12,
            ),
            Panel(
                "Fences",
                "Tasks that another owner or a time-out fenced. Each is restored. Usually there are none.",
                [Query(_rate("pipeline_fences_total", "group", what="increase"), "{{group}}")],
                width=12,
            ),
        ],
    ),
    Row(
        "Lag and throughput",
        [
            Panel(
                "Input lag by group",
                "Rising: too few processes, slow handlers, or slow commits. See the rows below.",
                [Query(f"sum by (group) (pipeline_input_lag_records{{{_OF_GROUP}}})", "{{group}}")],
            ),
            Panel(
                "Input lag of the ten worst tasks",
                "One task far above the others: a failed or paused task, a record that is retried, or one "
                "frequent key.",
                [
                    Query(
                        f"topk(10, sum by (group, task) (pipeline_input_lag_records{{{_OF_GROUP}}}))",
                        "{{group}}/{{task}}",
                    )
                ],
            ),
            Panel(
                "Input records by outcome",
                "Records per second. Every record has one outcome.",
                [Query(_rate("pipeline_records_total", "outcome"), "{{outcome}}")],
                _PER_S,
                stacked=True,
            ),
            Panel(
                "Outputs",
                "Records that handlers send, per second, dead letters included.",
                [Query(_rate("pipeline_outputs_total", "group"), "{{group}}")],
                _PER_S,
            ),
            Panel(
                "Rows",
                "Rows that sinks write to their databases, per second. 0 for groups of handlers.",
                [Query(_rate("pipeline_rows_total", "group"), "{{group}}")],
                _PER_S,
            ),
            Panel(
                "Tasks that read no input",
                "For seconds: normal under load. For minutes: the journal has reached its limit, a record is "
                "retried, or one has stopped its partition.",
                [Query(f"sum by (group) (pipeline_input_paused{{{_OF_GROUP}}})", "{{group}}")],
            ),
            Panel(
                "Stopped partitions",
                "Partitions that a record has stopped. `partition_stopped` in the log names the record.",
                [
                    Query(
                        f"sum by (group) (max by (group, task) (pipeline_stopped_partitions{{{_OF_GROUP}}}))",
                        "{{group}}",
                    )
                ],
            ),
        ],
    ),
    Row(
        "Commits",
        [
            Panel(
                "Duration of commits",
                "From the start until the rows are in the local state. Outputs are late by this time.",
                _quantiles("pipeline_commit_seconds"),
                "s",
            ),
            Panel(
                "Commits by result",
                "Attempts per second. Aborted: published again. Refused: Kafka or the database refused a record. "
                "Fenced: another owner has the task.",
                [Query(_rate("pipeline_commits_total", "result"), "{{result}}")],
                _PER_S,
            ),
            Panel(
                "Waiting for commits",
                "The time in which records waited for a commit, per second, summed over tasks. Above 0.1 for a "
                "task: Kafka or the database limits the throughput, not the handlers.",
                [Query(_rate("pipeline_commit_wait_seconds_total", "group"), "{{group}}")],
                "percentunit",
            ),
            Panel(
                "Producer renewals",
                "New producers after failed or slow commits. Many: raise `worker.retry_backoff_ms`.",
                [Query(_rate("pipeline_producer_renewals_total", "group"), "{{group}}")],
                _PER_S,
            ),
        ],
    ),
    Row(
        "Restores and checkpoints",
        [
            Panel(
                "Predicted restore on an empty disk",
                "The slowest task. Above your objective: make checkpoints more often, or use more partitions.",
                [Query(f"max by (group) (pipeline_restore_predicted_seconds{{{_OF_GROUP}}})", "{{group}}")],
                "s",
            ),
            Panel(
                "Bytes that restores must still copy or replay",
                "0 if no restore is in progress. Falls slowly: the disk or the checkpoint store is slow.",
                [Query(f"sum(pipeline_restore_remaining_bytes{{{_OF_GROUP}}}) or vector(0)", "remaining")],
                "bytes",
            ),
            Panel(
                "Duration of restores",
                "The 99th percentile of the last hour, from the fence until the task is acquired.",
                [Query(_quantile("0.99", "pipeline_restore_seconds", "1h"), "{{group}} p99")],
                "s",
            ),
            Panel(
                "Age of the newest checkpoint",
                "The oldest of all tasks. Several times `worker.checkpoint_interval_s` while tasks commit: the "
                "store is unavailable. Missing without a checkpoint.",
                [Query(f"max by (group) (pipeline_checkpoint_age_seconds{{{_OF_GROUP}}})", "{{group}}")],
                "s",
            ),
            Panel(
                "Size of the newest checkpoints",
                "The sum over all tasks: what an empty disk copies.",
                [Query(f"sum by (group) (pipeline_checkpoint_bytes{{{_OF_GROUP}}})", "{{group}}")],
                "bytes",
            ),
            Panel(
                "Journal after the newest checkpoint",
                "The largest of all tasks: what a restore replays. A task stops reading input at "
                "`worker.checkpoint_journal_limit_bytes`.",
                [Query(f"max by (group) (pipeline_journal_bytes{{{_OF_GROUP}}})", "{{group}}")],
                "bytes",
            ),
        ],
    ),
    Row(
        "Handlers",
        [
            Panel(
                "Time in handlers",
                "The share of time that the processing thread spends in handlers. Above 0.8: handlers limit the "
                "throughput. Make them faster, or run more processes.",
                [
                    Query(
                        f"sum by (instance) (pipeline_handler_busy_ratio{{{_OF_GROUP}}})",
                        "{{instance}}",
                    )
                ],
                "percentunit",
            ),
            Panel(
                "Duration of batches",
                "One batch of records in handlers. Compare with the records per batch.",
                _quantiles("pipeline_handler_seconds"),
                "s",
            ),
            Panel(
                "Records per batch",
                "Large batches: records arrive faster than handlers process them.",
                [
                    Query(
                        f"{_rate('pipeline_records_total', 'group')}"
                        f" / {_rate('pipeline_handler_seconds_count', 'group')}",
                        "{{group}}",
                    )
                ],
            ),
            Panel(
                "Event clocks behind the wall clock",
                "Groups with windows: the clock of the partition that is furthest behind. It stands still while an "
                "input has records that are not processed, and windows do not close.",
                [Query(f"max by (group) (pipeline_clock_behind_seconds{{{_OF_GROUP}}})", "{{group}}")],
                "s",
            ),
            Panel(
                "Late events",
                "Events that came after their window was closed, or too late for a history, per second; and values of "
                "histories and events of joins that were removed because their key had too many. Raise `grace_s`, "
                "`keep_s`, `max_values` or `max_events`, or look for a producer with old times.",
                [
                    Query(_rate("pipeline_late_events_total", "group"), "{{group}}"),
                    Query(
                        _rate("pipeline_history_values_removed_total", "group"), "{{group}} removed values"
                    ),
                    Query(_rate("pipeline_join_events_removed_total", "group"), "{{group}} removed events"),
                ],
                _PER_S,
            ),
            Panel(
                "Retries",
                "Failed attempts that were followed by another one, per second. Records of the same topic and task "
                "wait meanwhile.",
                [Query(_rate("pipeline_retries_total", "group"), "{{group}}")],
                _PER_S,
            ),
        ],
    ),
    Row(
        "Dead letters",
        [
            Panel(
                "Failed records",
                "Records per second that became dead letters or were skipped, by the error policy.",
                [
                    Query(
                        _rate(
                            "pipeline_records_total",
                            "group",
                            "outcome",
                            labels='outcome=~"dead_letter|skipped"',
                        ),
                        "{{group}} {{outcome}}",
                    )
                ],
                _PER_S,
            ),
            Panel(
                "Open dead letters by group",
                "Failed records that were neither replayed nor discarded: `pipeline deadletters list`.",
                [Query(f"max by (group) (pipeline_open_dead_letters{{{_OF_GROUP}}})", "{{group}}")],
            ),
            Panel(
                "Duplicates",
                "Records per second whose id was seen before. Late: handled again, after the time-to-live of the id.",
                [
                    Query(
                        _rate("pipeline_records_total", "outcome", labels='outcome=~"duplicate|late"'),
                        "{{outcome}}",
                    )
                ],
                _PER_S,
            ),
        ],
    ),
    Row(
        "Memory and RocksDB",
        [
            Panel(
                "Memory of tables",
                "Decoded values and block caches of all processes; of these, the write buffers of all tasks.",
                [
                    Query(f"sum(pipeline_cache_bytes{{{_OF_APP}}})", "decoded values"),
                    Query(f"sum(pipeline_rocksdb_memtable_bytes{{{_OF_GROUP}}})", "write buffers"),
                    Query(f"sum(pipeline_rocksdb_table_reader_bytes{{{_OF_GROUP}}})", "indexes and filters"),
                    Query(f"sum(pipeline_rocksdb_block_cache_bytes{{{_OF_APP}}})", "block caches"),
                ],
                "bytes",
            ),
            Panel(
                "Size on disk",
                "The table files. Plan disk space for twice this.",
                [Query(f"sum by (group) (pipeline_rocksdb_sst_bytes{{{_OF_GROUP}}})", "{{group}}")],
                "bytes",
            ),
            Panel(
                "Pending compaction",
                "Rising: the disk is too slow for the rate of writes.",
                [
                    Query(
                        f"sum by (group) (pipeline_rocksdb_pending_compaction_bytes{{{_OF_GROUP}}})",
                        "{{group}}",
                    )
                ],
                "bytes",
            ),
            Panel(
                "Write stalls",
                "Writes that were slowed down (delay) or halted (stop), per second. Commits wait for the disk.",
                [Query(_rate("pipeline_rocksdb_write_stalls_total", "kind"), "{{kind}}")],
                _PER_S,
            ),
        ],
    ),
    Row(
        "Processes",
        [
            Panel(
                "CPU",
                "Cores that each process uses. One thread runs the handlers, others run commits and RocksDB.",
                [Query(f"rate(process_cpu_seconds_total[$__rate_interval]) {_OF_PROCESS}", "{{instance}}")],
            ),
            Panel(
                "Resident memory",
                "Memory of each process.",
                [Query(f"process_resident_memory_bytes {_OF_PROCESS}", "{{instance}}")],
                "bytes",
            ),
            Panel(
                "Open files",
                "The share of the limit on open files that each process uses.",
                [Query(f"process_open_fds / process_max_fds {_OF_PROCESS}", "{{instance}}")],
                "percentunit",
            ),
        ],
    ),
)
