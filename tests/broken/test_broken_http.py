"""Broken on purpose: what the HTTP port serves to whom, its limits, and what it counts."""

from __future__ import annotations

import pytest

import pipeline.api.timed_rows
import pipeline.core.inputs
import pipeline.http.application
import pipeline.http.background
import pipeline.http.exporter
import pipeline.http.port
import pipeline.http.server
import pipeline.ops.overview.task
import pipeline.queries.reader
import pipeline.rocksdb.store
import pipeline.runtime.assignment.ownership
import pipeline.runtime.metrics.figures
import pipeline.runtime.metrics.meter
import pipeline.runtime.row_queries
import pipeline.runtime.task.task
import pipeline.runtime.task_lifecycle
from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "a row is read before its position",
        pipeline.rocksdb.store.RocksStore.row,
        "(self.position(), self.get(key))",
        "(self.get(key), self.position())[::-1]",
        "tests/rocksdb/test_rows.py",
    ),
    Broken(
        "a query reads a state that is closed",
        pipeline.rocksdb.store.RocksStore.row,
        "None if self.closed else",
        "",
        "tests/contracts/test_store_contract.py until_the_state_is_closed",
    ),
    Broken(
        "a row is told with the age of the answer",
        pipeline.runtime.row_queries.RowQueries.find,
        "self._monotonic_s() - owned_at_s",
        "0.0",
        "tests/http/test_rows.py age_is_the_time",
    ),
    Broken(
        "rows of several entries are one answer",
        pipeline.runtime.row_queries._read_timed,
        "if after[0] == before[0]:",
        "if True:",
        "tests/queries/test_timed_rows.py those_at_one_entry",
    ),
    Broken(
        "a closed window is read while it is stored",
        pipeline.api.timed_rows._windows,
        "if end_ms > closed_ms",
        "if end_ms",
        "tests/queries/test_timed_rows.py also_while_it_is_stored",
    ),
    Broken(
        "an own write is not waited for",
        pipeline.queries.reader.Reader._answer,
        "passed = place is None or row.positions.get(place[0], 0) > place[1]",
        "passed = True",
        "tests/queries/test_reader.py own_record_is_in_it",
    ),
    Broken(
        "a reader keeps the address of a worker that has lost the task",
        pipeline.queries.reader.Reader._forget,
        "if self._owners is owners:",
        "if False:",
        "tests/queries/test_reader.py next_owner_is_asked",
    ),
    Broken(
        "the page shows a row that a reset of its partition has deleted",
        pipeline.ops.overview.task.TaskView.row,
        "if full_key in body.delta and partition not in emptied:",
        "if full_key in body.delta:",
        "tests/http/test_documents.py reset_has_deleted",
    ),
    Broken(
        "the page shows only the dead letters of one partition of a task",
        pipeline.core.inputs.TaskInputs.owns,
        "partition % self.tasks == self.number if self.tasks else partition == self.number",
        "partition == self.number",
        "tests/http/test_documents.py of_all_its_partitions",
    ),
    Broken(
        "a protected path is served without the token",
        pipeline.http.application.Application._answer,
        "None if route.open else self._refusal(environ)",
        "None",
        "tests/http/test_application.py wrong_token",
    ),
    Broken(
        "a name that resolves to loopback is served",
        pipeline.http.application.Application._refusal,
        "self._settings.loopback and name in _LOOPBACK_NAMES",
        "self._settings.loopback",
        "tests/http/test_application.py resolves_to_loopback",
    ),
    Broken(
        "without a token, every address is served",
        pipeline.http.application.Application._refusal,
        "self._settings.loopback and name in _LOOPBACK_NAMES",
        "name in _LOOPBACK_NAMES",
        "tests/http/test_application.py elsewhere",
    ),
    Broken(
        "a loop that stands still is live",
        pipeline.http.port.Liveness.check,
        "if mark is None or stuck_s <= self._limit_s:",
        "if True:",
        "tests/http/test_port.py stands_still",
    ),
    Broken(
        "a worker that starts must make progress",
        pipeline.http.port.Liveness.check,
        "if mark is None or stuck_s <= self._limit_s:",
        "if stuck_s <= self._limit_s and mark is not None:",
        "tests/http/test_port.py live_before_it_is_ready",
    ),
    Broken(
        "a restoring task counts as ready",
        pipeline.runtime.metrics.figures.WorkerFigures.not_live,
        "figures.role is TaskRole.LIVE",
        "figures.role in {TaskRole.LIVE, TaskRole.RESTORING}",
        "tests/http/test_health.py not_live_is_not_ready",
    ),
    Broken(
        "a client that trickles keeps its connection",
        pipeline.http.server._Server.maintenance,
        "now - channel.creation_time > CONNECTION_S",
        "now - channel.last_activity > CONNECTION_S",
        "tests/http/test_server.py trickles",
    ),
    Broken(
        "connections are not limited",
        pipeline.http.server.HttpServer.start,
        "connection_limit=MAX_CONNECTIONS + 2,",
        "connection_limit=1_000,",
        "tests/http/test_server.py more_connections",
    ),
    Broken(
        "a port that is taken ends the worker",
        pipeline.http.port.WorkerPort.start,
        "except OSError as error:",
        "except ZeroDivisionError as error:",
        "tests/http/test_port.py taken",
    ),
    Broken(
        "all requests wait for Kafka",
        pipeline.http.background.Background._wait,
        "if not self._waiters.acquire(blocking=False):",
        "if not self._waiters.acquire(timeout=60):",
        "tests/http/test_background.py few_requests",
    ),
    Broken(
        "an old end is taken for the current one",
        pipeline.http.background.Background._shared,
        "elif last is None or (asked_s >= last.until_s and last.at_s < asked_s):",
        "elif last is None:",
        "tests/http/test_background.py until_the_next_read or waits_only",
    ),
    Broken(
        "a slow read leaves a gap in a metric",
        pipeline.http.background.Background._shared,
        "if usable is not None and usable.at_s >= asked_s - self._usable_s:",
        "if False:",
        "tests/http/test_background.py usable",
    ),
    Broken(
        "every worker counts the open dead letters",
        pipeline.runtime.metrics.figures.WorkerFigures.first_tasks,
        "if task.number == 0 and figures.role is TaskRole.LIVE",
        "if figures.role is TaskRole.LIVE",
        "tests/http/test_metrics.py first_task",
    ),
    Broken(
        "the counts of a closed task are forgotten",
        pipeline.runtime.task_lifecycle.TaskLifecycle._drop,
        "self.ended.setdefault(task_id, Counter()).update(counts_of(task))",
        "counts_of(task)",
        "tests/http/test_metrics.py survive",
    ),
    Broken(
        "a task of a dead worker counts as a planned move",
        pipeline.runtime.assignment.ownership.Ownership.acquired,
        "planned=before.released and not before.problem",
        "planned=True",
        "tests/http/test_state_metrics.py moves",
    ),
    Broken(
        "the batch at hand does not count as busy",
        pipeline.runtime.metrics.meter.Meter.read,
        "if running is not None:",
        "if False:",
        "tests/http/test_metrics.py running_counts_as_busy",
    ),
    Broken(
        "the wait of a closed task goes on",
        pipeline.runtime.task.task.Task.close,
        "self._meter.waits(self.id, waiting=False)",
        "pass",
        "tests/http/test_metrics.py wait_ends",
    ),
    Broken(
        "without an answer of Kafka the lag is zero",
        pipeline.http.exporter._Collector._add_lags,
        "except PipelineError:\n            return",
        "except PipelineError:\n            ends = {place: position for (_, place), position in positions.items()}",
        "tests/http/test_state_metrics.py no_lag",
    ),
    Broken(
        "a state is closed while a scrape asks it",
        pipeline.rocksdb.store.RocksStore.usage,
        "if self.closed:\n                return None",
        "pass",
        "tests/rocksdb/test_usage.py closed_state",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """A metric that is wrong misleads an operator at the worst moment."""
    copied.assert_noticed(broken)
