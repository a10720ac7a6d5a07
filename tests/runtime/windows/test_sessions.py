"""Sessions: to which of them an event belongs, when they become one, when they close, and what is late."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import App, Context, Event, Sessions, Tumbling
from pipeline.api.declarations import DeclaredTable
from pipeline.app import declared_app
from pipeline.cli.table_rows import find_table, rows_of
from pipeline.config import WorkerSettings
from pipeline.core.names import TaskId
from pipeline.core.records import iso_time
from pipeline.errors import ConfigError, HandlerError
from pipeline.testing import Step, TestDriver
from tests.support.runtime.window_app import START_MS, Numbers, WindowApp, joined

pytestmark = pytest.mark.unverified  # a closed session is made from several records

GAP_S, GRACE_S = 10, 5


def app_of(**options: Any) -> WindowApp:
    return WindowApp(Sessions(GAP_S, merge=joined), grace_s=GRACE_S, **options)


def sent(app: WindowApp, *events: tuple[str, float], driver: TestDriver | None = None) -> TestDriver:
    """Events of these keys and times, in this order; their values are their times."""
    driver = driver if driver is not None else app.driver()
    for key, at_s in events:
        app.send(driver, key, int(at_s), at_s)
    driver.run()
    return driver


def test_a_session_ends_when_its_key_has_no_event_for_the_gap() -> None:
    """Its end is a millisecond after its last event, whatever the other keys do."""
    app = app_of()
    driver = sent(app, ("a", 0), ("b", 3), ("a", 10), ("a", 20), ("b", 34))
    assert app.results(driver) == [("b", 3, (3,))]
    assert driver.windows(app.window) == {("a", START_MS): (0, 10, 20), ("b", START_MS + 34_000): (34,)}
    sent(app, ("c", 35.001), driver=driver)
    assert app.results(driver)[1:] == [("a", 0, (0, 10, 20))]
    assert [event.timestamp_ms for event in driver.outputs(app.closed)] == [
        START_MS + 3_000,
        START_MS + 20_000,
    ]


@pytest.mark.parametrize(("after_s", "sessions"), [(10, 1), (10.001, 2)])
def test_the_gap_is_the_longest_time_between_two_events(after_s: float, sessions: int) -> None:
    """An event exactly a gap later belongs to the session."""
    app = app_of()
    driver = sent(app, ("a", 0), ("a", after_s))
    assert len(driver.windows(app.window)) == sessions


def test_an_event_between_two_sessions_makes_them_one() -> None:
    """Its value is made by the user's function, of the earlier and the later one."""
    app = app_of()
    driver = sent(app, ("a", 0), ("a", 12), ("a", 6))
    assert driver.windows(app.window) == {("a", START_MS): (0, 12, 6)}


def test_an_event_out_of_order_can_begin_a_session_before_another_one() -> None:
    """Both end at their own time. The earlier one is found although the key was indexed under a later time."""
    app = app_of()
    driver = sent(app, ("a", 14), ("a", 1), ("b", 17))
    assert app.results(driver) == [("a", 1, (1,))]
    assert driver.windows(app.window) == {("a", START_MS + 14_000): (14,), ("b", START_MS + 17_000): (17,)}


@pytest.mark.parametrize("key", ["a", "b"], ids=["two-sessions", "one-session"])
def test_a_late_event_joins_an_open_session(key: str) -> None:
    """It extends the session to the past, whether its key has another one or not."""
    app = app_of()
    driver = sent(app, ("a", 10), ("a", 20), (key, 31), ("a", 4))
    assert app.late_values(driver) == []
    assert driver.windows(app.window)["a", START_MS + 4_000] == (10, 20, 4)


def test_an_event_whose_session_would_be_closed_is_late() -> None:
    """The topic of late events says which session it would have begun."""
    app = app_of()
    driver = sent(app, ("b", 25), ("a", 9), ("a", 10), driver=app.driver())
    (late,) = driver.outputs(app.late)
    assert (late.key, late.value) == ("a", 9)
    assert dict(late.headers)["late-starts"] == str(START_MS + 9_000).encode()
    assert driver.windows(app.window)["a", START_MS + 10_000] == (10,)


