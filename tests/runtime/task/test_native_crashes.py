"""Records that crash the process: found, given their policy, and never blamed for a kill."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline import App, Batch, Context, Event, OnError, Postgres
from pipeline.core.crashes import decode_suspects
from pipeline.core.names import workers_group
from pipeline.errors import ConfigError, HandlerError, PipelineError
from pipeline.ports import Step
from pipeline.testing import SimulatedCrash, TestDriver
from pipeline.testing.memory_store import MemoryCrashLog

BAD = 13
DSN = "postgresql://localhost/native"


class Gone(SimulatedCrash, KeyboardInterrupt):
    """The process is gone in the middle of a handler: no policy is asked."""


class Native:
    """An app that echoes numbers. A bad one ends the process as `how` says: a fatal signal's name, "kill", or not."""

    def __init__(
        self, on_error: OnError, *, batch: bool = False, retries: int = 0, deferred: bool = False
    ) -> None:
        self.how = "SIGSEGV"
        self.here = True
        self.app = App("app")
        self.inputs = self.app.topic("in", key=str, value=int)
        self.outs = self.app.topic("out", key=str, value=int)
        if batch:
            self.app.batch_handler(self.inputs, on_error=on_error)(self.echo_all)
        else:
            self.app.handler(self.inputs, on_error=on_error, retries=retries)(self.echo)
        self.driver = TestDriver(self.app, deferred=deferred)
        self.log = NotedCrashLog()
        self.driver.crash_log = self.log

    def echo(self, event: Event[str, int], ctx: Context) -> None:
        if event.value == BAD:
            self.crash()
        ctx.send(self.outs, event.key, event.value)

    def echo_all(self, batch: Batch[str, int], ctx: Context) -> None:
        for event in batch:
            self.echo(event, ctx)

    def row(self, event: Event[str, int]) -> Any:
        if event.value == BAD:
            self.crash()
        return {"k": event.key, "v": event.value}

    def crash(self) -> None:
        if not self.how:
            return
        if self.how != "kill":
            self.log.crash(self.how, here=self.here)
        raise Gone(self.how)

    def send(self, *values: int) -> None:
        for value in values:
            self.driver.send(self.inputs, "k", value)

    def crashes(self, most: int = 20) -> int:
        """Start workers until one does not crash; how many did. Raises what the last one ends with."""
        for number in range(most):
            self.driver.run()
            if not self.driver.crashed:
                return number
            self.driver.restart()
        return most

    def lose_the_disk(self, next_worker: str = "test") -> None:
        """With the process on it, if one is left. `next_worker`: has the tasks then."""
        self.driver.restart(empty_disk=True)
        self.driver.crash_log = self.log = NotedCrashLog()
        self.driver.settings = replace(self.driver.settings, worker_id=next_worker)
        members = workers_group(self.app.name)
        assert self.driver.broker.groups.member_ids(members)
        self.driver.clock.advance(60.0)
        assert not self.driver.broker.groups.member_ids(members)

    @property
    def echoed(self) -> list[int]:
        return [event.value for event in self.driver.outputs(self.outs)]

    @property
    def suspects(self) -> dict[Any, Any]:
        return dict(decode_suspects(self.log.load())[0])


