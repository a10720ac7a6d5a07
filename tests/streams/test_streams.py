"""Windows, sessions and joins give the results of Kafka Streams on the same input.

One task of one partition, and random events out of order. What differs on purpose is in decisions 49 and 50; the
inputs of these tests leave that out, or a test shows it.
"""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.peers.environments import UnavailableError, java_program
from pipeline import Hopping, Sessions, Tumbling
from pipeline.broker import cache_dir
from pipeline.broker.install import ensure_installed, read_lock, shipped_lock
from tests.support.runtime.join_app import JoinApp
from tests.support.runtime.window_app import START_MS, Numbers, WindowApp, joined

pytestmark = [pytest.mark.streams, pytest.mark.unverified]

HERE = Path(__file__).parent
CASES, EVENTS = 25, 120
GRACE_S = 5
END_S = 3_000  # after all windows


class Sent(NamedTuple):
    """An event. `at_ms`: after `START_MS`."""

    side: str
    key: str
    at_ms: int


class Case(NamedTuple):
    """A topology, in seconds, and its events."""

    kind: str
    size_s: int
    every_s: int
    grace_s: int
    events: Sequence[Sent]


Reference = Callable[[Sequence[Case]], list[list[list[str]]]]


@pytest.fixture(scope="module", name="reference")
def reference_of_streams(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Runs cases in Kafka Streams: the words of each line that it prints, by case."""
    try:
        lock = read_lock((HERE / "streams.lock.json").read_bytes())
        broker = ensure_installed(cache_dir(), shipped_lock())
        java, *options = java_program(HERE / "Reference.java", lock, broker)
    except UnavailableError as error:
        pytest.skip(f"Kafka Streams cannot be compared: {error}")

    command = [java, f"-Djava.io.tmpdir={tmp_path_factory.mktemp('streams')}", *options, "Reference"]

    def run(cases: Sequence[Case]) -> list[list[list[str]]]:
        text = "".join(line for case in cases for line in _lines(case))
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-4_000:]
        found = done.stdout.split("end\n")
        return [[line.split() for line in part.splitlines()] for part in found[:-1]]

    return run


def _lines(case: Case) -> Iterator[str]:
    sizes = " ".join(str(seconds * 1000) for seconds in (case.size_s, case.every_s, case.grace_s))
    yield f"case {case.kind} {sizes}\n"
    for number, event in enumerate(case.events):
        yield f"{event.side} {event.key} {START_MS + event.at_ms} {number}\n"
    yield "end\n"


def events_of(seed: int, late_ms: int, gap_ms: int) -> list[Sent]:
    """Random events, each at most `late_ms` before the newest one; the last ones are after all windows."""
    chance, now_ms, events = random.Random(seed), 0, []
    for _ in range(EVENTS):
        now_ms += chance.choice([0, 1, 100, gap_ms // 3, gap_ms, gap_ms + 1, 2 * gap_ms])
        at_ms = max(0, now_ms - chance.choice([0, 0, 0, 1, late_ms // 2, late_ms]))
        events.append(Sent(chance.choice(["left", "right"]), chance.choice("abc"), at_ms))
    return [*events, Sent("left", "x", END_S * 1000), Sent("right", "x", END_S * 1000)]


def windows_of(app: WindowApp, case: Case) -> dict[tuple[str, int], Numbers]:
    """Our closed windows: numbers by key and start."""
    driver = app.driver()
    driver.clock.set_wall_ms(START_MS + 10 * END_S * 1000)
    for number, event in enumerate(case.events):
        driver.send(app.events, event.key, number, timestamp_ms=START_MS + event.at_ms)
    driver.run()
    return {
        (event.key, int(dict(event.headers)["start"] or b"")): event.value
        for event in driver.outputs(app.closed)
    }


def _windows(lines: Sequence[Sequence[str]]) -> dict[tuple[str, int], Numbers]:
    return {(key, int(start)): tuple(map(int, numbers.split(","))) for _, key, start, numbers in lines}


@pytest.mark.parametrize("kind", ["tumbling", "hopping"])
def test_closed_windows_are_those_of_kafka_streams(reference: Reference, kind: str) -> None:
    """With a grace, and events that are too late for some or all of their windows."""
    cases = [
        Case(kind, 60, 20, GRACE_S, [each._replace(side="left") for each in events_of(seed, 40_000, 9_000)])
        for seed in range(CASES)
    ]
    size = Tumbling(60) if kind == "tumbling" else Hopping(60, every_s=20)
    for case, lines in zip(cases, reference(cases), strict=True):
        assert windows_of(WindowApp(size, grace_s=GRACE_S), case) == _windows(lines)


def sessions_of(late_ms: int) -> list[Case]:
    """Cases of sessions, with events that are late by so much."""
    return [
        Case(
            "sessions",
            10,
            0,
            GRACE_S,
            [each._replace(side="left") for each in events_of(seed, late_ms, 9_000)],
        )
        for seed in range(CASES)
    ]


def test_closed_sessions_are_those_of_kafka_streams(reference: Reference) -> None:
    """Sessions that become one, and those that are extended to the past."""
    cases = sessions_of(late_ms=4_000)
    for case, lines in zip(cases, reference(cases), strict=True):
        app = WindowApp(Sessions(10, merge=joined), grace_s=GRACE_S)
        assert windows_of(app, case) == _windows(lines)


def test_a_closed_session_returns_in_kafka_streams_only(reference: Reference) -> None:
    """There, an event joins a session that was published, if it is near. Here it begins another one, or is late.

    Results that are not a longer version of an earlier one are the same. Ours beside them are parts of the others.
    """
    cases = sessions_of(late_ms=31_000)
    returned = 0
    for case, lines in zip(cases, reference(cases), strict=True):
        fresh: dict[tuple[str, int], Numbers] = {}
        again: list[set[int]] = []
        for line in lines:
            (((key, start), numbers),) = _windows([line]).items()
            if any(key == other and set(earlier) < set(numbers) for (other, _), earlier in fresh.items()):
                again.append(set(numbers))
            else:
                fresh[key, start] = numbers
        ours = windows_of(WindowApp(Sessions(10, merge=joined), grace_s=GRACE_S), case)
        assert fresh.items() <= ours.items()
        for _, numbers in ours.items() - fresh.items():
            assert any(set(numbers) < longer for longer in again)
        returned += len(again)
    assert returned > 0


def test_pairs_and_unmatched_events_are_those_of_kafka_streams(reference: Reference) -> None:
    """For events that are out of order by less than the grace: later ones are dropped there, and not here."""
    cases = [Case("join", 10, 0, GRACE_S, events_of(seed, 4_000, 9_000)) for seed in range(CASES)]
    for case, lines in zip(cases, reference(cases), strict=True):
        app = JoinApp(within_s=10, grace_s=GRACE_S)
        driver = app.driver()
        driver.clock.set_wall_ms(START_MS + 10 * END_S * 1000)
        for number, event in enumerate(case.events):
            topic = app.orders if event.side == "left" else app.payments
            driver.send(topic, event.key, number, timestamp_ms=START_MS + event.at_ms)
        driver.run()
        pairs = Counter((event.key, *map(str, event.value)) for event in driver.outputs(app.matched))
        assert pairs == Counter((key, *numbers) for what, key, *numbers in lines if what == "pair")
        unmatched = [event for event in driver.outputs(app.unmatched) if event.value[0] == "left"]
        alone = Counter((event.key, str(event.value[1])) for event in unmatched)
        assert alone == Counter((key, number) for what, key, number, *_ in lines if what == "alone")
        assert pairs
        assert alone