def test_a_closed_session_never_returns() -> None:
    """An event near it that is not late begins another session."""
    app = app_of()
    driver = sent(app, ("a", 0), ("b", 15.001), ("a", 10), ("b", 40))
    assert app.results(driver) == [("a", 0, (0,)), ("a", 10, (10,)), ("b", 15, (15,))]
    assert app.late_values(driver) == []


def test_a_closed_session_that_is_still_stored_is_not_joined() -> None:
    """Nothing depends on when it is removed: here, after all records of the batch."""
    app = app_of()
    driver = app.driver()
    driver.run()
    for key, at_s in (("a", 0), ("b", 15.001), ("a", 10)):
        app.send(driver, key, int(at_s), at_s)
    driver.step()
    driver.run()
    assert app.results(driver) == [("a", 0, (0,))]


def test_sessions_close_in_the_order_of_their_ends_and_keys() -> None:
    """Also those that were indexed under an earlier time, and several of one key."""
    app = app_of()
    driver = app.driver(settings=WorkerSettings(worker_id="test", max_poll_records=100))
    events = [("c", 0.0), ("a", 1.0), ("c", 8.0), ("b", 2.0), ("a", 13.0), ("d", 13.0), ("x", 100.0)]
    sent(app, *events, driver=driver)
    assert [(key, start) for key, start, _ in app.results(driver)] == [
        *[("a", 1), ("b", 2), ("c", 0), ("a", 13), ("d", 13)],
    ]


def test_an_event_that_assigns_no_value_belongs_to_no_session() -> None:
    """Two sessions become one only when the handler writes the new one."""
    app = app_of()
    sessions = app.window
    seen: list[tuple[int, int, Numbers]] = []

    def look(event: Event[str, int], ctx: Context) -> None:
        (row,) = ctx.window(sessions).rows(event)
        seen.append((row.start_ms - START_MS, row.end_ms - START_MS, row.value))
        seen.append((-1, -1, ctx.window(sessions).get("a", at_ms=START_MS + 6_000) or ()))

    app.app.handler(app.other)(look)
    driver = sent(app, ("a", 0), ("a", 12))
    driver.send(app.other, "a", 0, timestamp_ms=START_MS + 6_000)
    driver.run()
    assert seen == [(0, 12_001, (0, 12)), (-1, -1, (0, 12))]
    assert len(driver.windows(app.window)) == 2


def test_rows_of_several_events_may_be_kept_and_assigned_later() -> None:
    """Each assignment sees those before it, as with rows of tables."""
    app = WindowApp(Sessions(GAP_S, merge=joined), grace_s=GRACE_S)
    window = app.window
    others = app.app.topic("batches", key=str, value=int)

    @app.app.batch_handler(others)
    def collect(batch: Any, ctx: Context) -> None:
        rows = [row for event in batch for row in ctx.window(window).rows(event)]
        for row, value in zip(rows, batch.values, strict=True):
            row.value = (*row.value, value)

    driver = app.driver()
    for at_s in (0, 12, 6):
        driver.send(others, "a", at_s, timestamp_ms=START_MS + at_s * 1000)
    driver.run()
    assert driver.windows(window) == {("a", START_MS): (0, 12, 6)}


def test_a_failed_record_leaves_the_sessions_as_they_were() -> None:
    """Also if it had made one of two. A merge that raises is an error of the record."""

    def merge(earlier: Numbers, later: Numbers) -> Numbers:
        if 13 in later:
            raise ValueError("cannot be merged")
        return earlier + later

    app = WindowApp(Sessions(GAP_S, merge=merge), grace_s=GRACE_S)

    @app.app.handler(app.other, on_error="skip")
    def fail(event: Event[str, int], ctx: Context) -> None:
        for row in ctx.window(app.window).rows(event):
            row.value = (*row.value, event.value)
        raise ValueError("no")

    driver = sent(app, ("a", 0), ("a", 13), ("b", 0), ("b", 12))
    for key in "ab":
        driver.send(app.other, key, 6, timestamp_ms=START_MS + 6_000)
    driver.run()
    assert driver.worker.progress().skipped == 2
    assert driver.windows(app.window) == {
        ("a", START_MS): (0,),
        ("a", START_MS + 13_000): (13,),
        ("b", START_MS): (0,),
        ("b", START_MS + 12_000): (12,),
    }
    driver.clock.set_wall_ms(START_MS + 3_600_000)
    driver.advance(120)
    assert len(app.results(driver)) == 4


