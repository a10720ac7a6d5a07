"""The checkpoint store is away, slow or refuses."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pipeline.errors import DeniedError
from tests.support.runtime.checkpointed import (
    AWAY,
    begins_at,
    check_restored_from_a_checkpoint,
    eager,
    kept,
    manifest,
    prefix,
    with_history,
)


def test_processing_continues_while_the_store_is_away() -> None:
    """One warning for one outage, with numbers; and the checkpoint is made when the store is back."""
    sums = with_history(checkpoint_interval_s=60.0)
    newest, began = kept(sums)[0], begins_at(sums)
    sums.driver.checkpoints.away = AWAY
    for number in range(5):
        sums.send(number)
        sums.driver.clock.advance(10.0)
        sums.driver.run()
    assert kept(sums)[0] == newest
    assert begins_at(sums) == began
    assert len(sums.driver.outputs(sums.sums)) == len(sums.sent)
    (warning,) = sums.driver.log_events("checkpoint_store_unavailable")
    assert warning["journal_bytes"] > 0
    sums.driver.checkpoints.away = None
    sums.driver.clock.advance(10.0)
    sums.driver.run()
    assert kept(sums)[0].seq > newest.seq
    assert len(sums.driver.log_events("checkpoint_store_available")) == 1
    check_restored_from_a_checkpoint(sums)


@pytest.mark.parametrize("call", ["put", "get", "objects"])
def test_an_upload_that_was_interrupted_continues_where_it_was(call: str) -> None:
    """A large state would otherwise never get through an unsteady network."""
    sums = with_history(checkpoint_interval_s=60.0, checkpoint_grace_s=60.0)
    sums.driver.restart()  # so that manifests are read, too
    sums.driver.checkpoints.fail_next(call, AWAY)
    names = len(sums.driver.checkpoints.names())
    sums.send(1)
    sums.driver.run()
    sums.driver.clock.advance(10.0)
    sums.driver.run()
    assert sums.driver.checkpoints.faults.left() == []
    assert len(sums.driver.checkpoints.names()) <= names + 2
    check_restored_from_a_checkpoint(sums)


def test_a_manifest_whose_first_request_arrives_last_is_the_one_that_was_registered() -> None:
    """A store that answers too late may still do what it was asked, after it did the same for the next request."""
    sums = with_history(checkpoint_interval_s=60.0, checkpoint_grace_s=60.0)
    store = sums.driver.checkpoints
    put, late = store.put, list[tuple[str, bytes]]()

    def too_late(name: str, content: Iterable[bytes], size: int) -> None:
        data = b"".join(content)
        if "manifest" in name and not late:
            late.append((name, data))
            raise AWAY
        put(name, [data], size)

    store.put = too_late  # type: ignore[method-assign]
    sums.send(1)
    sums.driver.run()
    sums.driver.clock.advance(10.0)
    sums.driver.run()
    newest = kept(sums)[0]
    assert late[0][0].endswith(newest.manifest)
    put(late[0][0], [late[0][1]], 0)
    check_restored_from_a_checkpoint(sums, seq=newest.seq)


def test_a_journal_that_grows_too_long_pauses_the_intake_and_loses_nothing() -> None:
    """A restore would take as long as the journal is; the limit is the operator's."""
    sums = with_history(checkpoint_interval_s=60.0, checkpoint_journal_limit_bytes=2_000)
    sums.driver.checkpoints.away = AWAY
    for number in range(20):
        sums.send(number)
        sums.driver.run()
    (paused,) = sums.driver.log_events("input_paused")
    assert paused["journal_bytes"] > 2_000
    assert len(sums.driver.outputs(sums.sums)) < len(sums.sent)
    sums.driver.checkpoints.away = None
    sums.driver.clock.advance(10.0)
    sums.driver.run()
    assert sums.driver.log_events("input_resumed")
    sums.check()


def test_a_restore_reads_the_journal_from_its_beginning_while_the_store_is_away() -> None:
    """Where that is still there."""
    sums = eager()
    sums.send(1)
    sums.driver.run()
    assert begins_at(sums) == 0
    assert kept(sums)
    sums.driver.restart(empty_disk=True)
    sums.driver.checkpoints.fail_next("get", AWAY)
    sums.driver.run()
    assert sums.driver.log_events("task_live")[-1]["restored_from"] == "an empty state"
    sums.check()


def test_deletions_that_failed_are_made_up_for() -> None:
    """What is left undone stands in the next list."""
    sums = with_history()
    sums.driver.checkpoints.fail_next("delete", AWAY)
    sums.send(1)
    sums.driver.run()
    assert sums.driver.log_events("checkpoint_cleanup_failed")
    sums.send(1)
    sums.driver.run()
    named = {name for ref in kept(sums) for name in [ref.manifest, *manifest(sums, ref).objects]}
    assert set(sums.driver.checkpoints.names()) == {prefix(sums) + name for name in named}


def test_a_truncation_that_is_not_allowed_is_said_and_harms_nothing() -> None:
    """With the permission that is missing, as the adapter of Kafka names it."""
    sums = with_history()
    sums.driver.broker.fail_next("truncate", DeniedError("it needs Delete", hint="grant this ACL"))
    sums.send(1)
    sums.driver.run()
    (said,) = sums.driver.log_events("checkpoint_cleanup_failed")
    assert said["message"] == "it needs Delete"
    assert said["hint"] == "grant this ACL"
    check_restored_from_a_checkpoint(sums)
