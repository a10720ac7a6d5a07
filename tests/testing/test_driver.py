"""TestDriver as a user meets it: an app in memory, crashed, restarted and looked into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from pipeline import App, Batch, Context, Event, Resource, Table
from pipeline.errors import ConfigError, HandlerError, InvariantError
from pipeline.ports import Step
from pipeline.testing import TestDriver


class Flight(msgspec.Struct, frozen=True):
    carrier: str
    dep_delay: int | None


class Delay(msgspec.Struct, frozen=True):
    flights: int = 0
    minutes: int = 0


app = App("flight-delays")
flights = app.topic("flights", key=str, value=Flight)
delays = app.topic("carrier-delays", key=str, value=Delay)
totals = app.table("totals", key=str, value=Delay)


@app.handler(flights, on_error="dead_letter")
def add_delay(event: Event[str, Flight], ctx: Context) -> None:
    """The program of the README."""
    table = ctx.table(totals)
    seen = table.get(event.key, Delay())
    total = Delay(seen.flights + 1, seen.minutes + (event.value.dep_delay or 0))
    table[event.key] = total
    ctx.send(delays, event.key, total)


@pytest.fixture
def driver() -> TestDriver:
    return TestDriver(app)


def test_an_app_is_tested_in_five_lines(driver: TestDriver) -> None:
    """Send, run, look at outputs and tables: no Kafka, no disk, no waiting."""
    driver.send(flights, "AA", Flight("AA", 10))
    driver.send(flights, "AA", Flight("AA", None))
    driver.run()
    assert [event.value for event in driver.outputs(delays)] == [Delay(1, 10), Delay(2, 10)]
    assert driver.table(totals) == {"AA": Delay(2, 10)}


def test_run_may_be_called_again_and_again(driver: TestDriver) -> None:
    """Each goes on where the last one ended, without doing anything twice."""
    driver.run()
    driver.send(flights, "AA", Flight("AA", 10))
    driver.run()
    driver.run()
    driver.send(flights, "AA", Flight("AA", 5))
    driver.run()
    assert [event.value for event in driver.outputs(delays)] == [Delay(1, 10), Delay(2, 15)]


def test_outputs_are_whole_events(driver: TestDriver) -> None:
    """Key, time and place can be asserted, too; the time is the input's."""
    driver.send(flights, "AA", Flight("AA", 10), timestamp_ms=1_234)
    driver.run()
    [output] = driver.outputs(delays)
    assert (output.key, output.topic, output.partition, output.offset) == ("AA", "carrier-delays", 0, 0)
    assert output.timestamp_ms == 1_234


def test_bytes_that_are_no_flight_can_be_sent(driver: TestDriver) -> None:
    """Other teams' producers do; the letter says why it was rejected."""
    driver.send_raw(flights, b"AA", b"{not json")
    driver.send_raw(flights, b"AA", None, headers=[("trace", b"1")])
    driver.send(flights, "AA", Flight("AA", 10))
    driver.run()
    assert driver.table(totals) == {"AA": Delay(1, 10)}
    letters = driver.dead_letters()
    assert [(letter.key, letter.value) for letter in letters] == [(b"AA", b"{not json"), (b"AA", None)]
    assert b"DecodeError" in (dict(letters[0].headers)["dead-letter-error"] or b"")
    assert letters[1].headers[0] == ("trace", b"1")


def test_headers_and_ids_reach_the_handler() -> None:
    """As from a real producer."""
    own = App("headers")
    topic = own.topic("in", value=int)
    seen: list[tuple[bytes | None, Any]] = []

    @own.handler(topic)
    def look(event: Event[None, int], ctx: Context) -> None:
        seen.append((event.id, list(event.headers)))

    driver = TestDriver(own)
    driver.send(topic, None, 1, headers=[("a", b"b")], event_id=b"42")
    driver.run()
    assert seen == [(b"42", [("a", b"b"), ("event-id", b"42")])]


def test_keys_are_placed_as_kafka_places_them() -> None:
    """All records of a key meet in one task; `partition` overrides it."""
    driver = TestDriver(app, partitions=3)
    for key in ("AA", "UA", "DL", "AA"):
        driver.send(flights, key, Flight(key, 1))
    driver.send(flights, "far", Flight("far", 1), partition=2)
    driver.run()
    by_partition = driver.table_by_partition(totals)
    assert sorted(by_partition) == [0, 1, 2]
    assert sum(len(rows) for rows in by_partition.values()) == 4
    assert driver.table(totals)["AA"] == Delay(2, 2)
    assert "far" in by_partition[2]


# Crashes


