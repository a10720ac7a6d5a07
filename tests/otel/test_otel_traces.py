"""Spans over OTLP: one for each commit, restore and checkpoint, and their links to input records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from pipeline import App, Context, Event, Sqlite
from pipeline.api.declarations import declared_topic
from pipeline.api.sinks import Row
from pipeline.core.headers import headers_of
from pipeline.errors import AbortableError
from pipeline.runtime.plan import sender_of
from pipeline.runtime.task.trace_links import TRACEPARENT_BYTES
from pipeline.testing import Step, TestDriver
from tests.support.http.shop import LETTER, Shop
from tests.support.otel.exporting import Exporting, parent
from tests.support.otel.receiver import Receiver, attributes_of
from tests.support.runtime.checkpointed import eager, entries
from tests.support.runtime.sums import Sums


def _named(receiver: Receiver, name: str) -> list[Any]:
    return [span for span in receiver.spans if span.name == name]


def _row(event: Event[str, int]) -> Row:
    return {"id": event.key, "n": event.value}


def _commits(receiver: Receiver) -> list[Any]:
    """The spans of commits with records."""
    return [span for span in _named(receiver, "commit main") if attributes_of(span)["pipeline.records"]]


def test_each_entry_of_the_journal_has_one_span(receiver: Receiver) -> None:
    """The journal is the record of what was committed."""
    sums = eager()
    exporting = Exporting(receiver.url, sums=sums)
    for number in range(3):
        sums.send(number)
        exporting.run()
    exporting.close()
    spans = [attributes_of(span) for span in _named(receiver, "commit main")]
    newest = entries(sums)[-1].entry.seq
    assert [span["pipeline.seq"] for span in spans] == list(range(2, newest + 1))  # 1 is genesis
    assert {span["pipeline.entry"] for span in spans} == {"acquire", "commit", "checkpoint"}
    assert sum(int(span["pipeline.records"]) for span in spans) == 3


def test_a_commit_has_the_attributes_of_its_task(receiver: Receiver) -> None:
    """A trace is found by task, and its entry by seq."""
    exporting = Exporting(receiver.url)
    exporting.send(1)
    exporting.send(2)
    exporting.run()
    exporting.close()
    [span] = _commits(receiver)
    found = attributes_of(span)
    assert found == {
        "messaging.system": "kafka",
        "messaging.operation.name": "commit",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": "sums.main",
        "messaging.batch.message_count": 2,
        "pipeline.app": "sums",
        "pipeline.group": "main",
        "pipeline.task": 0,
        "pipeline.records": 2,
        "pipeline.entry": "commit",
        "pipeline.seq": 3,
    }
    assert span.kind == Span.SPAN_KIND_CONSUMER
    assert not span.parent_span_id


def test_the_acquire_entry_is_a_child_of_the_restore(receiver: Receiver) -> None:
    """So a slow restore shows how much of it was the commit."""
    exporting = Exporting(receiver.url)
    exporting.run()
    exporting.close()
    [restore] = _named(receiver, "restore main")
    [acquire] = _named(receiver, "commit main")
    assert acquire.parent_span_id == restore.span_id
    assert attributes_of(restore)["pipeline.seq"] == 2
    assert attributes_of(restore)["pipeline.start"]


def test_a_checkpoint_has_a_span(receiver: Receiver) -> None:
    """An upload is the longest background work of a worker."""
    sums = eager()
    exporting = Exporting(receiver.url, sums=sums)
    sums.send(1)
    exporting.run()
    exporting.close()
    found = attributes_of(_named(receiver, "checkpoint main")[0])
    assert int(found["pipeline.bytes"]) > 0
    assert int(found["pipeline.seq"]) > 1


def test_a_commit_is_linked_to_the_traces_of_its_records(receiver: Receiver) -> None:
    """A batch has many causes, so none of them can be its parent."""
    exporting = Exporting(receiver.url)
    exporting.send(1, traceparent=parent(1))
    exporting.send(2)
    exporting.send(3, traceparent="malformed")
    exporting.send(4, traceparent=parent(4))
    exporting.run()
    exporting.close()
    [span] = _commits(receiver)
    assert [int.from_bytes(link.trace_id, "big") for link in span.links] == [1, 4]
    assert int.from_bytes(span.trace_id, "big") not in {1, 4}


def test_only_the_first_records_of_a_commit_are_looked_at(receiver: Receiver) -> None:
    """The cost of a commit does not depend on its records."""
    exporting = Exporting(receiver.url, links=2)
    for commit in range(2):
        for number in range(1, 6):
            exporting.send(number, traceparent=parent(10 * commit + number))
        exporting.run()
    exporting.close()
    assert [[int.from_bytes(link.trace_id, "big") for link in span.links] for span in _commits(receiver)] == [
        [1, 2],
        [11, 12],
    ]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "malformed",
        "ff-" + parent(1)[3:],
        parent(0),
        parent(1) + "-x",
        parent(10).upper(),
        parent(1)[:-1],
        "00-" + "g" * 32 + parent(1)[35:],
    ],
)
def test_malformed_contexts_are_not_linked(receiver: Receiver, header: str) -> None:
    """Any producer can write any bytes into a header."""
    exporting = Exporting(receiver.url)
    exporting.send(1, traceparent=header)
    exporting.run()
    exporting.close()
    [span] = _commits(receiver)
    assert list(span.links) == []


def test_a_later_version_of_the_header_is_linked(receiver: Receiver) -> None:
    """The specification demands that its first fields are read."""
    exporting = Exporting(receiver.url)
    exporting.send(1, traceparent="01-" + parent(7)[3:] + "-more")
    exporting.run()
    exporting.close()
    [span] = _commits(receiver)
    assert [int.from_bytes(link.span_id, "big") for link in span.links] == [7]


def test_records_of_one_cause_are_one_link(receiver: Receiver) -> None:
    """The outputs of one commit of another app have the same context."""
    exporting = Exporting(receiver.url)
    for number in range(3):
        exporting.send(number, traceparent=parent(5))
    exporting.run()
    exporting.close()
    [span] = _commits(receiver)
    assert len(span.links) == 1


def test_a_sink_has_the_same_spans(receiver: Receiver, tmp_path: Path) -> None:
    """Its commit is a transaction of the database."""
    app = App("rows")
    amounts = app.topic("amounts", key=str, value=int)
    sink: Sqlite[str, int] = Sqlite(tmp_path / "a.db", "totals", row=_row, key="id")
    app.group("totals").sink(amounts, sink)
    exporting = Exporting(receiver.url)
    driver = TestDriver(app)
    driver._tracer = exporting.telemetry.tracer
    driver.send(amounts, "a", 1, headers=[("traceparent", parent(3).encode())])
    driver.send(amounts, "b", 2)
    driver.run()
    exporting.close()
    [restore], [span] = _named(receiver, "restore totals"), _named(receiver, "commit totals")
    found = attributes_of(span)
    assert (found["pipeline.records"], found["pipeline.rows"]) == (2, 2)
    assert found["pipeline.seq"] == attributes_of(restore)["pipeline.seq"] == 1
    assert [int.from_bytes(link.trace_id, "big") for link in span.links] == [3]


def test_the_header_counts_for_the_size_of_an_output(receiver: Receiver) -> None:
    """A topic that refuses the header would fail the commit, after the handler has run."""
    sums = Sums()
    exporting = Exporting(receiver.url, sums=sums, propagate=True)
    exporting.run()
    info = exporting.driver.worker.environment.cluster.describe(["sums"])["sums"]
    plain = sender_of(declared_topic(sums.sums), info, Sums.begun().driver.worker.environment)
    reserved = sender_of(declared_topic(sums.sums), info, sums.driver.worker.environment)
    exporting.close()
    header = f"00-{0:032x}-{0:016x}-00"
    assert plain[3].most - reserved[3].most == len("traceparent") + len(header) + 8 == TRACEPARENT_BYTES


def test_headers_that_cannot_be_read_are_not_linked(receiver: Receiver) -> None:
    """Such a record is processed like any other, with or without an export."""
    exporting = Exporting(receiver.url)
    exporting.driver.send_raw(exporting.sums.numbers, b"a", b"1", headers=[(b"\xff", b"x")])
    exporting.run()
    exporting.close()
    [span] = _commits(receiver)
    assert list(span.links) == []


def test_a_failed_commit_has_a_failed_span(receiver: Receiver) -> None:
    """A fence is an error of the commit, whose records another owner handles."""
    exporting = Exporting(receiver.url)
    exporting.run()
    exporting.driver.broker.fence(exporting.sums.task.transactional_id)
    exporting.send(1)
    exporting.run()
    exporting.close()
    first, second = _commits(receiver)
    assert first.status.code == Status.STATUS_CODE_ERROR
    assert attributes_of(first)["error.type"] == "FencedError"
    assert second.status.code == Status.STATUS_CODE_UNSET


def test_outputs_carry_no_trace_context_by_default(receiver: Receiver) -> None:
    """A header without a need changes the bytes of each output."""
    exporting = Exporting(receiver.url)
    exporting.send(1, traceparent=parent(1))
    exporting.run()
    exporting.close()
    [output] = exporting.driver.outputs(exporting.sums.sums)
    assert "traceparent" not in dict(output.headers)


def test_outputs_carry_the_context_of_their_commit_on_request(receiver: Receiver) -> None:
    """The next app links to it, so a trace continues over topics."""
    exporting = Exporting(receiver.url, propagate=True)
    exporting.send(1)
    exporting.send(2)
    exporting.run()
    exporting.close()
    [span] = _commits(receiver)
    headers = [dict(output.headers) for output in exporting.driver.outputs(exporting.sums.sums)]
    expected = f"00-{span.trace_id.hex()}-{span.span_id.hex()}-".encode()
    assert headers
    assert all((found["traceparent"] or b"").startswith(expected) for found in headers)
    exporting.sums.checker.check()


def test_an_output_keeps_its_own_context(receiver: Receiver) -> None:
    """A handler that forwards the context of its record has decided for it."""
    app = App("forward")
    source, target = app.topic("source", key=str, value=int), app.topic("target", key=str, value=int)

    @app.handler(source)
    def forward(event: Event[str, int], ctx: Context) -> None:
        ctx.send(target, event.key, event.value, headers=event.headers)

    exporting = Exporting(receiver.url, propagate=True)
    driver = TestDriver(app)
    driver._tracer = exporting.telemetry.tracer
    own = ("traceparent", parent(9).encode())
    driver.send(source, "a", 1, headers=[own])
    driver.run()
    exporting.close()
    [output] = driver.outputs(target)
    assert list(output.headers) == [own]


def test_a_dead_letter_carries_no_context(receiver: Receiver) -> None:
    """It is a copy of the failed record, and its replay gets the headers of the copy."""
    exporting = Exporting(receiver.url, propagate=True)
    shop = Shop()
    shop.driver._tracer = exporting.telemetry.tracer
    shop.order(LETTER)
    shop.order(1)
    shop.driver.run()
    exporting.close()
    [record] = shop.driver.broker.records("shop.main.dead-letters")
    assert "traceparent" not in dict(headers_of(record))
    [output] = shop.driver.outputs(shop.outs)
    assert "traceparent" in dict(output.headers)


def test_a_commit_that_is_repeated_keeps_its_context(receiver: Receiver) -> None:
    """A sealed commit is published again, and not computed again."""
    exporting = Exporting(receiver.url, propagate=True)
    exporting.run()
    exporting.driver.broker.fail_next("commit", AbortableError("refused"))
    exporting.send(1)
    exporting.run()
    exporting.close()
    [span] = _commits(receiver)
    [output] = exporting.driver.outputs(exporting.sums.sums)
    assert span.span_id.hex().encode() in (dict(output.headers)["traceparent"] or b"")


def test_a_crash_leaves_one_output_with_one_context(receiver: Receiver) -> None:
    """The header is part of the commit, so it is there once, or not at all."""
    exporting = Exporting(receiver.url, propagate=True)
    exporting.run()
    for step in (Step.AFTER_FLUSH, Step.AFTER_COMMIT):
        exporting.send(1)
        exporting.driver.crash_at(step)
        exporting.run()
        exporting.driver.restart(empty_disk=True)
        exporting.run()
    exporting.close()
    outputs = exporting.driver.outputs(exporting.sums.sums)
    assert len(outputs) == 2
    assert all([name for name, _ in output.headers].count("traceparent") == 1 for output in outputs)