def test_mutable_values_are_never_shared() -> None:
    """A change of a list that is not assigned is not kept."""
    app = App("lists")
    events = app.topic("events", key=str, value=int)
    sessions: Any = app.window(
        "lists", key=str, value=list[int], size=Sessions(10, merge=list.__add__), grace_s=0, default=[]
    )

    @app.handler(events)
    def collect(event: Event[str, int], ctx: Context) -> None:
        for row in ctx.window(sessions).rows(event):
            row.value.append(-1)
            row.value = [*row.value, event.value]

    driver = TestDriver(app)
    for value in (1, 2):
        driver.send(events, "a", value)
    driver.run()
    assert list(driver.windows(sessions).values()) == [[1, 2]]


@pytest.mark.parametrize("step", [Step.AFTER_ENTRY, Step.AFTER_COMMIT, Step.AFTER_APPLY])
@pytest.mark.parametrize("empty_disk", [False, True])
def test_a_session_closes_once_across_a_crash(step: Step, empty_disk: bool) -> None:
    """Its index is restored with it, also where it was extended after it was indexed."""
    app = app_of()
    driver = sent(app, ("a", 0), ("b", 0))
    sent(app, ("a", 8), driver=driver)
    app.send(driver, "x", 0, 17)
    driver.crash_at(step)
    driver.run()
    driver.restart(empty_disk=empty_disk)
    driver.run()
    assert app.results(driver) == [("b", 0, (0,))]
    app.send(driver, "x", 0, 40)
    driver.crash_at(step)
    driver.run()
    driver.restart(empty_disk=empty_disk)
    driver.run()
    assert app.results(driver) == [("b", 0, (0,)), ("a", 0, (0, 8)), ("x", 17, (0,))]


def test_nothing_is_left_of_keys_that_were_seen_once() -> None:
    """Neither rows nor entries of the index."""
    app = app_of()
    driver = sent(app, *[(f"key-{number}", number / 10) for number in range(300)])
    driver.clock.set_wall_ms(START_MS + 3_600_000)
    driver.advance(120)
    assert len(app.results(driver)) == 300
    assert len(driver.stores.contents(driver.task().id)) == 1  # the clock


def test_an_extended_session_is_written_as_one_row() -> None:
    """The entry of the index stays where it is, until it is reached."""
    app = app_of()
    driver = sent(app, ("a", 0), ("x", 0))
    before = set(driver.stores.contents(driver.task().id))
    sent(app, ("a", 5), driver=driver)
    assert set(driver.stores.contents(driver.task().id)) == before
    sent(app, ("x", 15.5), driver=driver)
    assert app.results(driver) == [("x", 0, (0,))]
    sent(app, ("x", 21), driver=driver)
    assert app.results(driver)[1:] == [("a", 0, (0, 5))]


def test_a_dead_letter_of_a_session_keeps_its_start() -> None:
    """A replay calls the function with the same session and the same effect key."""
    app = app_of(on_error="dead_letter")
    app.broken = {"a"}
    driver = sent(app, ("a", 0), ("a", 7), ("x", 60))
    assert app.results(driver) == []
    (letter,) = driver.dead_letters()
    assert (letter.key, letter.value) == (b"a", b"[0,7]")
    app.broken.clear()
    assert driver.replay_dead_letters() == 1
    driver.run()
    assert app.results(driver) == [("a", 0, (0, 7))]
    assert [event.timestamp_ms for event in driver.outputs(app.closed)] == [START_MS + 7_000]
    other = app_of()
    sent(other, ("a", 0), ("a", 7), ("x", 60))
    assert other.effect_keys == app.effect_keys


