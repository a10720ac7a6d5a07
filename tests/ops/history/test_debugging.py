"""A committed record is run again: what its handlers do is what was committed, and nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from examples.flights.app import by_carrier
from pipeline import App, AsyncContext, Context, Dedup, Event, Table
from pipeline.api.event import Batch
from pipeline.app import declared_app
from pipeline.config import WorkerSettings
from pipeline.core.dead_letters import read_letter
from pipeline.core.names import TaskId, TopicPartition
from pipeline.errors import InputError
from pipeline.ops.history.debugging import Calls, DebugRun, debug_record, prepare
from pipeline.testing import TestDriver
from pipeline.testing.memory_store import MemoryStores
from tests.runtime.restore.test_stale_reads import Nth
from tests.support.ops.past_flights import PastFlights, reading

W1 = WorkerSettings(worker_id="w1")


def _run(
    driver: TestDriver,
    topic: str,
    offset: int,
    partition: int = 0,
    group: str = "main",
    call: Calls | None = None,
) -> DebugRun:
    app, environment = declared_app(driver.app), reading(driver)
    chosen = next(each for each in app.groups if each.name == group)
    task = TaskId(app.name, group, partition)
    prepared = prepare(app, chosen, task, topic, offset, environment)
    return debug_record(prepared, environment, MemoryStores(), call)


class Numbers:
    """An app that adds numbers, and fails for 13 as often as it is told to."""

    def __init__(
        self, on_error: Any = "dead_letter", retries: int = 0, dedup: Any = None, value: Any = int
    ) -> None:
        self.app = App("numbers")
        self.numbers = self.app.topic("numbers", key=str, value=int, dedup=dedup)
        self.more = self.app.topic("more", key=str, value=int)
        self.sums = self.app.topic("sums", key=str, value=int)
        self.totals: Table[str, Any] = self.app.table("totals", key=str, value=value)
        self.fails = True
        self.calls: list[int] = []
        for topic in (self.numbers, self.more):
            self.app.handler(topic, on_error=on_error, retries=retries, retry_delay_s=0)(self.add)
        self.driver = TestDriver(self.app, settings=W1)

    def add(self, event: Event[str, int], ctx: Context) -> None:
        self.calls.append(event.value)
        table = ctx.table(self.totals)
        table[event.key] = table.get(event.key, 0) + event.value
        if event.value == 13 and self.fails:
            raise ValueError("13 is not a number that we add")
        ctx.send(self.sums, event.key, table[event.key])

    def commit(self, *values: int, ids: tuple[bytes, ...] = ()) -> None:
        """One commit with these records."""
        for at, value in enumerate(values):
            self.driver.send(self.numbers, "a", value, event_id=ids[at] if ids else None)
        self.driver.run()


def test_each_flight_is_run_as_it_was_committed() -> None:
    """Reads, writes and outputs of every record are those of the first time, with checkpoints and without."""
    for checkpoints in (False, True):
        rig = PastFlights(checkpoints=checkpoints)
        outputs = rig.driver.broker.records("carrier-delays")
        checked = 0
        for record in rig.driver.broker.records(by_carrier.name):
            try:
                run = _run(rig.driver, by_carrier.name, record.offset(), record.partition())
            except InputError:
                assert checkpoints  # its commit is older than the oldest checkpoint
                continue
            before = rig.folded(
                TaskId("flights", "main", record.partition()), {by_carrier.name: record.offset()}
            )
            after = rig.folded(
                TaskId("flights", "main", record.partition()), {by_carrier.name: record.offset() + 1}
            )
            key = (record.key() or b"").decode()
            read, write = run.accesses
            assert (read.value, write.value) == (before.get(key), after[key])
            assert run.outcome == "handled"
            [made] = run.outputs
            assert made.committed is not None
            assert made.committed.equal
            [place] = [
                o
                for o in outputs
                if (o.partition(), o.offset()) == (made.committed.partition, made.committed.offset)
            ]
            assert place.value() == made.output.value
            checked += 1
        assert checked > 10


def test_the_last_record_of_a_commit_wrote_its_rows() -> None:
    """The value that it writes is the committed one; that of an earlier record was written again by a later one."""
    app = Numbers()
    app.commit(1, 2, 3)
    assert [row.same for row in _run(app.driver, "numbers", 2).writes.values()] == [True]
    [row] = _run(app.driver, "numbers", 0).writes.values()
    assert (row.in_commit, row.same, row.committed, row.written) == (True, False, b"6", b"1")


@pytest.mark.parametrize("retries", [0, 2])
def test_a_dead_letter_is_explained_by_the_same_exception(retries: int) -> None:
    """Error and traceback are those of the letter, and the writes of the failed attempts are undone."""
    app = Numbers(retries=retries)
    app.commit(1, 13, 2)
    run = _run(app.driver, "numbers", 1)
    [letter] = app.driver.dead_letters()
    read = read_letter(list(letter.headers))
    assert read is not None
    assert (run.outcome, run.attempts) == ("dead_letter", retries + 1)
    assert (run.error, run.traceback) == (read[0].error, read[0].traceback)
    assert run.error == "ValueError: 13 is not a number that we add"
    assert run.letter is not None
    assert run.letter.letter == read[0]
    assert [access.value for access in run.accesses] == [1, 14] * (retries + 1)  # a read and a write
    assert not run.writes
    assert not run.outputs
    assert _run(app.driver, "numbers", 2).accesses[0].value == 1


def test_a_record_that_cannot_be_decoded_shows_the_error_of_its_letter() -> None:
    """No handler was called, then or now."""
    app = Numbers()
    app.driver.send_raw(app.numbers, b"a", b"not JSON")
    app.driver.run()
    run = _run(app.driver, "numbers", 0)
    assert run.letter is not None
    assert (run.outcome, run.error) == ("dead_letter", run.letter.letter.error)
    assert not run.accesses


def test_a_fixed_handler_is_shown_beside_the_old_letter() -> None:
    """So a fix is tried on the record before it is deployed."""
    app = Numbers()
    app.commit(13)
    app.fails = False
    run = _run(app.driver, "numbers", 0)
    assert (run.outcome, run.error) == ("handled", "")
    assert run.letter is not None
    assert [row.in_commit for row in run.writes.values()] == [False]
    assert [made.committed for made in run.outputs] == [None]


def test_a_replay_is_run_from_the_replays_topic() -> None:
    """The handlers get the original record, and the letter is that of the replay."""
    app = Numbers()
    app.commit(13)
    assert app.driver.replay_dead_letters() == 1
    app.driver.run()
    run = _run(app.driver, "numbers.main.replays", 0)
    assert run.outcome == "dead_letter"
    assert run.letter is not None
    assert run.letter.letter.replay == 1
    first = _run(app.driver, "numbers", 0).letter
    assert first is not None
    assert first.letter.replay == 0


def test_a_skipped_record_shows_its_error() -> None:
    """A skip leaves no letter, so the run is the only way to see the error."""
    app = Numbers(on_error="skip")
    app.commit(1, 13)
    run = _run(app.driver, "numbers", 1)
    assert (run.outcome, run.letter) == ("skip", None)
    assert run.error.startswith("ValueError: 13")


def test_a_changed_handler_that_fails_stops_like_a_worker() -> None:
    """Without a policy the error would stop the task: it is shown, not raised."""
    app = Numbers(on_error="stop")
    app.fails = False
    app.commit(1, 13, 2)
    app.fails = True
    run = _run(app.driver, "numbers", 1)
    assert (run.outcome, run.error) == ("stop", "ValueError: 13 is not a number that we add")
    with pytest.raises(InputError, match="comes before it in the commit, fails now"):
        _run(app.driver, "numbers", 2)


def test_a_duplicate_calls_no_handler() -> None:
    """The ids of the past state decide, not those of today."""
    app = Numbers(dedup=Dedup(ttl_s=3600))
    app.commit(1, ids=(b"x",))
    app.commit(2, 1, ids=(b"y", b"x"))
    assert _run(app.driver, "numbers", 0).outcome == "handled"
    app.calls.clear()
    run = _run(app.driver, "numbers", 2)
    assert (run.outcome, app.calls) == ("duplicate", [2])


def test_only_the_records_up_to_this_one_are_handled() -> None:
    """Effects outside Kafka happen again, but only those of the records that are needed."""
    app = Numbers()
    app.commit(1)
    app.commit(2, 3, 4, 5)
    app.calls.clear()
    _run(app.driver, "numbers", 3)
    assert app.calls == [2, 3, 4]


def test_records_of_two_topics_run_by_their_timestamps() -> None:
    """The journal does not have their order, and the result says so."""
    app = Numbers()
    app.driver.send(app.numbers, "a", 1, timestamp_ms=3_000)
    app.driver.send(app.more, "a", 2, timestamp_ms=2_000)
    app.driver.send(app.more, "a", 4, timestamp_ms=4_000)
    app.driver.run()
    app.calls.clear()
    run = _run(app.driver, "numbers", 0)
    assert app.calls == [2, 1]
    assert not run.prepared.records.exact
    assert run.outcome == "handled"


def test_a_batch_handler_gets_the_record_alone() -> None:
    """How records were grouped then is not recorded."""
    app = App("batches")
    numbers = app.topic("numbers", key=str, value=int)
    sums = app.table("sums", key=str, value=int)
    seen: list[list[int]] = []

    @app.batch_handler(numbers)
    def add(batch: Batch[str, int], ctx: Context) -> None:
        seen.append(list(batch.values))
        table = ctx.table(sums)
        for event in batch:
            table[event.key] = table.get(event.key, 0) + event.value

    driver = TestDriver(app, settings=W1)
    for value in (1, 2, 3):
        driver.send(numbers, "a", value)
    driver.run()
    seen.clear()
    run = _run(driver, "numbers", 2)
    assert seen == [[1], [2], [3]]
    assert [row.same for row in run.writes.values()] == [True]


def test_a_debugger_calls_the_handler_of_this_record_only() -> None:
    """The records before it are not stepped through."""
    app = Numbers()
    app.commit(1, 2, 3)
    called: list[int] = []

    def call(handler: Callable[..., None], event: Any, context: Any) -> None:
        called.append(event.value)
        handler(event, context)

    run = _run(app.driver, "numbers", 1, call=call)
    assert called == [2]
    assert run.outcome == "handled"
    assert run.accesses[0].handler == "Numbers.add"


def test_after_a_reset_the_newest_commit_counts() -> None:
    """The record was handled twice, and the state of the second time is the one of today."""
    app = Numbers()
    app.commit(1, 2)
    app.driver.reset("numbers=1", "earliest")
    app.driver.run()
    run = _run(app.driver, "numbers", 1)
    assert run.prepared.commit.earlier == 1
    assert [access.value for access in run.accesses[:2]] == [None, 2]


@pytest.mark.parametrize(
    ("offset", "words"),
    [
        (2, "is not committed: the position of task numbers/main/0 is 2"),
        (0, "never processed record .*: the group started at offset 1"),
    ],
)
def test_a_record_that_was_never_processed_is_an_error(offset: int, words: str) -> None:
    """One above the position will be processed; one below the start of the group never was."""
    app = Numbers()
    app.driver.settings = WorkerSettings(worker_id="w1", start="latest")
    app.driver.send(app.numbers, "a", 1)
    app.driver.run()
    app.commit(2)
    with pytest.raises(InputError, match=words):
        _run(app.driver, "numbers", offset)


def test_a_record_whose_commit_was_deleted_names_the_oldest() -> None:
    """The journal begins at the oldest checkpoint."""
    rig = PastFlights(checkpoints=True)
    with pytest.raises(InputError, match="is no longer in the journal") as error:
        _run(rig.driver, by_carrier.name, 0)
    oldest = int((error.value.hint or "").rsplit(" ", 1)[1])
    assert _run(rig.driver, by_carrier.name, oldest).outcome == "handled"


def test_deleted_input_cannot_be_run() -> None:
    """Without the records before it in its commit, the state would be another one."""
    app = Numbers()
    app.commit(1, 2, 3)
    app.driver.broker.truncate(TopicPartition("numbers", 0), 1)
    with pytest.raises(InputError, match="Kafka has deleted the records before 1"):
        _run(app.driver, "numbers", 2)


def test_another_type_of_a_table_is_refused() -> None:
    """The handlers of today cannot read the rows of that time."""
    app = Numbers()
    app.commit(1)
    app.driver.app = Numbers(value=str).app
    with pytest.raises(InputError, match="the schema of table totals changed") as error:
        _run(app.driver, "numbers", 0)
    assert error.value.hint == "run the version of the app that made this commit"


def test_a_run_writes_nothing_to_kafka() -> None:
    """No record, no transaction and no fence: the worker continues as if nothing had happened."""
    rig = PastFlights()
    before = rig.records()
    run = _run(rig.driver, by_carrier.name, 1)  # the environment has no producers
    assert run.outputs
    assert rig.records() == before
    rig.fly()


@pytest.mark.parametrize("nth", range(5))
def test_a_stale_leader_does_not_hide_a_record(nth: int) -> None:
    """It knows neither the commit nor the record, and both exist."""
    app = Numbers()
    app.commit(1)
    stale = app.driver.broker.add_stale_leader(lambda: False)
    app.commit(2, 3)
    stale.answers = Nth(nth)
    assert [row.same for row in _run(app.driver, "numbers", 2).writes.values()] == [True]


def test_an_async_handler_is_run_as_it_was_committed() -> None:
    """Its row and its outputs are those of the commit; nothing else runs beside it."""
    app = App("numbers")
    numbers = app.topic("numbers", key=str, value=int)
    sums = app.topic("sums", key=str, value=int)
    totals = app.table("totals", key=str, value=int)

    @app.async_handler(numbers)
    async def add(event: Event[str, int], ctx: AsyncContext) -> None:
        row = ctx.row(totals, event)
        before = row.get(0)
        await asyncio.sleep(0)
        row.value = before + event.value
        ctx.send(sums, event.key, row.get(0))

    driver = TestDriver(app, settings=W1)
    for value in (1, 2, 3):
        driver.send(numbers, "a", value)
    driver.run()
    run = _run(driver, "numbers", 1)
    assert run.outcome == "handled"
    assert [(access.kind, access.value) for access in run.accesses] == [("read", 1), ("write", 3)]
    assert [output.output.value for output in run.outputs] == [b"3"]
    assert all(output.committed is not None for output in run.outputs)