@pytest.mark.parametrize("step", [Step.BEFORE_BEGIN, Step.AFTER_FLUSH, Step.AFTER_COMMIT, Step.AFTER_APPLY])
@pytest.mark.parametrize("empty_disk", [False, True])
@pytest.mark.parametrize("deferred", [False, True])
def test_a_crash_loses_and_doubles_nothing(step: Step, empty_disk: bool, deferred: bool) -> None:
    """The user's own test of the promise, on the user's own app."""
    driver = TestDriver(app, deferred=deferred)
    driver.run()
    for minutes in (10, 5):
        driver.send(flights, "AA", Flight("AA", minutes))
    driver.crash_at(step)
    driver.run()
    assert driver.crashed
    driver.restart(empty_disk=empty_disk)
    driver.send(flights, "AA", Flight("AA", 1))
    driver.run()
    assert [event.value for event in driver.outputs(delays)] == [Delay(1, 10), Delay(2, 15), Delay(3, 16)]
    assert driver.table(totals) == {"AA": Delay(3, 16)}


def test_a_crash_at_the_nth_time(driver: TestDriver) -> None:
    """The first commit passes, the second does not."""
    driver.run()
    driver.crash_at(Step.AFTER_FLUSH, nth=2)
    driver.send(flights, "AA", Flight("AA", 1))
    driver.run()
    assert len(driver.outputs(delays)) == 1
    driver.send(flights, "AA", Flight("AA", 1))
    driver.run()
    assert driver.crashed
    assert driver.table(totals) == {"AA": Delay(1, 1)}


def test_a_crash_while_stopping(driver: TestDriver) -> None:
    """The last commit can be cut off like any other."""
    driver.run()
    driver.send(flights, "AA", Flight("AA", 1))
    driver.step()
    driver.crash_at(Step.AFTER_COMMIT)
    driver.stop()
    assert driver.crashed
    driver.restart()
    driver.run()
    assert [event.value for event in driver.outputs(delays)] == [Delay(1, 1)]
    assert driver.table(totals) == {"AA": Delay(1, 1)}


def test_a_crashed_worker_does_not_run_by_itself(driver: TestDriver) -> None:
    """A test that forgot to restart would pass without testing anything."""
    driver.crash()
    with pytest.raises(InvariantError, match=r"restart\(\) it first"):
        driver.run()


def test_what_is_not_committed_is_gone_after_a_crash(driver: TestDriver) -> None:
    """Processed is not committed: outputs, tables and input positions go together."""
    driver.run()
    driver.send(flights, "AA", Flight("AA", 1))
    assert driver.step()
    driver.crash()
    assert driver.outputs(delays) == []
    assert driver.table(totals) == {}
    driver.restart()
    driver.run()
    assert driver.table(totals) == {"AA": Delay(1, 1)}


def test_a_clean_stop_commits_what_is_open(driver: TestDriver) -> None:
    """SIGTERM in a deployment; the next start has nothing to do."""
    driver.run()
    driver.send(flights, "AA", Flight("AA", 1))
    driver.step()
    driver.stop()
    assert driver.table(totals) == {"AA": Delay(1, 1)}
    driver.stop()
    driver.run()
    assert len(driver.outputs(delays)) == 1


def test_handlers_do_not_run_again_for_committed_records() -> None:
    """Restore replays the journal, so a handler may ask the outside world, or draw at random."""
    calls: list[int] = []
    own = App("once")
    topic = own.topic("in", value=int)
    last = own.table("last", key=str, value=int)

    @own.handler(topic)
    def note(event: Event[None, int], ctx: Context) -> None:
        calls.append(event.value)
        ctx.table(last)["last"] = event.value

    driver = TestDriver(own)
    for n in range(3):
        driver.send(topic, None, n)
        driver.run()
        driver.restart(empty_disk=True)
    driver.run()
    assert calls == [0, 1, 2]
    assert driver.table(last) == {"last": 2}


# Versions of an app


def version(*names: str, value: Any = int) -> tuple[App, Any]:
    """A version of an app that counts the inputs of each named topic."""
    made = App("versions")
    counts = made.table("counts", key=str, value=value)

    def count(event: Event[None, int], ctx: Context) -> None:
        ctx.table(counts)[event.topic] = ctx.table(counts).get(event.topic, 0) + 1

    for name in names:
        made.handler(made.topic(name, value=int))(count)
    return made, counts


def test_a_new_version_of_the_app_takes_over() -> None:
    """A deployment, with an input topic that the old version did not have."""
    old, _ = version("a")
    driver = TestDriver(old)
    driver.send(old.topics["a"], None, 1)
    driver.run()
    new, counts = version("a", "b")
    driver.restart(app=new)
    driver.send(new.topics["a"], None, 1)
    driver.send(new.topics["b"], None, 1)
    driver.run()
    assert driver.table(counts) == {"a": 2, "b": 1}


