"""Worker processes under a supervisor: when one is started again, when it is given up, and how all are ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import structlog

from pipeline.core.departures import DepartureRecord
from pipeline.processes.supervisor import GRACE_S, MAX_REFUSALS, MAX_WAIT_S, WELL_S, End, Restarts, Supervisor
from pipeline.runtime.metrics.figures import WorkerCounters
from pipeline.testing import ManualClock, SeededRandom

STOP_TIMEOUT_S = 30.0
KILLED = End(-signal.SIGKILL, 5.0, worked=True)
REFUSED = End(1, 1.0, worked=False)


def progress(records: int = 0, live: int = 0) -> WorkerCounters:
    return WorkerCounters(records, 0, 0, 0, 0, live, 0, 0, 0)


@dataclass
class Script:
    """A child that does what it was made for, on the clock: `ends` (code, after seconds), or runs until told."""

    clock: ManualClock
    code: int | None = None
    after_s: float = 0.0
    progress: WorkerCounters | None = None
    departure: DepartureRecord | None = None
    deaf: bool = False
    pid: int = 0
    told: list[str] = field(default_factory=list)
    ended: int | None = None

    def __post_init__(self) -> None:
        self.end_s = self.clock.monotonic_s() + self.after_s

    def poll(self) -> int | None:
        if self.ended is None and self.code is not None and self.clock.monotonic_s() >= self.end_s:
            self.ended = self.code
        return self.ended

    def terminate(self) -> None:
        self.told.append("terminate")
        if not self.deaf:
            self.ended = 0 if self.ended is None else self.ended

    def kill(self) -> None:
        self.told.append("kill")
        self.ended = -signal.SIGKILL


class Crew:
    """A supervisor of scripted children on a clock that tests move."""

    def __init__(self, count: int, play: Callable[[str, int, ManualClock], Script]) -> None:
        self.clock = ManualClock()
        self.lives: dict[str, list[Script]] = {}
        self.codes_before: list[int] = []
        self.log = structlog.testing.CapturingLogger()

        def start(name: str, _number: int, code_before: int) -> Script:
            self.codes_before.append(code_before)
            lives = self.lives.setdefault(name, [])
            lives.append(play(name, len(lives), self.clock))
            return lives[-1]

        self.noted: list[DepartureRecord] = []
        self.supervisor = Supervisor(
            "w", count, start, self.clock, SeededRandom(1), self.log, self.noted.append
        )

    def run(self, seconds: float = 1e6) -> int:
        """Until it ends by itself, or is told to stop after so long."""
        stop = _StopAt(self.clock, seconds)
        return self.supervisor.run(stop, STOP_TIMEOUT_S)

    def log_events(self, event: str) -> list[dict[str, object]]:
        return [call.kwargs for call in self.log.calls if call.args == (event,)]


class _StopAt(threading.Event):
    def __init__(self, clock: ManualClock, seconds: float) -> None:
        super().__init__()
        self._clock = clock
        self._at_s = clock.monotonic_s() + seconds

    def is_set(self) -> bool:
        return self._clock.monotonic_s() >= self._at_s


def test_the_wait_doubles_up_to_a_limit_and_is_jittered() -> None:
    """What kills a process often kills it again; and processes that ended together must not return together."""
    restarts = Restarts(SeededRandom(1))
    waits = [restarts.after(KILLED) for _ in range(12)]
    for number, wait_s in enumerate(waits):
        most = min(MAX_WAIT_S, 0.5 * 2**number)
        assert wait_s is not None
        assert most / 2 <= wait_s <= most
    assert waits != [Restarts(SeededRandom(2)).after(KILLED)] * 12


def test_a_process_that_lived_well_begins_again_with_the_first_wait() -> None:
    """One crash a day must not wait for what happened last week."""
    restarts = Restarts(SeededRandom(1))
    for _ in range(8):
        restarts.after(KILLED)
    wait_s = restarts.after(End(-signal.SIGKILL, WELL_S, worked=True))
    assert wait_s is not None
    assert wait_s <= 0.5


@pytest.mark.parametrize("code", [1, 2])
def test_a_process_that_refuses_to_start_is_given_up(code: int) -> None:
    """A mistyped setting stays wrong, and a thousand repeated lines would hide the first error."""
    restarts = Restarts(SeededRandom(1))
    for _ in range(MAX_REFUSALS - 1):
        assert restarts.after(End(code, 1.0, worked=False)) is not None
    assert restarts.after(End(code, 1.0, worked=False)) is None


@pytest.mark.parametrize(
    "end", [KILLED, End(3, 1.0, worked=False), End(1, 5.0, worked=True), End(0, 5.0, worked=True)]
)
def test_every_other_end_is_followed_by_a_start(end: End) -> None:
    """Kafka away, a kill, a failed task: giving up would turn an outage into a longer one."""
    restarts = Restarts(SeededRandom(1))
    assert all(restarts.after(end) is not None for _ in range(100))
    for _ in range(MAX_REFUSALS - 1):
        restarts.after(REFUSED)
    restarts.after(end)
    assert restarts.after(REFUSED) is not None  # not in a row


@pytest.mark.parametrize("code", [-signal.SIGKILL, -signal.SIGSEGV, 1, 0])
def test_the_end_of_a_process_is_noted_unless_it_has_done_so(code: int) -> None:
    """The other workers take over its tasks at once. One that ends with 0 has released them."""
    record = DepartureRecord("notes", b"left/w-1", b"...")

    def play(_name: str, life: int, clock: ManualClock) -> Script:
        return Script(clock, code if life == 0 else None, 5.0, progress(1, 1), record)

    crew = Crew(1, play)
    crew.run(20.0)
    assert crew.noted == ([] if code == 0 else [record])


def test_a_killed_process_comes_back_and_the_others_continue() -> None:
    """That is what a supervisor is for."""

    def play(name: str, life: int, clock: ManualClock) -> Script:
        if name == "w-2" and life == 0:
            return Script(clock, code=-signal.SIGKILL, after_s=3.0, progress=progress(100, live=4))
        return Script(clock, progress=progress(10, live=4))

    crew = Crew(3, play)
    assert crew.run(10.0) == 0
    assert {name: len(lives) for name, lives in crew.lives.items()} == {"w-1": 1, "w-2": 2, "w-3": 1}
    (said,) = crew.log_events("worker_exited")
    assert (said["worker"], said["exit_status"]) == ("w-2", "SIGKILL")


def test_each_process_learns_how_the_one_before_it_ended() -> None:
    """A signal that left no trace on the disk is known to the supervisor alone."""
    crew = Crew(1, lambda _name, life, clock: Script(clock, -signal.SIGABRT if life == 0 else None))
    crew.run(20.0)
    assert crew.codes_before == [0, -signal.SIGABRT]


def test_progress_is_the_sum_over_all_lives() -> None:
    """A number of records that falls when a process is killed reads as a loss."""

    def play(name: str, life: int, clock: ManualClock) -> Script:
        if name == "w-1" and life == 0:
            return Script(clock, code=-signal.SIGKILL, after_s=3.0, progress=progress(100, live=4))
        return Script(clock, progress=progress(10, live=6))

    crew = Crew(2, play)
    crew.clock.sleep(1.0)
    for _ in range(60):
        crew.supervisor.turn()
        crew.clock.sleep(0.1)
    assert crew.supervisor.progress.records == 120
    assert crew.supervisor.progress.live == 12


def test_what_no_process_can_do_ends_the_supervisor_with_its_exit_code() -> None:
    """All of them refuse for the same reason, which is logged only a few times."""
    crew = Crew(4, lambda _name, _life, clock: Script(clock, code=2, after_s=0.5))
    assert crew.run() == 2
    assert sum(map(len, crew.lives.values())) <= MAX_REFUSALS + 4
    assert crew.log_events("worker_not_restarted")


def test_a_process_whose_id_another_one_has_taken_is_not_started_again() -> None:
    """The other worker has a supervisor, too: they would fence each other again and again."""

    def play(name: str, _life: int, clock: ManualClock) -> Script:
        code = 5 if name == "w-1" else None
        return Script(clock, code=code, after_s=100.0, progress=progress(10, live=6))

    crew = Crew(2, play)
    assert crew.run(300.0) == 5
    assert {name: len(lives) for name, lives in crew.lives.items()} == {"w-1": 1, "w-2": 1}
    [given_up] = crew.log_events("worker_not_restarted")
    assert "a newer process has its worker id" in str(given_up["reason"])


def test_one_process_that_cannot_start_does_not_end_the_others() -> None:
    """Its disk may be full: the others have its tasks by then, and must not be ended for it."""

    def play(name: str, _life: int, clock: ManualClock) -> Script:
        if name == "w-3":
            return Script(clock, code=1, after_s=1.0)
        return Script(clock, progress=progress(10, live=6))

    crew = Crew(3, play)
    assert crew.run(200.0) == 1
    assert {name: len(lives) for name, lives in crew.lives.items()} == {
        "w-1": 1,
        "w-2": 1,
        "w-3": MAX_REFUSALS,
    }
    assert [said["worker"] for said in crew.log_events("worker_not_restarted")] == ["w-3"]


def test_a_process_that_does_not_stop_is_killed_after_the_time_out() -> None:
    """A process that waits for the supervisor must not wait forever."""
    crew = Crew(2, lambda name, _life, clock: Script(clock, deaf=name == "w-2"))
    assert crew.run(10.0) == 1
    assert crew.lives["w-1"][0].told == ["terminate"]
    assert crew.lives["w-2"][0].told == ["terminate", "kill"]
    assert crew.clock.monotonic_s() - 10.0 == pytest.approx(STOP_TIMEOUT_S + GRACE_S, abs=1.0)


def test_a_process_that_was_told_to_stop_before_it_listened_has_stopped_well() -> None:
    """It had begun nothing."""

    class Young(Script):
        def terminate(self) -> None:
            self.ended = -signal.SIGTERM

    assert Crew(1, lambda _name, _life, clock: Young(clock)).run(1.0) == 0
