"""An app is tested in a few lines: `TestDriver`."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import App, Context, Event
from pipeline.app import declared_app
from pipeline.errors import ConfigError
from pipeline.testing import TestDriver
from tests.support.runtime.sums import Sums
from tests.support.testing.flights import Delay, Flight, app, delays, flights, totals


def test_an_app_is_tested_in_five_lines(driver: TestDriver) -> None:
    """Send, run, look at outputs and tables: no Kafka, no disk, no waiting."""
    driver.send(flights, "AA", Flight("AA", 10))
    driver.send(flights, "AA", Flight("AA", None))
    driver.run()
    assert [event.value for event in driver.outputs(delays)] == [Delay(1, 10), Delay(2, 10)]
    assert driver.table(totals) == {"AA": Delay(2, 10)}


def test_run_may_be_called_again_and_again(driver: TestDriver) -> None:
    """Each run continues where the last one ended, and repeats nothing."""
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
    driver.send(declared_app(old).topics["a"], None, 1)
    driver.run()
    new, counts = version("a", "b")
    driver.restart(app=new)
    driver.send(declared_app(new).topics["a"], None, 1)
    driver.send(declared_app(new).topics["b"], None, 1)
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


@pytest.mark.parametrize("seed", range(6))
def test_a_process_that_is_started_again_is_younger_than_the_one_before(seed: int) -> None:
    """The older of two workers with one id must leave; a restart must not look like another worker."""
    sums = Sums(seed=seed)
    ages = []
    for _ in range(3):
        sums.driver.step()  # no time passes
        worker = sums.driver.worker
        ages.append(worker._lifecycle.ownership.me.age)
        sums.driver.restart()
    assert ages == sorted(set(ages))
