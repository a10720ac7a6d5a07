"""Windows: which rows an event has, when they close, and what is late."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from pipeline import App, Context, Event, Hopping, Tumbling
from pipeline.errors import ConfigError, HandlerError
from pipeline.runtime.task.due_steps import MOST
from pipeline.testing import Step, TestDriver
from tests.support.runtime.window_app import START_MS, WindowApp

pytestmark = pytest.mark.unverified  # a closed window is made from several records


def test_a_window_closes_once_the_clock_has_passed_its_end_and_the_grace() -> None:
    """Events out of order still count until then."""
    app = WindowApp()
    driver = app.driver()
    for value in (5, 30, 65, 69, 20):
        app.send(driver, "a", value)
    driver.run()
    assert app.results(driver) == []
    app.send(driver, "a", 70)
    driver.run()
    assert app.results(driver) == [("a", 0, (5, 30, 20))]
    assert driver.windows(app.window) == {("a", START_MS + 60_000): (65, 69, 70)}


def test_the_result_carries_the_last_millisecond_of_its_window() -> None:
    """So it is in the same window of the next stage."""
    app = WindowApp()
    driver = app.driver()
    app.send(driver, "a", 5)
    app.send(driver, "a", 300)
    driver.run()
    assert [event.timestamp_ms for event in driver.outputs(app.closed)] == [START_MS + 59_999]


def test_a_late_event_goes_to_its_topic_once_with_the_windows_that_it_missed() -> None:
    """Late data that is dropped without a trace is never found."""
    app = WindowApp(Hopping(60, every_s=20), grace_s=0)
    driver = app.driver()
    app.send(driver, "a", 100)
    app.send(driver, "a", 45)
    driver.run()
    (late,) = driver.outputs(app.late)
    headers = dict(late.headers)
    assert (late.key, late.value, late.timestamp_ms) == ("a", 45, START_MS + 45_000)
    assert headers["late-window"] == b"numbers"
    assert headers["late-starts"] == ",".join(str(START_MS + s * 1000) for s in (0, 20, 40)).encode()
    assert (headers["late-topic"], headers["late-partition"], headers["late-offset"]) == (
        b"events",
        b"0",
        b"1",
    )


def test_an_event_that_missed_some_windows_is_in_the_others() -> None:
    """One record to `late_to`, and a row in each window that is open."""
    app = WindowApp(Hopping(60, every_s=20), grace_s=0)
    driver = app.driver()
    app.send(driver, "a", 70)
    app.send(driver, "a", 45)
    driver.run()
    assert app.late_values(driver) == [45]
    rows = {
        (start_ms - START_MS) // 1000: value for (_, start_ms), value in driver.windows(app.window).items()
    }
    assert rows == {20: (70, 45), 40: (70, 45), 60: (70,)}


def test_an_event_of_a_window_that_has_just_closed_is_late() -> None:
    """Its rows are still in memory."""
    app = WindowApp()
    driver = app.driver()
    for value in (5, 300, 6):
        app.send(driver, "a", value)
    driver.run()
    assert app.late_values(driver) == [6]
    assert app.results(driver) == [("a", 0, (5,))]


def test_two_handlers_send_a_late_event_once() -> None:
    """Both ask for the rows of the same event."""
    app = WindowApp()
    app.app.handler(app.events)(app.collect)
    driver = app.driver()
    app.send(driver, "a", 300)
    app.send(driver, "a", 5)
    driver.run()
    assert app.late_values(driver) == [5]


def test_windows_close_in_order_of_their_ends_and_keys() -> None:
    """The order is that of the rows, whatever the order of the events was."""
    app = WindowApp()
    driver = app.driver()
    for key, value in (("b", 65), ("a", 61), ("c", 1), ("a", 2), ("x", 600)):
        app.send(driver, key, value)
    driver.run()
    assert [(key, start) for key, start, _ in app.results(driver)] == [
        ("a", 0),
        ("c", 0),
        ("a", 60),
        ("b", 60),
    ]


def test_an_event_of_a_hopping_window_is_in_each_of_them() -> None:
    """Each window has its own value of the key."""
    app = WindowApp(Hopping(60, every_s=20), grace_s=0)
    driver = app.driver()
    app.send(driver, "a", 65)
    app.send(driver, "a", 85)
    app.send(driver, "a", 600)
    driver.run()
    assert app.results(driver) == [
        ("a", 20, (65,)),
        ("a", 40, (65, 85)),
        ("a", 60, (65, 85)),
        ("a", 80, (85,)),
    ]


def test_the_event_time_can_come_from_the_value() -> None:
    """The timestamp of a record is often that of its import."""
    app = WindowApp(timed=True)
    driver = app.driver()
    for value in (5, 65, 120):
        driver.send(app.events, "a", value)
    driver.run()
    assert app.results(driver) == [("a", 0, (5,))]


def test_outputs_have_the_event_time_of_their_record() -> None:
    """The next stage then has the same times."""
    app = WindowApp(timed=True)
    copies = app.app.topic("copies", key=str, value=int)
    app.app.handler(app.events)(lambda event, ctx: ctx.send(copies, event.key, event.value))
    driver = app.driver()
    driver.send(app.events, "a", 5)
    driver.run()
    assert [event.timestamp_ms for event in driver.outputs(copies)] == [START_MS + 5_000]


@pytest.mark.parametrize("batch", [False, True])
def test_a_record_without_a_usable_event_time_is_poison(batch: bool) -> None:
    """It would be in no window: its policy is applied, without a retry, and it does not move the clock."""
    app = App("timed")

    def time_of(event: Event[str, int]) -> int:
        if event.value == 1:
            raise LookupError("no time")
        return -1 if event.value == 2 else 5_000

    events = app.topic("events", key=str, value=int, event_time_ms=time_of)
    seen: list[int] = []
    if batch:
        app.batch_handler(events, on_error="dead_letter", retries=5)(
            lambda batch, _ctx: seen.extend(batch.values)
        )
    else:
        app.handler(events, on_error="dead_letter", retries=5)(lambda event, _ctx: seen.append(event.value))
    driver = TestDriver(app)
    for value in (1, 2, 3):
        driver.send(events, "a", value)
    driver.run()
    errors = [dict(letter.headers)["dead-letter-error"] for letter in driver.dead_letters()]
    assert errors[0] == b"LookupError: no time"
    assert (errors[1] or b"").startswith(b"EventTimeError: the event time is -1; it must be")
    assert seen[-1] == 3
    assert not driver.log_events("record_retried")


def test_an_event_far_in_the_future_is_refused() -> None:
    """It would move the clock to the present, and be in a window that closes much later."""
    app = WindowApp()
    driver = app.driver()
    driver.send(app.events, "a", 1, timestamp_ms=driver.clock.wall_ms() + 3_700_000)
    with pytest.raises(HandlerError, match="is too far ahead of the wall clock") as failed:
        driver.run()
    assert failed.value.message.endswith("would make all other events of its partition late")


def test_an_event_time_that_cannot_be_used_names_the_function_that_gave_it() -> None:
    """Lines of this package, which checked the time, would hide it."""
    app = App("shop")

    def time_of(_event: Event[str, int]) -> int:
        return -1

    events = app.topic("events", key=str, value=int, event_time_ms=time_of)
    app.handler(events)(lambda _event, _ctx: None)
    driver = TestDriver(app)
    driver.send(events, "a", 1)
    with pytest.raises(HandlerError, match="the event time is -1") as failed:
        driver.run()
    line = time_of.__code__.co_firstlineno
    assert failed.value.message.splitlines()[1:] == [f'File "{__file__}", line {line}, in time_of']


def test_the_clock_is_visible_to_handlers() -> None:
    """It is that before the record."""
    app = WindowApp()
    clocks: list[int] = []
    app.app.handler(app.events)(lambda _event, ctx: clocks.append(ctx.clock_ms))
    driver = app.driver()
    app.send(driver, "a", 5)
    app.send(driver, "a", 7)
    driver.run()
    assert clocks == [0, START_MS + 5_000]


def test_an_open_window_can_be_read() -> None:
    """Of several windows at a time, the one that ends first; a closed one has no value."""
    app = WindowApp(Hopping(60, every_s=20), grace_s=0)
    read: list[object] = []

    def look(event: Event[str, int], ctx: Context) -> None:
        window = ctx.window(app.window)
        read.append(window.get("a", at_ms=START_MS + 45_000))
        read.append(window.get("b", at_ms=event.timestamp_ms))

    app.app.handler(app.events)(look)
    driver = app.driver()
    app.send(driver, "a", 45)
    app.send(driver, "a", 600)
    app.send(driver, "a", 605)
    driver.run()
    assert read == [(45,), None, (45,), None, None, None]


@dataclass
class Bag:
    """A value that can change."""

    numbers: list[int] = field(default_factory=list)


def test_a_mutable_default_is_a_new_object_each_time() -> None:
    """Keys that shared it would see each other's numbers; only an assigned value is stored."""
    app = App("bags")
    events = app.topic("events", key=str, value=int)
    bags = app.window("bags", key=str, value=Bag, size=Tumbling(60), grace_s=0, default=Bag())

    @app.handler(events)
    def add(event: Event[str, int], ctx: Context) -> None:
        for row in ctx.window(bags).rows(event):
            bag = row.value
            bag.numbers.append(event.value)
            if event.value != 3:
                row.value = bag

    driver = TestDriver(app)
    for key, value in (("a", 1), ("b", 2), ("a", 3), ("b", 4)):
        driver.send(events, key, value, timestamp_ms=START_MS)
    driver.run()
    assert driver.windows(bags) == {("a", START_MS): Bag([1]), ("b", START_MS): Bag([2, 4])}


