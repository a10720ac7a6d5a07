"""Broken on purpose: what is exported to OpenTelemetry, and what it may not do to a worker."""

from __future__ import annotations

import pytest

import pipeline.config.loading
import pipeline.drills.shadow_outputs
import pipeline.http.exporter
import pipeline.otel.collector
import pipeline.otel.spans
import pipeline.otel.telemetry
import pipeline.runtime.commit.commit_protocol
import pipeline.runtime.plan
import pipeline.runtime.task.trace_links
from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "buckets are exported as they are scraped, cumulative",
        pipeline.http.exporter._histograms_of,
        "count - before for",
        "count for",
        "tests/otel/test_otel_metrics.py those_of_a_scrape",
    ),
    Broken(
        "every failed request is logged",
        pipeline.otel.collector.CollectorHealth.sent,
        "if now and not before:",
        "if now:",
        "tests/otel/test_otel_export.py logged_once",
    ),
    Broken(
        "an error of the library ends a commit",
        pipeline.otel.spans.OtelTracer.span,
        """with suppress(Exception):
                span = self._begin(""",
        """with suppress(KeyError):
                span = self._begin(""",
        "tests/otel/test_otel_export.py error_of_the_library",
    ),
    Broken(
        "the end waits for a collector that hangs",
        pipeline.otel.telemetry.Telemetry.close,
        "closer.join(CLOSE_S)",
        "closer.join(30)",
        "tests/otel/test_otel_export.py hangs_blocks_no_commit",
    ),
    Broken(
        "all records of a commit are looked at",
        pipeline.runtime.task.trace_links.TraceLinks.look,
        "min(count, self._left)",
        "count",
        "tests/otel/test_otel_traces.py only_the_first_records",
    ),
    Broken(
        "a commit is linked to the records of the one before",
        pipeline.runtime.task.trace_links.TraceLinks.take,
        "list(self._found), {}, self._most",
        "list(self._found), self._found, self._most",
        "tests/otel/test_otel_traces.py only_the_first_records",
    ),
    Broken(
        "outputs carry the context without being asked for it",
        pipeline.runtime.commit.commit_protocol.Publisher.publish,
        "if tracer.propagates and commit.outputs",
        "if commit.outputs",
        "tests/otel/test_otel_traces.py no_trace_context_by_default",
    ),
    Broken(
        "the header of an output is not counted for its size",
        pipeline.runtime.plan.sender_of,
        "TRACEPARENT_BYTES if environment.tracer.propagates else 0",
        "0",
        "tests/otel/test_otel_traces.py counts_for_the_size",
    ),
    Broken(
        "an output gets a second context",
        pipeline.runtime.task.trace_links.with_traceparent,
        "or any(name == TRACEPARENT_HEADER for name, _ in output[4])",
        "",
        "tests/otel/test_otel_traces.py keeps_its_own_context",
    ),
    Broken(
        "a dead letter gets a context",
        pipeline.runtime.task.trace_links.with_traceparent,
        "output[0] in excluded or",
        "",
        "tests/otel/test_otel_traces.py dead_letter",
    ),
    Broken(
        "a shadow replay compares trace contexts",
        pipeline.drills.shadow_outputs._parts_of,
        "elif name != TRACEPARENT_HEADER:",
        "else:",
        "tests/drills/test_shadow_outputs.py trace_context",
    ),
    Broken(
        "OTEL_SDK_DISABLED does not override our variable",
        pipeline.config.loading._read_standard_variables,
        "variable == _SDK_DISABLED or",
        "",
        "tests/otel/test_otel_export.py switches_the_export_on",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """The test that the row names must fail."""
    copied.assert_noticed(broken)
