"""Errors of records and handlers: each message has the cause, the place and the next step, and no data is lost.

Every test checks the text that an operator gets, fixes the cause, and compares outputs and tables with a fold.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.kafka.harness import DEADLINE_S
from tests.support.kafka.troubled_harness import TroubledBench
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize(
    ("trouble", "facts"),
    [
        ("raises", ["ValueError: no such carrier"]),
        ("sends elsewhere", ["'elsewhere'", "is not declared by this app"]),
        ("sends too much", ["a record of 300", "is over the limit of topic {prefix}-sums (19744 bytes)"]),
        ("sends too much", ["raise max.message.bytes of the topic and start the worker again"]),
    ],
)
def test_a_failed_handler_stops_its_task_until_it_is_fixed(
    troubled: TroubledBench, trouble: str, facts: list[str]
) -> None:
    """Its writes and outputs must be undone, so that the fixed handler finds the state before the record."""
    troubled.configure(f"{troubled.prefix}-sums", "max.message.bytes", "20000")
    troubled.send(100)
    worker = troubled.troubled_worker(trouble, at=60)
    failed = troubled.wait_for_event("task_failed")
    for fact in [*facts, "cannot be processed by add", f"{troubled.prefix}-amounts[", "troubles.py"]:
        assert fact.format(prefix=troubled.prefix) in failed["message"]
    assert (failed["app"], failed["group"], failed["partitions"]) == (
        *(troubled.prefix, "main"),
        [failed["task"]],
    )
    if trouble == "sends elsewhere":  # an error in the app has its own hint
        assert failed["hint"].startswith(
            "ctx.send takes what app.topic(...) returned. Then start the worker again"
        )
    else:
        assert "fix the handler or the record and start the worker again" in failed["hint"]
        assert "runbooks/poison-record.md" in failed["hint"]
    assert troubled.stop(worker) == 1
    troubled.finish()


BAD_RECORDS = [(b"\xff", b'{"n": 1}'), (b"key-1", b"{broken")]


@pytest.mark.unverified
def test_an_undecodable_key_stops_its_task_unless_skipped(
    troubled: TroubledBench,
) -> None:
    """The error must name the record although no handler got it, and `skip` must skip no other record."""
    troubled.send(100)
    for key, value in BAD_RECORDS:
        troubled.send_raw(key, value)
    troubled.send(100)
    worker = troubled.troubled_worker()
    failed = troubled.wait_for_event("task_failed", times=2)  # one in each group
    assert troubled.stop(worker) == 1
    assert f"the record {troubled.prefix}-amounts[0] offset" in failed["message"]
    assert "UnicodeDecodeError" in failed["message"]
    assert (
        "on_error='skip' or 'dead_letter' lets the task continue after such records: runbooks/poison-record.md"
        in failed["hint"]
    )
    worker = troubled.troubled_worker(policy="skip")
    troubled.settle(worker)
    rejected = troubled.events("record_rejected")
    assert len(rejected) == len(BAD_RECORDS) * 2
    assert {event["policy"] for event in rejected} == {"skip"}
    assert {(event["topic"], event["partition"]) for event in rejected} == {(f"{troubled.prefix}-amounts", 0)}
    assert {event["error"] for event in rejected} == {"UnicodeDecodeError", "DecodeError"}


def test_topics_with_small_limits_take_everything_in_smaller_batches(troubled: TroubledBench) -> None:
    """Outputs share batches, and a commit's entry is larger than each of them: neither may block the task."""
    troubled.send(5_000, keys=2_000)
    for name in ("amounts", "sums"):
        troubled.configure(f"{troubled.prefix}-{name}", "max.message.bytes", "2000")
    troubled.finish()
    assert troubled.events("commit_aborted") == []


def test_a_dead_letter_may_be_as_large_as_the_largest_input(troubled: TroubledBench) -> None:
    """A dead letter is the record plus some headers: if it were refused, one bad record would stop the task forever."""
    troubled.send(50)
    troubled.send_raw(b"key-1", os.urandom(1_048_400))
    troubled.send(50)
    troubled.settle(troubled.troubled_worker(policy="dead_letter"))
    assert len(troubled.events("record_rejected")) == 2  # by each group
    assert troubled.events("commit_aborted") == []