def test_another_key_than_that_of_the_event_can_be_counted() -> None:
    """Rows belong to the partition of the record."""
    app = App("others")
    events = app.topic("events", key=str, value=int)
    sums = app.window("sums", key=int, value=int, size=Tumbling(60), grace_s=0, default=0)

    @app.handler(events)
    def add(event: Event[str, int], ctx: Context) -> None:
        for row in ctx.window(sums).rows(event, key=event.value % 2):
            row.value += event.value

    driver = TestDriver(app)
    for value in (1, 2, 3, 4):
        driver.send(events, "a", value, timestamp_ms=START_MS)
    driver.run()
    assert driver.windows(sums) == {(0, START_MS): 6, (1, START_MS): 4}


def test_a_batch_handler_uses_the_time_of_each_event() -> None:
    """The clock moves after the batch, so no event of it is late because of another one."""
    app = WindowApp(batch=True)
    driver = app.driver()
    for value in (5, 300, 7):
        app.send(driver, "a", value)
    driver.run()
    assert app.results(driver) == [("a", 0, (5, 7))]
    assert app.late_values(driver) == []


def test_a_failed_record_leaves_nothing_in_its_window() -> None:
    """A row is undone like that of a table; the clock moves, because the record was skipped."""
    app = WindowApp()

    def fail(event: Event[str, int], _ctx: Context) -> None:
        if event.value == 200:
            raise ValueError("no")

    app.app.handler(app.events, on_error="skip")(fail)
    driver = app.driver()
    for value in (5, 200, 10):
        app.send(driver, "a", value)
    driver.run()
    assert app.results(driver) == [("a", 0, (5,))]
    assert app.late_values(driver) == [10]
    assert driver.windows(app.window) == {}