def test_a_session_whose_function_raises_keeps_its_row() -> None:
    """The next start calls it again, with the same sessions."""
    app = app_of()
    app.broken = {"b"}
    driver = app.driver()
    for key, at_s in (("a", 0), ("b", 0), ("b", 11), ("c", 1), ("x", 60)):
        app.send(driver, key, at_s)
    with pytest.raises(HandlerError, match=r"@window/numbers\[0\] offset .* cannot be processed"):
        driver.run()
    assert app.results(driver) == [("a", 0, (0,))]
    app.broken.clear()
    driver.restart(empty_disk=True)
    driver.run()
    assert app.results(driver)[1:] == [("b", 0, (0,)), ("c", 1, (1,)), ("b", 11, (11,))]


def test_a_session_that_is_skipped_after_another_one_takes_nothing_back() -> None:
    """What is undone is the attempt, not the removal of the session before it, whose key has another one."""
    app = app_of(on_error="skip")
    app.broken = {"b"}
    driver = app.driver()
    for key, at_s in (("a", 0), ("b", 0), ("a", 11), ("x", 60)):
        app.send(driver, key, at_s)
    driver.run()
    assert driver.worker.progress().skipped == 1
    assert app.results(driver) == [("a", 0, (0,)), ("a", 11, (11,))]
    assert driver.windows(app.window) == {("x", START_MS + 60_000): (60,)}


@pytest.mark.parametrize(
    ("key", "starts"),
    [(None, [0, 11, 6]), ("a", [0, 11]), (f"a@{iso_time(START_MS + 11_000)}", [11])],
    ids=["all", "key", "row"],
)
def test_sessions_are_shown_by_key_and_start(key: str | None, starts: list[int]) -> None:
    """`pipeline table show` prints them like the rows of other windows."""
    app = app_of()
    driver = sent(app, ("a", 0), ("a", 11), ("b@c", 6))
    driver.stop()
    task = TaskId("windows", "main", 0)
    window: DeclaredTable[object, object] = find_table(declared_app(app.app), "numbers")
    rows = list(rows_of(window, driver.stores.open(task), task, key))
    assert [(row.key.start_ms - START_MS) // 1000 for row in rows] == starts


@pytest.mark.parametrize("size", [Sessions(11, merge=joined), Tumbling(10)])
def test_another_gap_or_size_is_refused(size: Any) -> None:
    """Rows of the old one would be read as others."""
    driver = sent(app_of(), ("a", 0))
    driver.restart(app=WindowApp(size, grace_s=GRACE_S).app)
    with pytest.raises(ConfigError, match=r"the size or the key of window numbers changed"):
        driver.run()


def test_values_of_sessions_can_be_upgraded() -> None:
    """Each of a key is converted, and their times and the index are kept."""
    app = app_of()
    driver = sent(app, ("a", 0), ("a", 11))
    new = App("windows")
    events = new.topic("events", key=str, value=int)
    closed = new.topic("closed", key=str, value=str)
    texts = new.window(
        "numbers",
        key=str,
        value=str,
        size=Sessions(GAP_S, merge=str.__add__),
        grace_s=GRACE_S,
        default="",
        upgrade=lambda old: ",".join(map(str, old)),
    )

    @new.handler(events)
    def collect(event: Event[str, int], ctx: Context) -> None:
        for row in ctx.window(texts).rows(event):
            row.value += f"+{event.value}"

    new.on_close(texts)(lambda session, ctx: ctx.send(closed, session.key, session.value))
    driver.restart(app=new)
    for at_s in (12, 50):
        driver.send(events, "a", at_s, timestamp_ms=START_MS + at_s * 1000)
    driver.run()
    assert [event.value for event in driver.outputs(closed)] == ["0", "11+12"]


def test_a_reset_removes_sessions_and_their_index() -> None:
    """Otherwise, an entry of a row that does not exist would be reached."""
    app = app_of()
    driver = sent(app, ("a", 0), ("a", 5))
    driver.reset()
    driver.run()
    assert driver.windows(app.window) == {("a", START_MS): (0, 5)}
    sent(app, ("x", 60), driver=driver)
    assert app.results(driver) == [("a", 0, (0, 5))]


def test_an_older_release_refuses_sessions() -> None:
    """It compares what is stored with its own declarations, and has none that begins so."""
    window: Any = app_of().window
    assert window.fingerprint.startswith("window(sessions, 10000 ms) str->json:")