def test_a_version_that_does_not_fit_is_refused_each_time() -> None:
    """A deployment that would read stored values as something else; trying again does not help."""
    old, _ = version("a")
    driver = TestDriver(old)
    driver.run()
    driver.restart(app=version("a", value=str)[0])
    for _ in range(2):
        with pytest.raises(ConfigError, match="schema of table counts changed"):
            driver.run()
    driver.restart(app=version("a")[0])
    driver.run()


def test_an_app_that_cannot_start_fails_each_time() -> None:
    """A second run must not pass because the first one failed."""
    driver = TestDriver(App("empty"))
    for _ in range(2):
        with pytest.raises(ConfigError, match="has no handlers"):
            driver.run()


# Poison


def test_poison_is_raised_after_what_came_before_it_was_committed() -> None:
    """As `pipeline worker` ends with it; a mended version of the app goes on from that record."""

    def make(limit: int) -> tuple[App, Any, Any]:
        made = App("strict")
        numbers = made.topic("numbers", value=int)
        sums = made.table("sums", key=str, value=int)

        @made.handler(numbers)
        def add(event: Event[None, int], ctx: Context) -> None:
            ctx.table(sums)["sum"] = ctx.table(sums).get("sum", 0) + event.value
            if event.value > limit:
                raise ValueError("too much")

        return made, numbers, sums

    old, numbers, sums = make(10)
    driver = TestDriver(old)
    for n in (1, 2, 50, 3):
        driver.send(numbers, None, n)
    for _ in range(2):
        with pytest.raises(HandlerError, match=r"numbers\[0\] offset 2 .*ValueError: too much"):
            driver.run()
        assert driver.table(sums) == {"sum": 3}
        driver.restart()
    mended, _, sums = make(100)
    driver.restart(app=mended)
    driver.run()
    assert driver.table(sums) == {"sum": 56}


def test_poison_as_the_very_first_record_stops_without_a_commit() -> None:
    """There is nothing before it; its position stays the one it had."""
    own = App("first")
    numbers = own.topic("numbers", value=int)

    @own.handler(numbers)
    def refuse(event: Event[None, int], ctx: Context) -> None:
        raise ValueError("never")

    driver = TestDriver(own)
    driver.send(numbers, None, 1)
    for _ in range(3):
        with pytest.raises(HandlerError, match=r"numbers\[0\] offset 0"):
            driver.run()
        driver.restart()


def test_poison_stops_its_own_task_only() -> None:
    """Other partitions go on to the end of their input."""
    own = App("islands")
    numbers = own.topic("numbers", key=str, value=int)
    sums = own.table("sums", key=str, value=int)

    @own.handler(numbers)
    def add(event: Event[str, int], ctx: Context) -> None:
        if event.value < 0:
            raise ValueError("negative")
        ctx.table(sums)[event.key] = ctx.table(sums).get(event.key, 0) + event.value

    driver = TestDriver(own, partitions=2)
    for n in (1, -1, 1):
        driver.send(numbers, "a", n, partition=0)
        driver.send(numbers, "b", abs(n), partition=1)
    with pytest.raises(HandlerError):
        driver.run()
    assert driver.table_by_partition(sums) == {0: {"a": 1}, 1: {"b": 3}}


# Handles that are kept


def keep_context(ctx: Context, table: Table[str, int]) -> Callable[[], object]:
    return lambda: ctx.table(counts_table)


def keep_send(ctx: Context, table: Table[str, int]) -> Callable[[], object]:
    send = ctx.send
    return lambda: send(kept_topic, None, 1)


def keep_table(ctx: Context, table: Table[str, int]) -> Callable[[], object]:
    return lambda: table.get("a")


def keep_write(ctx: Context, table: Table[str, int]) -> Callable[[], object]:
    return lambda: table.update({"a": 1})


def keep_method(ctx: Context, table: Table[str, int]) -> Callable[[], object]:
    get = table.get
    return lambda: get("a")


def keep_items(ctx: Context, table: Table[str, int]) -> Callable[[], object]:
    rows = table.items()
    next(rows)
    return lambda: next(rows)


def keep_item_access(ctx: Context, table: Table[str, int]) -> Callable[[], object]:
    return lambda: table["a"]


def keep_membership(ctx: Context, table: Table[str, int]) -> Callable[[], object]:
    return lambda: "a" in table


kept_app = App("kept")
kept_topic = kept_app.topic("in", value=int)
counts_table = kept_app.table("counts", key=str, value=int)