class NotedCrashLog(MemoryCrashLog):
    """Counts how often records were noted."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[int, int]] = []
        self.end_before_begin = False
        self.full = False

    def save(self, data: bytes) -> None:
        if self.full:
            raise ConfigError("no space left", hint="make room")
        super().save(data)

    @property
    def noted_alone(self) -> bool:
        return any(first == last == 13 for first, last in self.noted)

    def begin(self, process: str) -> None:
        if self.end_before_begin:
            self.end_before_begin = False
            raise SimulatedCrash("between what is saved and the next process's note")
        super().begin(process)

    def handling(self, place: bytes, first: int, last: int) -> None:
        self.noted.append((first, last))
        super().handling(place, first, last)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("on_error", ["skip", "dead_letter"])
def test_the_policy_is_applied_at_the_fourth_start(on_error: OnError, batch: bool) -> None:
    """Two ends make the worker cautious, the third one is the proof. Nothing else is lost."""
    native = Native(on_error, batch=batch)
    native.send(*range(20))
    assert native.crashes() == 3
    assert native.echoed == [value for value in range(20) if value != BAD]
    letters = native.driver.dead_letters() if on_error == "dead_letter" else []
    assert [dict(letter.headers)["dead-letter-error"] for letter in letters] == (
        [b"NativeCrash: the process crashed natively 3 times while it handled this record"] * len(letters)
    )
    assert len(native.driver.log_events("record_rejected")) == 1
    assert native.suspects == {}


def test_a_dead_letter_says_where_the_process_crashed() -> None:
    """The reader of the log has no core dump."""
    native = Native("dead_letter")
    native.send(BAD)
    native.crashes()
    (letter,) = native.driver.dead_letters()
    assert b'File "library.py", line 1 in crash' in dict(letter.headers)["dead-letter-traceback"]  # type: ignore[operator]


def test_a_crash_is_logged_by_the_next_start() -> None:
    """Who finds the worker restarted must not have to guess where it ended."""
    native = Native("skip")
    native.send(*range(20))
    native.crashes()
    said = native.driver.log_events("previous_process_crashed")
    assert [line["handling"] for line in said] == [
        "in[0] offset 0 to 19 of task app/main/0",
        "in[0] offset 0 to 19 of task app/main/0",
        "in[0] offset 13 of task app/main/0",
    ]
    assert [(line["reason"], line["thread"]) for line in said] == [("SIGSEGV", "processing")] * 3


def test_records_are_noted_once_a_batch_until_caution_is_needed() -> None:
    """A note for each record would cost every user what few ever need."""
    native = Native("skip")
    native.send(*range(20))
    native.driver.run()
    assert native.log.noted == [(0, 19)]
    native.driver.restart()
    native.driver.run()
    native.driver.restart()
    native.log.noted.clear()
    native.driver.run()
    assert native.log.noted == [(offset, offset) for offset in range(14)]
    native.driver.restart()
    native.log.noted.clear()
    native.driver.run()
    assert native.log.noted == [(0, 12), (14, 19)]


def test_under_stop_the_task_names_the_record_and_a_fix_passes_it() -> None:
    """Everything before the record is committed, and the next start handles it once more."""
    native = Native("stop", retries=2)
    native.send(*range(20))
    with pytest.raises(HandlerError, match=r"the record in\[0\] offset 13 .* 3 times") as stopped:
        native.crashes()
    assert "runbooks/native-crash.md" in (stopped.value.hint or "")
    assert native.echoed == list(range(BAD))
    native.driver.restart()
    native.how = ""
    assert native.crashes() == 0
    assert native.echoed == list(range(20))
    assert native.suspects == {}


def test_under_stop_a_start_without_a_fix_crashes_once() -> None:
    """It is tried, and found guilty at once."""
    native = Native("stop")
    native.send(BAD)
    with pytest.raises(HandlerError):
        native.crashes()
    native.driver.restart()
    native.driver.run()
    assert native.driver.crashed
    native.driver.restart()
    with pytest.raises(HandlerError):
        native.driver.run()


def test_kills_never_condemn_a_record() -> None:
    """SIGKILL and an out-of-memory kill leave no trace: also not beside two crashes that count."""
    native = Native("skip")
    native.send(*range(20))
    native.how = "kill"
    assert native.crashes(most=6) == 6
    assert native.suspects == {}
    native.how = "SIGSEGV"
    assert native.crashes(most=2) == 2
    native.how = "kill"
    assert native.crashes(most=6) == 6
    native.how = ""
    assert native.crashes() == 0
    assert native.echoed == list(range(20))
    assert not native.driver.log_events("record_rejected")
    assert "SIGKILL" in native.driver.log_events("previous_process_ended")[0]["reason"]


def test_a_foreign_thread_stops_the_task_and_skips_nothing() -> None:
    """It may have been the Kafka client: the record could be innocent."""
    native = Native("skip")
    native.here = False
    native.send(*range(20))
    with pytest.raises(HandlerError, match="the cause may be another thread"):
        native.crashes()
    assert native.echoed == list(range(BAD))


def test_a_crash_that_does_not_come_back_is_forgotten() -> None:
    """A suspicion ends with the commit of its records."""
    native = Native("skip")
    native.send(*range(20))
    assert native.crashes(most=2) == 2
    assert len(native.suspects) == 1
    native.how = ""
    assert native.crashes() == 0
    assert native.suspects == {}
    assert native.echoed == list(range(20))


@pytest.mark.parametrize("step", [Step.BEFORE_BEGIN, Step.AFTER_COMMIT])
def test_a_verdict_lasts_until_it_is_committed(step: Step) -> None:
    """A process that is killed in between must not hand the record to the handler again."""
    native = Native("dead_letter")
    native.send(*range(20))
    assert native.crashes(most=3) == 3
    native.driver.crash_at(step, nth=2)  # the first entry is the acquire entry
    assert native.crashes() == 1
    assert len(native.driver.log_events("previous_process_crashed")) == 3
    assert len(native.driver.dead_letters()) == 1
    assert native.echoed == [value for value in range(20) if value != BAD]


def test_two_records_that_crash_are_both_found() -> None:
    """Each needs three crashes of its own."""
    native = Native("skip")
    native.send(1, BAD, 2, 3, BAD, 4)
    assert native.crashes() == 6
    assert native.echoed == [1, 2, 3, 4]


def test_a_start_that_is_killed_counts_a_crash_once() -> None:
    """The suspicion is saved before the note is begun anew, and would be counted again by the next start."""
    native = Native("skip")
    native.send(BAD)
    native.driver.run()
    native.driver.restart()
    native.log.end_before_begin = True
    native.driver.run()
    assert native.driver.crashed
    native.driver.restart()
    assert native.crashes() == 2
    assert [line["crashes"] for line in native.driver.log_events("previous_process_crashed")] == [1, 2, 3]


def test_a_log_that_cannot_be_written_stops_no_task() -> None:
    """The suspicion that stays on the disk is of records that are committed."""
    native = Native("skip")
    native.send(*range(20))
    assert native.crashes(most=3) == 3
    native.driver.step()
    saved = native.log.load()
    native.log.full = True
    assert native.crashes() == 0
    assert native.echoed == [value for value in range(20) if value != BAD]
    assert native.driver.log_events("crash_log_not_written")
    assert native.log.load() == saved
    native.log.full = False
    native.driver.restart()
    native.send(7)
    assert native.crashes() == 0
    assert native.suspects == {}


def test_a_crash_outside_of_handlers_suspects_no_record() -> None:
    """As in the Kafka client, or while the interpreter ends."""
    native = Native("skip")
    native.send(1)
    native.driver.run()
    native.log.crash("Aborted")
    native.driver.restart()
    native.driver.run()
    (said,) = native.driver.log_events("previous_process_crashed")
    assert said["handling"] == "no record"
    assert native.suspects == {}


def test_a_worker_that_stopped_in_order_is_not_spoken_of() -> None:
    """A clean stop is no news."""
    native = Native("skip")
    native.send(1)
    native.driver.run()
    native.driver.stop()
    native.driver.restart()
    native.driver.run()
    assert not native.driver.log_events("previous_process_ended")
    assert not native.driver.log_events("previous_process_crashed")


def test_a_topic_that_was_recreated_has_other_records() -> None:
    """Offset 0 is another record then."""
    native = Native("skip")
    native.send(BAD)
    assert native.crashes(most=3) == 3
    native.driver.recreate(native.inputs)
    native.driver.reset()
    native.send(7)
    assert native.crashes() == 0
    assert native.echoed == [7]


def test_a_disk_that_is_lost_takes_only_its_last_crash_with_it() -> None:
    """The other workers must know what a start has found before it handles a record: the record may end the process.

    Executor threads write other notes later, so a note of this kind must not wait for one.
    """
    native = Native("skip", deferred=True)
    native.send(*range(20))
    assert native.crashes(most=3) == 3
    native.lose_the_disk()
    assert native.crashes() == 1
    assert native.echoed == [value for value in range(20) if value != BAD]


def test_a_disk_that_is_lost_each_time_finds_no_record() -> None:
    """The documents say so, and what to do."""
    native = Native("skip")
    native.send(BAD)
    for _ in range(8):
        native.driver.run()
        assert native.driver.crashed
        native.lose_the_disk()
    assert native.suspects == {}


def test_another_worker_continues_the_count() -> None:
    """Otherwise one record ends each worker of the app three times."""
    native = Native("skip")
    native.send(*range(20))
    assert native.crashes(most=2) == 2
    native.lose_the_disk("another")
    assert native.crashes() == 2
    assert native.echoed == [value for value in range(20) if value != BAD]
    native.lose_the_disk("third")
    native.send(7)
    assert native.crashes() == 0
    assert not native.log.noted_alone


def test_what_another_worker_found_under_stop_is_known() -> None:
    """It tries the record once, with caution, as a start of the same worker would."""
    native = Native("stop")
    native.send(*range(20))
    with pytest.raises(HandlerError):
        native.crashes()
    native.lose_the_disk("another")
    with pytest.raises(HandlerError):
        native.crashes(most=2)
    assert len(native.driver.log_events("previous_process_crashed")) == 4


def test_a_replay_that_crashes_is_a_dead_letter_again() -> None:
    """Whatever the policy says by now, as for any replay that fails."""
    native = Native("dead_letter")
    native.send(BAD)
    assert native.crashes() == 3
    assert native.driver.replay_dead_letters() == 1
    assert native.crashes() == 3
    replays = [dict(letter.headers)["dead-letter-replay"] for letter in native.driver.dead_letters()]
    assert replays == [b"0", b"1"]


@pytest.mark.parametrize("on_error", ["skip", "stop"])
def test_a_row_function_that_crashes_gets_the_policy_of_its_sink(on_error: Any) -> None:
    """Sinks make rows on the thread that handles records."""
    native = Native("skip")
    native.app = App("rows")
    native.inputs = native.app.topic("in", key=str, value=int)
    sink: Postgres[str, int] = Postgres(DSN, "rows", mode="append", row=native.row)
    native.app.group("rows").sink(native.inputs, sink, on_error=on_error)
    native.driver = TestDriver(native.app)
    native.driver.crash_log = native.log
    native.send(*range(20))
    found: PipelineError | None = None
    try:
        assert native.crashes() == 3
    except HandlerError as error:
        found = error
    written = [row["v"] for row in native.driver.rows(sink)]
    if on_error == "skip":
        assert written == [value for value in range(20) if value != BAD]
        assert native.suspects == {}
        return
    assert found is not None
    assert "offset 13" in found.message
    assert written == list(range(BAD))
    native.driver.restart()
    native.how = ""
    assert native.crashes() == 0
    assert [row["v"] for row in native.driver.rows(sink)] == list(range(20))