def test_a_storm_of_closing_windows_does_not_stop_the_records() -> None:
    """A turn closes a bounded number of windows, and lateness does not wait for them."""
    app = WindowApp()
    driver = app.driver()
    for number in range(12_000):
        app.send(driver, f"k{number}", number, at_s=number % 60)
    driver.run()
    app.send(driver, "last", 0, at_s=75)
    driver.step()
    assert 0 < len(app.calls) <= MOST
    assert not driver.task().idle
    app.send(driver, "k1", 1, at_s=1)
    driver.step()
    assert len(app.calls) <= 2 * MOST
    assert driver.task().late_events == 1
    driver.run()
    closed = [key for key, start, _ in app.results(driver) if start == 0]
    assert len(closed) == len(set(closed)) == len(app.calls) == 12_000


def test_closing_keeps_pace_with_what_is_created(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer closes than new rows, the rows would accumulate."""
    monkeypatch.setattr("pipeline.runtime.task.due_steps.MOST", 1)
    app = WindowApp(grace_s=0)
    driver = app.driver()
    driver.run()
    for minute in range(50):
        for key in "abc":
            app.send(driver, key, minute, at_s=60 * minute)
        driver.step()
    assert len(app.calls) == 3 * 49


@pytest.mark.parametrize("step", [Step.AFTER_ENTRY, Step.AFTER_COMMIT, Step.AFTER_APPLY])
@pytest.mark.parametrize("empty_disk", [False, True])
def test_a_window_closes_once_across_a_crash(step: Step, empty_disk: bool) -> None:
    """Its outputs, the removal of its rows and the clock are one commit."""
    app = WindowApp()
    driver = app.driver()
    app.send(driver, "a", 5)
    driver.run()
    app.send(driver, "a", 70)
    driver.crash_at(step)
    driver.run()
    assert driver.crashed
    driver.restart(empty_disk=empty_disk)
    driver.run()
    app.send(driver, "a", 6)
    driver.run()
    assert app.results(driver) == [("a", 0, (5,))]
    assert app.late_values(driver) == [6]


def test_a_window_that_was_closed_stays_closed_if_the_grace_is_raised() -> None:
    """The mark is stored: with a greater grace, the clock alone would open it again."""
    app = WindowApp(grace_s=10)
    driver = app.driver()
    app.send(driver, "a", 5)
    app.send(driver, "a", 75)
    driver.run()
    assert len(app.results(driver)) == 1
    patient = WindowApp(grace_s=600)
    driver.restart(app=patient.app)
    patient.send(driver, "a", 6)
    driver.run()
    assert patient.late_values(driver) == [6]
    assert len(patient.results(driver)) == 1


def test_windows_close_earlier_if_the_grace_is_lowered() -> None:
    """The rows that are due then are found in the store."""
    app = WindowApp(grace_s=600)
    driver = app.driver()
    app.send(driver, "a", 5)
    app.send(driver, "a", 75)
    driver.run()
    assert app.results(driver) == []
    hasty = WindowApp(grace_s=10)
    driver.restart(app=hasty.app)
    driver.run()
    assert hasty.results(driver) == [("a", 0, (5,))]


@pytest.mark.parametrize("size", [Tumbling(30), Hopping(60, every_s=30)])
def test_another_size_is_refused(size: Tumbling | Hopping) -> None:
    """The rows that are stored are those of the old windows."""
    app = WindowApp()
    driver = app.driver()
    app.send(driver, "a", 5)
    driver.run()
    driver.restart(app=WindowApp(size).app)
    with pytest.raises(ConfigError, match="the size or the key of window numbers changed"):
        driver.run()


def test_a_window_that_is_no_longer_declared_is_refused() -> None:
    """Its rows would never close."""
    app = WindowApp()
    driver = app.driver()
    app.send(driver, "a", 5)
    driver.run()
    other = App("windows")
    events = other.topic("events", key=str, value=int)
    other.handler(events)(lambda _event, _ctx: None)
    driver.restart(app=other)
    with pytest.raises(ConfigError, match="window numbers has state, and the app no longer declares it"):
        driver.run()


def test_values_can_be_upgraded() -> None:
    """As those of a table."""
    app = WindowApp()
    driver = app.driver()
    app.send(driver, "a", 5)
    driver.run()
    later = App("windows")
    events = later.topic("events", key=str, value=int)
    window = later.window(
        "numbers", key=str, value=str, size=Tumbling(60), grace_s=10, default="", upgrade=lambda old: f"{old}"
    )
    later.handler(events)(lambda _event, _ctx: None)
    driver.restart(app=later)
    driver.run()
    assert driver.windows(window) == {("a", START_MS): "[5]"}


def test_a_window_without_a_function_is_only_removed() -> None:
    """Its rows must not stay forever."""
    app = App("quiet")
    events = app.topic("events", key=str, value=int)
    window = app.window("sums", key=str, value=int, size=Tumbling(60), grace_s=0, default=0)

    @app.handler(events)
    def add(event: Event[str, int], ctx: Context) -> None:
        for row in ctx.window(window).rows(event):
            row.value += event.value

    driver = TestDriver(app)
    driver.send(events, "a", 1, timestamp_ms=START_MS)
    driver.send(events, "a", 2, timestamp_ms=START_MS + 60_000)
    driver.run()
    assert driver.windows(window) == {("a", START_MS + 60_000): 2}


def test_a_group_without_windows_pays_nothing() -> None:
    """No row of a clock, and no look at the ends of its inputs."""
    app = App("plain")
    events = app.topic("events", key=str, value=int)
    counts = app.table("counts", key=str, value=int)

    @app.handler(events)
    def count(event: Event[str, int], ctx: Context) -> None:
        ctx.table(counts)[event.key] = event.value
        with pytest.raises(ConfigError, match="keeps no clock"):
            _ = ctx.clock_ms

    driver = TestDriver(app)
    driver.send(events, "a", 1)
    driver.advance(120)
    task = driver.task().id
    assert len(driver.stores.contents(task)) == 1
    assert driver.task().clock_ms is None


def test_a_clock_in_a_group_that_has_only_event_times() -> None:
    """Handlers can read it."""
    app = App("clock")
    events = app.topic("events", key=str, value=int, event_time_ms=lambda event: event.value)
    clocks: list[int] = []
    app.handler(events)(lambda _event, ctx: clocks.append(ctx.clock_ms))
    driver = TestDriver(app)
    for value in (5, 9):
        driver.send(events, "a", value)
    driver.run()
    driver.restart(empty_disk=True)
    driver.send(events, "a", 7)
    driver.run()
    assert clocks == [0, 5, 9]