@pytest.mark.parametrize(
    "keep",
    [
        keep_context,
        keep_send,
        keep_table,
        keep_write,
        keep_method,
        keep_items,
        keep_item_access,
        keep_membership,
    ],
)
@pytest.mark.parametrize("batch", [False, True])
def test_a_handle_kept_after_its_call_is_caught(
    keep: Callable[[Context, Table[str, int]], Callable[[], object]], batch: bool
) -> None:
    """In production what it writes belongs to no record: lost with a crash, doubled by a retry."""
    own = App("kept")
    own.topics, own.tables = kept_app.topics, kept_app.tables
    kept: list[Callable[[], object]] = []

    def handle(given: object, ctx: Context) -> None:
        table = ctx.table(counts_table)
        table.update({"a": 1, "b": 2})
        if kept:
            kept[0]()
        kept.append(keep(ctx, table))

    if batch:
        own.batch_handler(kept_topic)(handle)
    else:
        own.handler(kept_topic)(handle)
    driver = TestDriver(own)
    driver.send(kept_topic, None, 1)
    driver.run()
    driver.send(kept_topic, None, 2)
    with pytest.raises(HandlerError, match="kept a context or table after its call"):
        driver.run()


def test_the_guard_is_invisible_to_a_handler_that_keeps_nothing() -> None:
    """Everything a table can do, inside the call."""
    own = App("guarded")
    topic = own.topic("in", value=int)
    table_def = own.table("t", key=str, value=int)
    numbers: Resource[list[int]] = own.resource(list)
    seen: list[Any] = []

    @own.batch_handler(topic)
    def handle(batch: Batch[None, int], ctx: Context) -> None:
        table = ctx.table(table_def)
        table["a"] = len(batch)
        table.update({"b": 2, "c": 3})
        del table["c"]
        ctx.resource(numbers).append(1)
        seen.append((table["a"], table.get("x", 5), "b" in table, "c" in table))
        seen.append((dict(table.items(prefix="b")), table.get_many(["a", "b"]), ctx.resource(numbers)))

    driver = TestDriver(own)
    driver.send(topic, None, 1)
    driver.run()
    assert seen == [(1, 5, True, False), ({"b": 2}, {"a": 1, "b": 2}, [1])]
    assert driver.table(table_def) == {"a": 1, "b": 2}


# Resources


def test_a_resource_is_made_once_and_closed_when_the_worker_stops() -> None:
    """Database pools and models; a crash closes nothing."""
    made: list[Pool] = []

    class Pool:
        def __init__(self) -> None:
            self.closed = False
            made.append(self)

        def close(self) -> None:
            self.closed = True

    own = App("pools")
    topic = own.topic("in", key=str, value=int)
    pool = own.resource(Pool)

    @own.handler(topic)
    def use(event: Event[str, int], ctx: Context) -> None:
        assert not ctx.resource(pool).closed

    driver = TestDriver(own, partitions=3)
    for n in range(6):
        driver.send(topic, str(n), n)
    driver.run()
    driver.restart()
    for n in range(6):
        driver.send(topic, str(n), n)
    driver.run()
    driver.stop()
    assert [each.closed for each in made] == [False, True]


def test_a_resource_that_cannot_be_made_belongs_to_its_record() -> None:
    """The database is away: the task stops at that record, and the next start tries again."""
    own = App("broken-pool")
    topic = own.topic("in", value=int)
    answers = iter([ConnectionError("refused")])

    def connect() -> str:
        for error in answers:
            raise error
        return "connected"

    pool = own.resource(connect)
    seen: list[str] = []

    @own.handler(topic)
    def use(event: Event[None, int], ctx: Context) -> None:
        seen.append(ctx.resource(pool))

    driver = TestDriver(own)
    driver.send(topic, None, 1)
    with pytest.raises(HandlerError, match="ConnectionError: refused"):
        driver.run()
    driver.restart()
    driver.run()
    assert seen == ["connected"]


# Schedules


def history(seed: int) -> list[tuple[int, int]]:
    driver = TestDriver(app, partitions=4, deferred=True, seed=seed)
    for n in range(40):
        driver.send(flights, str(n % 7), Flight("x", n))
        if n % 10 == 9:
            driver.run()
    return [(output.partition, output.value.minutes) for output in driver.outputs(delays)] + [
        (len(bytes(record.value() or b"")), 0)
        for record in driver.broker.records("flight-delays.main.journal")
    ]


def test_the_same_seed_gives_the_same_history() -> None:
    """A failure found at random can be run again."""
    assert history(3) == history(3)