def test_a_limit_lowered_under_a_running_worker_costs_a_refused_commit(troubled: TroubledBench) -> None:
    """Each record fits, but the batch does not: the task must read the limits again and send smaller batches."""
    troubled.send(100)
    worker = troubled.worker("--commit-interval-ms", "500")
    troubled.wait_for_outputs(worker)
    troubled.configure(f"{troubled.prefix}-sums", "max.message.bytes", "600")
    troubled.send(1_000, keys=1_000)
    # Once one task has read the limits again, the next producer of the other one knows them, too.
    refused = troubled.wait_for_event("commit_refused")
    assert f"ProduceRequest for {troubled.prefix}-sums" in refused["message"]
    troubled.settle(worker)
    assert troubled.events("task_failed") == []
    assert troubled.events("record_rejected") == []


def _hanging(troubled: TroubledBench) -> dict[str, Any]:
    """Wait for the warning about the handler that hangs. On a busy machine, others may be slow."""

    def found() -> list[dict[str, Any]]:
        warnings = troubled.events("handler_has_not_returned")
        return [each for each in warnings if "_hangs" in str(each["stack"])]

    wait_until(found, troubled.log.read_text, DEADLINE_S)
    return found()[-1]


@pytest.mark.parametrize("trouble", ["hangs", "hangs in C"])
def test_a_handler_that_never_returns_is_named_and_sigterm_ends_the_worker(
    troubled: TroubledBench, trouble: str
) -> None:
    """A handler may hang inside a C library, where Python runs no signal handlers."""
    troubled.send(100)
    troubled.environment |= {"PIPELINE_HANDLER_WARNING_S": "0.4", "PIPELINE_STOP_TIMEOUT_S": "1.5"}
    worker = troubled.troubled_worker(trouble, at=60)
    warning = _hanging(troubled)
    assert (warning["handler"], warning["topic"]) == ("add", f"{troubled.prefix}-amounts")
    place = f"{warning['topic']}[{warning['partition']}] offset {warning['offset']}"
    assert "troubles.py" in str(warning["stack"])
    shown = ""

    def status_shows_it() -> bool:  # the note follows the log
        nonlocal shown
        shown = troubled.command("status", troubled.prefix, "--json", "--kafka", troubled.servers).stdout
        return f"handler add has not returned from {place} since" in shown

    wait_until(status_shows_it, lambda: shown, DEADLINE_S)
    assert "runbooks/handler-hangs.md" in shown
    assert troubled.stop(worker) == 1
    left = troubled.wait_for_event("worker_exit_forced")
    assert left["reason"] == (
        f"the worker was told to stop 1.5 s ago, and handler add has not returned from {place}"
    )
    assert "no data is lost" in str(left["hint"])
    assert "runbooks/handler-hangs.md" in str(left["hint"])
    troubled.finish()


def _is_pending(worker: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    """Whether the process has not taken the signal yet."""
    status = Path(f"/proc/{worker.pid}/status").read_text(encoding="ascii")
    masks = [
        int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd:", "ShdPnd:"))
    ]
    return any(mask >> (number - 1) & 1 for mask in masks)


def test_a_second_interrupt_ends_a_worker_whose_handler_hangs_at_once(troubled: TroubledBench) -> None:
    """A user at a terminal should not wait for the time-out; a second SIGTERM is often sent by mistake."""
    troubled.send(20)
    troubled.environment |= {"PIPELINE_HANDLER_WARNING_S": "0.2"}
    worker = troubled.troubled_worker("hangs in C", at=10)
    _hanging(troubled)
    worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGTERM)
    # Linux delivers SIGINT first if both are pending.
    wait_until(lambda: not _is_pending(worker, signal.SIGTERM), troubled.log.read_text, DEADLINE_S)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(0.5)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(DEADLINE_S) == 130
    troubled.finish()
